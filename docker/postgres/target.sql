-- The target's side, run once by a superuser in the database to be filled: a role for each sink,
-- owner of the schema of its cursors and of nothing that it does not write.
DO $$
DECLARE
    sink text;
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    FOREACH sink IN ARRAY ARRAY['crm', 'mirror'] LOOP
        EXECUTE format('CREATE ROLE %I LOGIN PASSWORD %L', 'tailrace_' || sink,
            trim(pg_read_file(format('/run/secrets/%s_password', sink)), E'\n'));
        -- TEMPORARY: changes are staged in temporary tables before they are merged.
        EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I',
            current_database(), 'tailrace_' || sink);
        EXECUTE format('CREATE SCHEMA %1$I AUTHORIZATION %1$I', 'tailrace_' || sink);
    END LOOP;
END
$$;

CREATE SCHEMA crm AUTHORIZATION tailrace_crm;
GRANT USAGE, CREATE ON SCHEMA public TO tailrace_mirror;
