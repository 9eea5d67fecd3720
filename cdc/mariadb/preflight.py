"""`cdc check` of a MariaDB or MySQL source: each precondition, with the SQL that repairs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

from cdc.connections.mariadb import address
from cdc.connector import Finding
from cdc.errors import CdcError, ConfigError, SourceUnavailable, UnknownEvent
from cdc.mariadb.catalog import Catalog, Selection, TableFacts
from cdc.mariadb.chunks import order_of
from cdc.mariadb.connection import Login, connect, quoted
from cdc.mariadb.dump import Dump, passing_id
from cdc.mariadb.opening import LOGGING
from cdc.mariadb.requirements import OTHER, ROWS, is_other, logs, required
from cdc.mariadb.settings import Settings
from cdc.mariadb.tables import Tables

__all__ = ["findings", "images", "log_findings", "retention"]

_ANSWER_S = 5.0
_DAY_S = 86_400

_IMAGES = {
    "FULL": "FULL",
    "FULL_NODUP": "FULL_NODUP",
    "NOBLOB": "NOBLOB: large values an update leaves alone are absent, old rows are keys",
    "MINIMAL": "MINIMAL: what an update leaves alone is absent, old rows are keys, and creates are "
    "read again by their key",
}

_CASCADES = """
SELECT CONSTRAINT_NAME, UPDATE_RULE, DELETE_RULE
FROM information_schema.REFERENTIAL_CONSTRAINTS
WHERE CONSTRAINT_SCHEMA = %s AND TABLE_NAME = %s
AND (UPDATE_RULE IN ('CASCADE', 'SET NULL') OR DELETE_RULE IN ('CASCADE', 'SET NULL'))
"""


def findings(settings: Settings) -> Iterator[Finding]:
    """Yield what was looked at and how it stands; "fail" for what `open` would refuse."""
    dialect = settings.dialect
    login = Login(settings.url, settings.application, system=dialect.name)
    try:
        connection = connect(login)
    except ConfigError as error:
        yield Finding("fail", "connection", str(error), error.hint)
        return
    except SourceUnavailable as error:
        yield Finding("fail", "connection", str(error), error.hint)
        return
    with closing(connection):
        catalog = Catalog(connection, login, dialect)
        version = catalog.value("SELECT VERSION()")
        if is_other(catalog, version):
            yield Finding("fail", "server", f"{version} is no {dialect.name}", OTHER)
            return
        yield Finding("ok", "server", version)
        yield from dialect.findings(catalog)
        yield _dump(settings, login, catalog)
        yield from _tables(settings, catalog)


def log_findings(catalog: Catalog) -> Iterator[Finding]:
    """Look at what the log of MariaDB has, and for how long."""
    yield from required(catalog, LOGGING, ROWS)
    if not logs(catalog):
        return
    yield _metadata(catalog)
    yield images(catalog)
    yield retention(catalog)
    strict = catalog.variable("gtid_strict_mode") == "1"
    yield Finding(
        "ok" if strict else "warn",
        "gtid_strict_mode",
        "ON" if strict else "OFF: ids may come out of order, which stops the source",
        "" if strict else "SET GLOBAL gtid_strict_mode = ON;",
    )


def _metadata(catalog: Catalog) -> Finding:
    found = catalog.variable("binlog_row_metadata")
    if found == "FULL":
        return Finding("ok", "binlog_row_metadata", found)
    told = (
        f"{found}: names are the catalogue's, and rows between two changes of a table, both made "
        "before the first was read, stop the source"
    )
    return Finding("warn", "binlog_row_metadata", told, "SET GLOBAL binlog_row_metadata = 'FULL';")


def images(catalog: Catalog) -> Finding:
    """Say what the rows of the log have of their columns."""
    return Finding("ok", "binlog_row_image", _IMAGES[catalog.variable("binlog_row_image")])


def retention(catalog: Catalog) -> Finding:
    """Look at how long the log is kept."""
    seconds = int(float(catalog.variable("binlog_expire_logs_seconds") or 0))
    repair = f"SET GLOBAL binlog_expire_logs_seconds = {3 * _DAY_S};"
    if not seconds:
        return Finding("ok", "retention", "the log is kept until it is purged by hand")
    if seconds < _DAY_S:
        told = f"the log is kept {seconds} s: a source that is away longer must begin anew"
        return Finding("warn", "retention", told, repair)
    return Finding("ok", "retention", f"the log is kept {seconds // 3600} h")


def _dump(settings: Settings, login: Login, catalog: Catalog) -> Finding:
    """Ask for the log, under an id that nobody has."""
    user = address(login).user
    repair = f"GRANT {catalog.dialect.grants} ON *.* TO {quoted(user)}@'%';"
    try:
        with closing(Dump(login, settings.dialect)) as dump:
            gtid = settings.dialect.executed(catalog)
            dump.start(gtid, passing_id(), settings.heartbeat)
            deadline = time.monotonic() + _ANSWER_S
            while time.monotonic() < deadline:
                if dump.pull(1, 1):
                    return Finding("ok", "log", "it can be read")
                dump.wait(0.1)
    except SourceUnavailable as error:
        return Finding("fail", "log", str(error), error.hint)
    except CdcError as error:
        return Finding("fail", "log", str(error), repair)
    return Finding("fail", "log", f"the server sent nothing within {_ANSWER_S:.0f} s", repair)


def _tables(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    selection = Selection(catalog, settings.tables)
    tables = Tables(catalog, selection, settings.keys)
    found = selection.tables()
    if not found:
        globs = ", ".join(settings.tables)
        repair = f"GRANT SELECT ON … TO {quoted(address(catalog.login).user)}@'%';"
        yield Finding("warn", "tables", f"{globs} select nothing this user may see", repair)
    for facts in found:
        yield from _table(catalog, tables, catalog.described(facts))


def _table(catalog: Catalog, tables: Tables, facts: TableFacts) -> Iterator[Finding]:
    subject = str(facts.table)
    name = quoted(facts.table.schema, facts.table.name)
    leave_out = f'tables: ["!{facts.table}"]'
    try:
        schema = tables.described(facts)
        catalog.rows(f"SELECT 1 FROM {name} LIMIT 0")  # noqa: S608 - quoted
    except UnknownEvent as error:
        yield Finding("fail", subject, str(error), leave_out)
        return
    except CdcError as error:
        user = quoted(address(catalog.login).user)
        yield Finding("fail", subject, str(error), f"GRANT SELECT ON {name} TO {user}@'%';")
        return
    if not facts.transactional:
        told = f"{facts.engine} has no transactions: a snapshot may be ahead of the log"
        yield Finding("warn", subject, told, f"ALTER TABLE {name} ENGINE = InnoDB;")
    for constraint, update, delete in catalog.rows(
        _CASCADES, (facts.table.schema, facts.table.name)
    ):
        told = f"{constraint} (ON UPDATE {update}, ON DELETE {delete}) changes rows unlogged"
        repair = (
            f"do it in the application: ALTER TABLE {name} DROP FOREIGN KEY {quoted(constraint)};"
        )
        yield Finding("warn", subject, told, repair)
    if not schema.key:
        repair = f"ALTER TABLE {name} ADD PRIMARY KEY (…);"
        yield Finding("warn", subject, "it has no key: null keys, one partition", repair)
    elif not order_of(facts, schema):
        told = "its key cannot be followed: a snapshot reads it whole, the stream waits meanwhile"
        yield Finding("warn", subject, told)
    else:
        yield Finding("ok", subject, f"key {', '.join(schema.key)}")
