"""What `cdc check` looks at before a sink writes into MariaDB; nothing is changed by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cdc.connections.mariadb import Connection, fetch, quoted
from cdc.connector import Finding
from cdc.errors import CdcError
from schemas.table import TableId
from sinks.mariadb.catalog import Catalog, place_of
from sinks.mariadb.existing import Existing
from sinks.refusals import unwanted

__all__ = ["findings", "unfit"]

_OLDEST = (10, 11)
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_GRANTS = """
SELECT PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE GRANTEE IN %s
UNION SELECT PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES
    WHERE %s LIKE TABLE_SCHEMA AND GRANTEE IN %s
UNION SELECT PRIVILEGE_TYPE FROM information_schema.TABLE_PRIVILEGES
    WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND GRANTEE IN %s
"""
_CONSTRAINTS = """
SELECT CONSTRAINT_NAME FROM information_schema.TABLE_CONSTRAINTS
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND CONSTRAINT_TYPE IN ('UNIQUE', 'FOREIGN KEY')
ORDER BY CONSTRAINT_NAME
"""


def findings(
    connection: Connection,
    database: str,
    tables: Sequence[TableId],
    *,
    may_create: bool,
    workers: int,
) -> Iterator[Finding]:
    """Yield one finding for each precondition; `tables` are those the mapping names."""
    yield unfit(connection) or Finding("ok", "version", _version(connection))
    rights = _Rights(connection)
    yield rights.finding("staging", database, "", ("CREATE TEMPORARY TABLES",))
    ours = ["tailrace_cursors"]
    if workers > 1:
        ours += ["tailrace_barriers", "tailrace_sinks"]
    catalog = Catalog(connection, database)
    for name in ours:
        missing = catalog.read(TableId("", name)) is None
        wanted = ("CREATE", *_RIGHTS) if missing else _RIGHTS
        yield rights.finding(f"{database}.{name}", database, name, wanted)
    for table in tables:
        yield from _table(catalog, rights, table, database, may_create=may_create)
        if workers > 1:
            yield from _bound(connection, place_of(table, database))


def unfit(connection: Connection) -> Finding | None:
    """Return why the server cannot be a target at all, None where it can."""
    text = _version(connection)
    if "MariaDB" not in text:
        repair = "Use MariaDB; this target is neither made for MySQL nor tested with it."
        return Finding("fail", "version", f"the server is MySQL {text}", repair)
    numbers = tuple(int(part) for part in text.partition("-")[0].split(".")[:2])
    if numbers < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return Finding("fail", "version", f"{text} is older than {oldest}", "Upgrade the server.")
    if _one(connection, "SELECT @@log_bin AND @@binlog_format = 'STATEMENT'"):
        return Finding(
            "fail",
            "version",
            "the server logs statements, which it cannot do at READ COMMITTED",
            "SET GLOBAL binlog_format = 'MIXED';",
        )
    return None


def _one(connection: Connection, query: str, *parameters: str) -> Any:
    return fetch(connection, query, parameters)[0][0]


def _version(connection: Connection) -> str:
    return str(_one(connection, "SELECT VERSION()"))


class _Rights:
    """What the user may do, by its own grants and those of its role."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        user, _, host = str(_one(connection, "SELECT CURRENT_USER()")).rpartition("@")
        role = _one(connection, "SELECT CURRENT_ROLE()")
        self._who = [f"'{user}'@'{host}'", f"'{role}'@''", str(role)]
        self._name = f"{quoted(user)}@{quoted(host)}"

    def lacking(self, database: str, table: str, wanted: Sequence[str]) -> list[str]:
        """Return which of `wanted` the user may not do with a table, or a whole database."""
        place = (self._who, database, self._who, database, table, self._who)
        held = {row[0] for row in fetch(self._connection, _GRANTS, place)}
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
