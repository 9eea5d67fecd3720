-- The same tables, made beforehand, so that a trigger can write down every effect on them.
create schema audit;
create table audit.effects (
    id bigint generated always as identity primary key,
    relation text not null, key text not null, version bigint, op text not null
);
create function audit.note() returns trigger language plpgsql security definer as $$
begin
    if tg_op = 'DELETE' then
        insert into audit.effects (relation, key, version, op)
            values (tg_table_name, old.id::text, old.version, 'd');
    else
        insert into audit.effects (relation, key, version, op)
            values (tg_table_name, new.id::text, new.version, lower(left(tg_op, 1)));
    end if;
    return null;
end $$;

create table accounts (id bigint primary key, balance bigint not null, version bigint not null);
create table plain (
    id bigint primary key, amount numeric(12,2), note text, happened timestamptz,
    version bigint not null
);
create table toasted (id bigint primary key, big text, small integer, version bigint not null);
create table whole (id bigint primary key, name text, tags text[], version bigint not null);
create table renamed (id text primary key, label text, version bigint not null);
create table reborn (id bigint primary key, round integer, version bigint not null);
create table bulk (id bigint primary key, note text, version bigint not null);
create table wiped (id bigint primary key, note text, version bigint not null);
create table shifting (id bigint primary key, note text, version bigint not null);
create table refused (
    id bigint primary key, value text check (value <> 'poison'), version bigint not null
);

-- The sink's role is an ordinary one, so that it can run out of connections.
do $$
declare
    t regclass;
begin
    execute format('grant create on database %I to sinker', current_database());
    for t in select oid from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
    loop
        execute format('create trigger note after insert or update or delete on %s'
            ' for each row execute function audit.note()', t);
        execute format('alter table %s owner to sinker', t);
    end loop;
end $$;
grant create on schema public to sinker;
