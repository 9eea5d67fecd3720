-- Ten tables whose every row carries a version no other change ever had, and a journal that is
-- written by triggers in the same transactions but is not captured. The journal holds PostgreSQL's
-- own text of every column; the large one as its hash.
create schema journal;
create extension hstore schema journal;
create sequence versions cache 1;
create sequence journal.pairs;
create table journal.entries (
    id bigint generated always as identity primary key,
    relation text not null, key text not null, version bigint, op text not null,
    xid bigint not null default pg_current_xact_id()::text::bigint,
    row jsonb, pair bigint, kept boolean not null default false
);

create function journal.note() returns trigger language plpgsql as $$
declare
    image jsonb; kept boolean := false; pair bigint;
begin
    if tg_op = 'TRUNCATE' then
        insert into journal.entries (relation, key, op) values (tg_table_name, '', 't');
        return null;
    end if;
    if tg_op = 'DELETE' then
        insert into journal.entries (relation, key, op) values (tg_table_name, old.id::text, 'd');
        return null;
    end if;
    image := journal.hstore_to_jsonb(journal.hstore(new));
    if tg_table_name = 'toasted' then
        image := image || jsonb_build_object('big', 'md5:' || md5(new.big));
        kept := tg_op = 'UPDATE' and old.big is not distinct from new.big;
    end if;
    if tg_op = 'INSERT' then
        insert into journal.entries (relation, key, version, op, row)
            values (tg_table_name, new.id::text, new.version, 'c', image);
    elsif old.id = new.id then
        insert into journal.entries (relation, key, version, op, row, kept)
            values (tg_table_name, new.id::text, new.version, 'u', image, kept);
    else
        pair := nextval('journal.pairs');
        insert into journal.entries (relation, key, op, pair)
            values (tg_table_name, old.id::text, 'd', pair);
        insert into journal.entries (relation, key, version, op, row, pair, kept)
            values (tg_table_name, new.id::text, new.version, 'c', image, pair, kept);
    end if;
    return null;
end $$;

create table accounts (
    id bigint primary key, balance bigint not null,
    version bigint not null default nextval('versions')
);
create table plain (
    id bigint primary key, amount numeric(12,2), note text, happened timestamptz default now(),
    version bigint not null default nextval('versions')
);
create table toasted (
    id bigint primary key, big text, small integer,
    version bigint not null default nextval('versions')
);
alter table toasted alter column big set storage external;
create table whole (
    id bigint primary key, name text, tags text[],
    version bigint not null default nextval('versions')
);
alter table whole replica identity full;
create table renamed (
    id text primary key, label text, version bigint not null default nextval('versions')
);
create table reborn (
    id bigint primary key, round integer, version bigint not null default nextval('versions')
);
create table bulk (
    id bigint primary key, note text, version bigint not null default nextval('versions')
);
create table wiped (
    id bigint primary key, note text, version bigint not null default nextval('versions')
);
create table shifting (
    id bigint primary key, note text, version bigint not null default nextval('versions')
);
create table refused (
    id bigint primary key, value text, version bigint not null default nextval('versions')
);

do $$
declare
    t regclass;
begin
    for t in select oid from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
    loop
        execute format('create trigger note after insert or update or delete on %s'
            ' for each row execute function journal.note()', t);
        execute format('create trigger wipe after truncate on %s'
            ' for each statement execute function journal.note()', t);
    end loop;
end $$;

insert into accounts select i, 1000, nextval('versions') from generate_series(1, 50) i;
insert into bulk (id, note) select i, 'first ' || i from generate_series(1, 5000) i;
insert into toasted (id, big, small)
    select i, repeat(md5(i::text), 200), 0 from generate_series(1, 500) i;
insert into shifting (id, note) select i, 'first ' || i from generate_series(1, 300) i;
