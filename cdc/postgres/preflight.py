"""`cdc check` for Postgres: each precondition, how it stands, and the exact SQL that repairs it.

Looks and changes nothing. What needs a database owner or a superuser is spelled out so that it
can be handed to one; managed servers without a superuser are fine, replication is tried, not
inferred from role attributes.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from cdc.connections.postgres import Login, connect, connect_replication, qualified
from cdc.connector import Finding
from cdc.decode.lsn import format_lsn
from cdc.errors import CdcError
from cdc.postgres import publication as publications
from cdc.postgres.catalog import Catalog, TableFacts
from cdc.postgres.commands import identify
from cdc.postgres.relations import key_problem
from cdc.postgres.settings import Settings
from cdc.postgres.slot import slot_facts

__all__ = ["findings"]

_OLDEST = 140000
_LONG_S = 60
_LARGE = 1 << 30

_ROOM = """
SELECT current_setting('max_replication_slots')::int,
       (SELECT count(*) FROM pg_catalog.pg_replication_slots)::int,
       current_setting('max_wal_senders')::int,
       (SELECT count(*) FROM pg_catalog.pg_stat_replication)::int
"""
_UNLOGGED = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND n.nspname !~ '^pg_' ORDER BY 1, 2
"""
_RIGHTS = """
SELECT has_schema_privilege(n.oid, 'USAGE'), has_any_column_privilege(c.oid, 'SELECT'),
       pg_has_role(c.relowner, 'USAGE'), row_security_active(c.oid)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = %s
"""
_OTHERS = """
SELECT slot_name::text, (pg_current_wal_lsn() - restart_lsn)::bigint
FROM pg_catalog.pg_replication_slots
WHERE NOT active AND slot_name <> %s AND pg_current_wal_lsn() - restart_lsn > %s ORDER BY 1
"""
_OLD = """
SELECT pid, backend_xid::text, extract(epoch FROM now() - xact_start)::bigint, coalesce(state, '')
FROM pg_catalog.pg_stat_activity
WHERE backend_xid IS NOT NULL AND now() - xact_start > make_interval(secs => %s) ORDER BY 3 DESC
"""
_PREPARED = """
SELECT gid, transaction::text, extract(epoch FROM now() - prepared)::bigint, database
FROM pg_catalog.pg_prepared_xacts WHERE now() - prepared > make_interval(secs => %s) ORDER BY 3 DESC
"""


def findings(settings: Settings) -> Iterator[Finding]:
    """Yield every finding; one that makes the rest pointless is the last."""
    login = Login(settings.url, settings.application)
    try:
        connection = connect(login)
    except CdcError as error:
        yield Finding("fail", "connection", str(error), error.hint)
        return
    with connection:
        catalog = Catalog(connection, login)
        yield from _version(catalog)
        if connection.info.server_version < _OLDEST:
            return
        yield from _server(catalog)
        yield from _replication(login, settings)
        tables = catalog.tables(list(settings.tables))
        yield from _selection(catalog, settings, tables)
        for facts in tables:
            yield from _table(catalog, facts)
        yield from _keys(catalog, settings, tables)
        yield from _identities(catalog, tables)
        yield from _publication(catalog, settings, tables)
        yield from _slot(catalog, settings)


def _version(catalog: Catalog) -> Iterator[Finding]:
    version = catalog.connection.info.server_version
    name = f"PostgreSQL {version // 10000}.{version % 10000}"
    if version < _OLDEST:
        yield Finding("fail", "version", f"{name} is too old", "upgrade to PostgreSQL 14 or newer")
    else:
        yield Finding("ok", "version", name)


def _server(catalog: Catalog) -> Iterator[Finding]:
    level = catalog.value("SHOW wal_level")
    repair = "ALTER SYSTEM SET wal_level = 'logical';  then restart the server"
    yield _judged("wal_level", f"is {level}", repair, fine=level == "logical")
    standby = bool(catalog.value("SELECT pg_is_in_recovery()"))
    what = "is a standby" if standby else "is a primary"
    yield _judged("server", what, "point `url` at the primary", fine=not standby)
    slots, used, senders, sending = (int(str(value)) for value in catalog.rows(_ROOM)[0])
    for subject, most, now in (
        ("max_replication_slots", slots, used),
        ("max_wal_senders", senders, sending),
    ):
        repair = f"ALTER SYSTEM SET {subject} = {most + 10};  then restart the server"
        yield _judged(subject, f"{now} of {most} in use", repair, fine=now < most)


def _judged(subject: str, message: str, repair: str, *, fine: bool) -> Finding:
    return Finding("ok", subject, message) if fine else Finding("fail", subject, message, repair)


def _replication(login: Login, settings: Settings) -> Iterator[Finding]:
    try:
        pgconn = connect_replication(login)
        try:
            system = identify(pgconn, login)
        finally:
            pgconn.finish()
    except CdcError as error:
        yield Finding("fail", "replication", str(error), error.hint)
    else:
        where = format_lsn(system.flush_lsn)
        yield Finding(
            "ok", "replication", f"{settings.application} may read the log, now at {where}"
        )


def _selection(catalog: Catalog, settings: Settings, tables: list[TableFacts]) -> Iterator[Finding]:
    if tables:
        yield Finding("ok", "tables", f"{len(tables)} selected")
    else:
        globs = ", ".join(settings.tables)
        yield Finding("warn", "tables", f"nothing matches {globs}", "look at `tables:`")
    for schema, name in catalog.rows(_UNLOGGED):
        text = "is unlogged, so the log has nothing of it"
        table = sql.Identifier(str(schema), str(name)).as_string(None)
        yield Finding("warn", f"{schema}.{name}", text, f"ALTER TABLE {table} SET LOGGED;")


def _table(catalog: Catalog, facts: TableFacts) -> Iterator[Finding]:
    name, user = qualified(facts.table).as_string(None), _user(catalog)
    usage, select, _, secured = catalog.rows(_RIGHTS, (facts.oid,))[0]
    if not usage:
        schema = sql.Identifier(facts.table.schema).as_string(None)
        repair = f"GRANT USAGE ON SCHEMA {schema} TO {user};"
        yield Finding("fail", str(facts.table), "its schema may not be used", repair)
    if not select:
        repair = f"GRANT SELECT ON {name} TO {user};"
        yield Finding("fail", str(facts.table), "may not be read, which a snapshot needs", repair)
    if secured:
        repair = f"ALTER ROLE {user} BYPASSRLS;"
        text = "row security would hide rows from a snapshot; it is refused"
        yield Finding("fail", str(facts.table), text, repair)
    if facts.identity == "n":
        text = "REPLICA IDENTITY NOTHING: only inserts and truncations are captured"
        repair = f"ALTER TABLE {name} REPLICA IDENTITY DEFAULT;"
        yield Finding("warn", str(facts.table), text, repair)
    elif facts.identity == "f" and not facts.primary_key:
        text = "has no key: null record keys, one partition, a snapshot that cannot be resumed"
        repair = f"ALTER TABLE {name} ADD PRIMARY KEY (...);  or `key:` in the configuration"
        yield Finding("warn", str(facts.table), text, repair)


def _keys(catalog: Catalog, settings: Settings, tables: list[TableFacts]) -> Iterator[Finding]:
    oids = {str(facts.table): facts.oid for facts in tables}
    for name, wanted in settings.keys.items():
        facts = catalog.facts(oids[name]) if name in oids else None
        if facts is None:
            yield Finding("fail", f"key {name}", "is no selected table", "correct `key:`")
            continue
        problem = key_problem(facts, wanted)
        if problem:
            table = qualified(facts.table).as_string(None)
            repair = f"correct `key:`, or ALTER TABLE {table} REPLICA IDENTITY FULL;"
            yield Finding("fail", f"key {name}", problem, repair)


def _identities(catalog: Catalog, tables: list[TableFacts]) -> Iterator[Finding]:
    missing = publications.missing_identity(catalog, tables)
    for _, table, _ in missing:
        text = "no replica identity: once published, its updates and deletes would fail"
        yield Finding("fail", str(table), text, publications.identity_remedy(table))
    if tables and not missing:
        yield Finding("ok", "replica identity", f"all {len(tables)} tables can be published")


def _publication(
    catalog: Catalog, settings: Settings, tables: list[TableFacts]
) -> Iterator[Finding]:
    publication = publications.Publication(settings.publication, given=not settings.own_publication)
    existing = publications.existing(catalog, publication)
    subject = f"publication {publication.name}"
    if publication.name in existing:
        now = publications.published(catalog, publication)
        yield Finding("ok", subject, f"exists and carries {len(now)} tables")
        if publication.given:
            yield from _left_out(catalog, publication, tables)
    elif publication.given:
        repair = publications.create_sql(catalog, publication.name, tables, inserts_only=False)
        yield Finding("fail", subject, "does not exist", repair)
    else:
        yield Finding("ok", subject, "is made at the first start")
    if not publication.given:
        yield from _may_publish(catalog, publication, tables)


def _left_out(
    catalog: Catalog, publication: publications.Publication, tables: list[TableFacts]
) -> Iterator[Finding]:
    carried = publications.published(catalog, publication)
    missing = [facts for facts in tables if facts.table not in carried]
    if missing:
        names = ", ".join(str(facts.table) for facts in missing)
        repair = publications.add_sql(publication.name, missing)
        yield Finding("warn", f"publication {publication.name}", f"lacks {names}", repair)


def _may_publish(
    catalog: Catalog, publication: publications.Publication, tables: list[TableFacts]
) -> Iterator[Finding]:
    """Creating needs CREATE on the database, adding a table needs to own it."""
    user = _user(catalog)
    query = "SELECT has_database_privilege(current_database(), 'CREATE')"
    if publication.name not in publications.existing(catalog, publication) and not catalog.value(
        query
    ):
        database = sql.Identifier(catalog.connection.info.dbname).as_string(None)
        repair = f"GRANT CREATE ON DATABASE {database} TO {user};"
        yield Finding("fail", "publication rights", "no CREATE on the database", repair)
    missing = publications.unpublished(catalog, publication, tables)
    foreign = [facts for facts in missing if not catalog.rows(_RIGHTS, (facts.oid,))[0][2]]
    if foreign:
        names = ", ".join(str(facts.table) for facts in foreign)
        create = publications.create_sql(catalog, publication.name, tables, inserts_only=False)
        repair = f"as their owner: {create}  then say `publication: {publication.name}`"
        yield Finding("fail", "publication rights", f"not the owner of {names}", repair)


def _slot(catalog: Catalog, settings: Settings) -> Iterator[Finding]:
    slot = slot_facts(catalog, settings.slot)
    subject = f"slot {settings.slot}"
    if slot is None:
        yield Finding("ok", subject, "is made at the first start")
        yield from _blockers(catalog)
    elif slot.wal_status == "lost":
        repair = f"SELECT pg_drop_replication_slot('{slot.name}');  then `cdc position reset`"
        yield Finding("fail", subject, "the log it needs was removed", repair)
    else:
        held = f"; read by pid {slot.active_pid}" if slot.active_pid else ""
        text = f"keeps {_bytes(slot.retained)} of log ({slot.wal_status}){held}"
        yield Finding("ok", subject, text)
    for name, kept in catalog.rows(_OTHERS, (settings.slot, _LARGE)):
        text = f"nobody reads it, and it keeps {_bytes(int(str(kept)))} of log"
        repair = f"if it is abandoned: SELECT pg_drop_replication_slot('{name}');"
        yield Finding("warn", f"slot {name}", text, repair)


def _blockers(catalog: Catalog) -> Iterator[Finding]:
    """A slot is made when every transaction has ended that was running at its request."""
    for pid, xid, age, state in catalog.rows(_OLD, (_LONG_S,)):
        text = f"xid {xid} is open for {age} s ({state}); the slot cannot be made before it ends"
        yield Finding("warn", f"pid {pid}", text, f"SELECT pg_terminate_backend({pid});")
    for gid, xid, age, database in catalog.rows(_PREPARED, (_LONG_S,)):
        text = f"xid {xid} is prepared for {age} s; the slot cannot be made before it ends"
        name = sql.Literal(str(gid)).as_string(None)
        repair = f"in database {database}: COMMIT PREPARED {name};  or ROLLBACK PREPARED {name};"
        yield Finding("warn", f"prepared transaction {gid}", text, repair)


def _user(catalog: Catalog) -> str:
    return sql.Identifier(catalog.connection.info.user).as_string(None)


def _bytes(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
