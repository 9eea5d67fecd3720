"""What `cdc check` looks at before a sink writes into the server; nothing is changed by it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cdc.connections.mariadb import Connection, fetch, quoted
from cdc.connector import Finding
from cdc.errors import CdcError
from schemas.table import TableId
from sinks.mariadb.catalog import Catalog, place_of
from sinks.mariadb.dialect import Dialect
from sinks.mariadb.existing import Existing
from sinks.refusals import unwanted

__all__ = ["findings", "logs_statements", "older"]

_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_CONSTRAINTS = """
SELECT CONSTRAINT_NAME FROM information_schema.TABLE_CONSTRAINTS
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND CONSTRAINT_TYPE IN ('UNIQUE', 'FOREIGN KEY')
ORDER BY CONSTRAINT_NAME
"""


def findings(
    connection: Connection,
    database: str,
    dialect: Dialect,
    tables: Sequence[TableId],
    *,
    may_create: bool,
    workers: int,
) -> Iterator[Finding]:
    """Yield one finding for each precondition; `tables` are those the mapping names."""
    unfit = dialect.unfit(connection)
    if unfit is not None:
        yield unfit
        return
    yield Finding("ok", "version", dialect.version(connection))
    rights = _Rights(connection, dialect)
    yield rights.finding("staging", database, "", ("CREATE TEMPORARY TABLES",))
    ours = ["tailrace_cursors"]
    if workers > 1:
        ours += ["tailrace_barriers", "tailrace_sinks"]
    catalog = Catalog(connection, database, dialect)
    for name in ours:
        missing = catalog.read(TableId("", name)) is None
        wanted = ("CREATE", *_RIGHTS) if missing else _RIGHTS
        yield rights.finding(f"{database}.{name}", database, name, wanted)
    for table in tables:
        yield from _table(catalog, rights, table, database, may_create=may_create)
        if workers > 1:
            yield from _bound(connection, place_of(table, database))


def older(version: str, oldest: tuple[int, ...]) -> Finding | None:
    """Return what is to be said of a version before `oldest`, of a server of the right kind."""
    numbers = tuple(map(int, re.findall(r"\d+", version)[: len(oldest)]))
    if numbers >= oldest:
        return None
    least = ".".join(map(str, oldest))
    return Finding("fail", "version", f"{version} is older than {least}", "Upgrade the server.")


def logs_statements(connection: Connection) -> Finding | None:
    """Return what is to be said of a log of statements alone."""
    if not fetch(connection, "SELECT @@log_bin AND @@binlog_format = 'STATEMENT'")[0][0]:
        return None
    told = "the server logs statements, which it cannot do at READ COMMITTED"
    return Finding("fail", "version", told, "SET GLOBAL binlog_format = 'MIXED';")


class _Rights:
    """What the user may do."""

    def __init__(self, connection: Connection, dialect: Dialect) -> None:
        self._connection = connection
        self._dialect = dialect
        [(who,)] = fetch(connection, "SELECT CURRENT_USER()")
        user, _, host = str(who).rpartition("@")
        self._name = f"{quoted(user)}@{quoted(host)}"

    def lacking(self, database: str, table: str, wanted: Sequence[str]) -> list[str]:
        """Return which of `wanted` the user may not do with a table, or a whole database."""
        held = self._dialect.granted(self._connection, database, table)
        return [right for right in wanted if right not in held]

    def finding(self, subject: str, database: str, table: str, wanted: Sequence[str]) -> Finding:
        """Say whether the user has all rights of `wanted`."""
        lacking = self.lacking(database, table, wanted)
        if not lacking:
            return Finding("ok", subject, "can be used")
        what = ", ".join(lacking)
        place = f"{quoted(database)}.{quoted(table) if table else '*'}"
        repair = f"GRANT {what} ON {place} TO {self._name};"
        return Finding("fail", subject, f"the user lacks {what}", repair)


def _table(
    catalog: Catalog, rights: _Rights, table: TableId, database: str, *, may_create: bool
) -> Iterator[Finding]:
    place = place_of(table, database)
    subject = ".".join(place)
    try:
        existing: Existing | None = catalog.read(table)
    except CdcError as error:
        yield Finding("fail", subject, str(error), error.hint)
        return
    if existing is None and not may_create:
        yield unwanted(subject)
    elif existing is None:
        yield rights.finding(subject, *place, ("CREATE", *_RIGHTS))
    elif not existing.transactional:
        repair = f"ALTER TABLE {existing.quoted} ENGINE=InnoDB;"
        told = f"is of the engine {existing.engine}, which knows no transactions"
        yield Finding("fail", subject, told, repair)
    else:
        yield rights.finding(subject, *place, _RIGHTS)


def _bound(connection: Connection, place: tuple[str, str]) -> Iterator[Finding]:
    names = ", ".join(row[0] for row in fetch(connection, _CONSTRAINTS, place))
    if names:
        yield Finding(
            "warn",
            ".".join(place),
            f"with several workers a row may come before what {names} asks for",
            "Set `workers: 1` for consistent cuts, or drop the constraints on the target.",
        )
