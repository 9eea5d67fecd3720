-- The same tables, made beforehand, so that a trigger can write down every effect on them.
create schema audit;
create table audit.effects (
    id bigint generated always as identity primary key,
    relation text not null, key text not null, version bigint, op text not null
);
create function audit.note() returns trigger language plpgsql as $$
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

create trigger note after insert or update or delete on accounts for each row execute function audit.note();
create trigger note after insert or update or delete on plain for each row execute function audit.note();
create trigger note after insert or update or delete on toasted for each row execute function audit.note();
create trigger note after insert or update or delete on whole for each row execute function audit.note();
create trigger note after insert or update or delete on renamed for each row execute function audit.note();
create trigger note after insert or update or delete on reborn for each row execute function audit.note();
