"""Reading tables in pieces, each in a snapshot whose place in the log is known.

How a snapshot and the log are held together is the server's own (`dialect.View`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TypeVar

import msgspec
import pymysql
from pymysql.cursors import SSCursor

from cdc.connections.mariadb import code_of
from cdc.decode.mysqltypes import MysqlColumn
from cdc.errors import ConfigError, PreflightFailed, SourceUnavailable
from cdc.keys import line_key
from cdc.mariadb.catalog import TableFacts
from cdc.mariadb.connection import Connection, Login, connect, leave, quoted, unread, whole_guard
from cdc.mariadb.dialect import Dialect, View
from cdc.mariadb.position import Position
from cdc.mariadb.results import lines
from cdc.mariadb.selecting import asked
from schemas.table import TableSchema

__all__ = [
    "Chunk",
    "ChunkReader",
    "Chunks",
    "ConditionRefused",
    "Limits",
    "Slice",
    "TableBusy",
    "key_text",
    "literal",
    "order_of",
    "settled",
]

_Found = TypeVar("_Found")

_PATIENCE_S, _PAUSE_S = 1.0, 0.002

_ORDERED = {
    *("tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year"),
    *("date", "datetime", "timestamp", "char", "varchar", "binary", "varbinary", "uuid"),
}
"""Types whose order is that of their comparison with a literal; not ENUM, BIT, FLOAT."""

_NUMBERS = {"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year"}
_BUSY = {1054, 1146, 1205, 1213, 1412}
"""Column or table gone, lock waits, a definition that has changed: look again."""


class ConditionRefused(ConfigError):
    """The operator's condition on a backfill is no SQL the server takes."""


class TableBusy(SourceUnavailable):
    """Somebody locks or changes the table just now; it is read later."""


def settled(
    ask: Callable[[], _Found],
    enough: Callable[[_Found], bool],
    late: SourceUnavailable | None = None,
    patience_s: float = _PATIENCE_S,
) -> _Found:
    """Ask how far the server's tables are until that is `enough`, and return it.

    A log has a transaction before the tables have it. Raises `late`, or `TableBusy`, when that
    lasts for more than `patience_s`.
    """
    deadline = time.monotonic() + patience_s
    while not enough(found := ask()):
        if time.monotonic() > deadline:
            raise late or TableBusy("the server has not committed all that its log has sent")
        time.sleep(_PAUSE_S)  # a commit between log and table is over in milliseconds
    return found


class Limits(msgspec.Struct, frozen=True):
    """How much one chunk may hold: rows, and about how many bytes."""

    rows: int
    size: int


class Slice(msgspec.Struct, frozen=True):
    """What to read of a table; `order` are key columns, none for a table without a usable key."""

    schema: TableSchema
    columns: tuple[MysqlColumn, ...]
    order: tuple[str, ...]
    where: str = ""


class Chunk(msgspec.Struct):
    """Rows as COPY lines, and the view they were read in; `last` ends the table."""

    lines: list[bytes]
    view: View
    last: bool
    after: tuple[str, ...] | None


Chunks = Generator[Chunk, None, None]


def order_of(facts: TableFacts, schema: TableSchema) -> tuple[str, ...]:
    """Return the columns chunks follow: the primary key where it is the key and has an order."""
    kinds = {found.column.name: found.column.kind for found in facts.columns}
    usable = all(kinds[name] in _ORDERED for name in facts.primary_key)
    same = set(facts.primary_key) == set(schema.key)
    return facts.primary_key if usable and same else ()


class ChunkReader:
    """One connection that reads; made at the first chunk, closed when all is read."""

    def __init__(self, login: Login, dialect: Dialect) -> None:
        self._login = login
        self._dialect = dialect
        self._connection: Connection | None = None

    def close(self) -> None:
        """Let go of the connection; the next read makes another one."""
        if self._connection is not None:
            leave(self._connection)
            self._connection = None

    @property
    def connection(self) -> Connection:
        """The connection, made when there is none."""
        if self._connection is None:
            self._connection = connect(self._login)
        return self._connection

    def read(
        self, what: Slice, after: tuple[str, ...] | None, limits: Limits, delivered: Position
    ) -> Chunk:
        """Read the rows that follow the key `after`, at most `limits`.

        All that was `delivered` has happened to them.

        Raises `TableBusy`, `ConditionRefused`, `errors.Unavailable` or `errors.Stop`.
        """
        found: list[bytes] = []
        size = 0
        with self._reading(what):
            view = self._begin(delivered)
            query = _query(self.connection, what, after, limits.rows)
            with closing(self._select(what, query)) as rows:
                for line in rows:
                    found.append(line)
                    size += len(line)
                    if size >= limits.size:
                        break
            self._end()
        last = size < limits.size and len(found) < limits.rows
        return Chunk(found, view, last, _key_texts(what, found[-1]) if found else after)

    def all_rows(self, what: Slice, limits: Limits, delivered: Position) -> Chunks:
        """Read a table in one snapshot; the first piece is empty, the last one has `last`."""
        found: list[bytes] = []
        size = 0
        with self._reading(what):
            view = self._begin(delivered)
            query = _query(self.connection, what, None, None)
            with closing(self._select(what, query)) as rows:
                yield Chunk([], view, last=False, after=None)
                for line in rows:
                    found.append(line)
                    size += len(line)
                    if len(found) >= limits.rows or size >= limits.size:
                        yield Chunk(found, view, last=False, after=None)
                        found, size = [], 0
            self._end()
        yield Chunk(found, view, last=True, after=None)

    def _begin(self, delivered: Position) -> View:
        return self._dialect.view(self.connection, delivered)

    def _end(self) -> None:
        """Let go of the snapshot; a result that was not read to its end goes with everything."""
        if self._connection is not None:
            self._connection.query("ROLLBACK")

    def _select(self, what: Slice, query: str) -> Generator[bytes, None, None]:
        """Yield each row as a COPY line."""
        cursor = SSCursor(self.connection)
        try:
            cursor.execute(query)
            for run in lines(cursor, what.columns):
                yield from run
        finally:
            if unread(cursor):
                self.close()

    @contextmanager
    def _reading(self, what: Slice) -> Iterator[None]:
        """Turn what can go wrong while a table is read into our errors."""
        try:
            with whole_guard(self._login), self._naming(what):
                yield
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _naming(self, what: Slice) -> Iterator[None]:
        try:
            yield
        except pymysql.Error as error:
            told = f"{what.schema.table} cannot be read: {error.args[-1]} ({code_of(error)})"
            if code_of(error) in _BUSY and not what.where:
                raise TableBusy(told) from error
            if code_of(error) in (1142, 1143, 1044):
                hint = f"GRANT SELECT ON {quoted(what.schema.table.schema)}.* TO …;"
                raise PreflightFailed(told, hint=hint) from error
            if what.where and code_of(error) in range(1000, 2000):
                raise ConditionRefused(told) from error
            raise


def _query(
    connection: Connection, what: Slice, after: tuple[str, ...] | None, rows: int | None
) -> str:
    columns = asked(what.columns)
    table = what.schema.table
    conditions = [f"({what.where})"] if what.where else []
    if after is not None:
        kinds = {column.name: column.kind for column in what.columns}
        values = [
            literal(connection, kinds[name], value)
            for name, value in zip(what.order, after, strict=True)
        ]
        conditions.append(_behind([quoted(name) for name in what.order], values))
    query = f"SELECT {columns} FROM {quoted(table.schema, table.name)}"  # noqa: S608 - quoted
    if conditions:
        query += " WHERE " + " AND ".join(conditions)
    if what.order:
        query += " ORDER BY " + ", ".join(map(quoted, what.order))
    return query if rows is None else f"{query} LIMIT {rows}"


def _behind(names: Sequence[str], values: Sequence[str]) -> str:
    """Return the condition for rows behind a key, in a form whose first part is a range."""
    name, value = names[0], values[0]
    if len(names) == 1:
        return f"{name} > {value}"
    inner = _behind(names[1:], values[1:])
    return f"({name} >= {value} AND ({name} > {value} OR {inner}))"


def literal(connection: Connection, kind: str, value: str) -> str:
    """Return the literal of a key column's value, which `key_text` has made."""
    if kind in _NUMBERS:
        return value
    if kind in ("binary", "varbinary"):
        return f"X'{value}'"
    return str(connection.escape(value))


def key_text(kind: str, cell: str) -> str:
    """Return what `literal` takes for the canonical text of a key column's value."""
    if kind in ("binary", "varbinary"):
        return cell.removeprefix("\\x")
    return cell.removesuffix("+00") if kind == "timestamp" else cell


def _key_texts(what: Slice, line: bytes) -> tuple[str, ...] | None:
    """Return the key of a row; None without an order."""
    if not what.order:
        return None
    kinds = {column.name: column.kind for column in what.columns}
    names = list(kinds)
    cells = line_key(line, [names.index(name) for name in what.order])
    return tuple(
        key_text(kinds[name], cell.decode())
        for name, cell in zip(what.order, cells, strict=True)
        if isinstance(cell, bytes)  # a key has no NULL
    )
