-- Six tables whose every row carries a version no other change ever had, and a journal that is
-- written by triggers in the same transactions but is not captured.
create sequence versions;
create schema journal;
create table journal.entries (
    id bigint generated always as identity primary key,
    relation text not null, key text not null, version bigint, op text not null
);

create function journal.note() returns trigger language plpgsql as $$
declare
    old_key text; new_key text;
begin
    if tg_op <> 'INSERT' then old_key := old.id::text; end if;
    if tg_op <> 'DELETE' then new_key := new.id::text; end if;
    if tg_op = 'UPDATE' and old_key = new_key then
        insert into journal.entries (relation, key, version, op)
            values (tg_table_name, new_key, new.version, 'u');
        return null;
    end if;
    if old_key is not null then
        insert into journal.entries (relation, key, op) values (tg_table_name, old_key, 'd');
    end if;
    if new_key is not null then
        insert into journal.entries (relation, key, version, op)
            values (tg_table_name, new_key, new.version, 'c');
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

create trigger note after insert or update or delete on accounts for each row execute function journal.note();
create trigger note after insert or update or delete on plain for each row execute function journal.note();
create trigger note after insert or update or delete on toasted for each row execute function journal.note();
create trigger note after insert or update or delete on whole for each row execute function journal.note();
create trigger note after insert or update or delete on renamed for each row execute function journal.note();
create trigger note after insert or update or delete on reborn for each row execute function journal.note();

insert into accounts select i, 1000, nextval('versions') from generate_series(1, 50) i;
