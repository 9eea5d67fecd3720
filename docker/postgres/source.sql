-- The source's side, run once by a superuser in the database to be captured: a role that may stream
-- and read, and a publication made for it. The role is no superuser and owns nothing.
DO $$
BEGIN
    EXECUTE format('CREATE ROLE tailrace_source LOGIN REPLICATION PASSWORD %L',
        trim(pg_read_file('/run/secrets/source_password'), E'\n'));
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO tailrace_source', current_database());
END
$$;

GRANT USAGE ON SCHEMA public TO tailrace_source;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO tailrace_source;
-- Tables that this same user makes later; say it again for every other owner of tables.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO tailrace_source;

CREATE PUBLICATION tailrace FOR TABLES IN SCHEMA public WITH (publish_via_partition_root);
