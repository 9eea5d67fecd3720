"""Reading tables in pieces: COPY of what follows a key, with the snapshot it was read in.

Everything goes through COPY TO STDOUT in text format, as the log does through the same output
functions (R9); never through a cast to text, which would strip char(n).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import msgspec
import psycopg
from psycopg import sql

from cdc.connections.postgres import Login, connect, guard, qualified, user_name
from cdc.decode.lsn import parse_lsn
from cdc.errors import CdcError, ConfigError, PreflightFailed
from cdc.postgres.catalog import Connection, TableLocked
from cdc.postgres.copying import copy_lines, hang_up
from schemas.forms import read_copy
from schemas.table import TableSchema

__all__ = [
    "FIND_OPERATORS",
    "Chunk",
    "ChunkReader",
    "ConditionRefused",
    "Limits",
    "Slice",
    "Snapshot",
]

_HALF = 1 << 31
_TICK_S = 1.0
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_CONNECTION = ("08", "53", "57")
_CHANGED = ("42P01", "42703", "3F000")
"""Table, column or schema gone: it changed since the catalogue was read, which will be again."""
_SETTINGS = {"row_security": "off", "lock_timeout": "3s", "statement_timeout": "0"}

FIND_OPERATORS = """
SELECT set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''), (
    SELECT string_agg(DISTINCT quote_ident(n.nspname), ', ')
    FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_namespace n ON n.oid = c.opcnamespace
    WHERE c.opcdefault AND n.nspname <> 'pg_catalog')), false)
"""
"""`key > value` finds its operator by search_path, ORDER BY by operator class: citext outside the
path would be compared as text and rows between two chunks lost (measured). Schemas with operator
classes come last, so that no name the role finds now is found elsewhere."""


class ConditionRefused(ConfigError):
    """The operator's condition on a backfill is no SQL the server takes."""


class Snapshot(msgspec.Struct, frozen=True):
    """pg_current_snapshot(): which transactions a read sees; 64-bit ids."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Return the snapshot PostgreSQL writes as "xmin:xmax:xip,..."."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, filter(None, running.split(",")))))

    def sees(self, xid: int) -> bool:
        """Tell whether the committed transaction `xid`, 32 bits as the log has it, is visible.

        The epoch is the one that brings it nearest to this snapshot: no two transactions that
        matter are 2^31 apart, PostgreSQL's own wraparound limit.
        """
        full = self.xmax & ~0xFFFFFFFF | xid
        if full - self.xmax > _HALF:
            full -= 1 << 32
        elif self.xmax - full > _HALF:
            full += 1 << 32
        return full < self.xmin or (full < self.xmax and full not in self.running)


class Limits(msgspec.Struct, frozen=True):
    """How much one chunk may hold: rows, and about how many bytes."""

    rows: int
    size: int


class Slice(msgspec.Struct, frozen=True):
    """What to read of a table: `columns` in order, `key` columns in the index's order.

    `only` leaves the children of plain inheritance out; `where` is the operator's, `row_filter`
    the publication's condition.
    """

    schema: TableSchema
    key: tuple[str, ...]
    key_types: tuple[str, ...]
    only: bool
    where: str = ""
    row_filter: str = ""


class Chunk(msgspec.Struct):
    """Rows of a table as COPY lines, and the snapshot they were read in; `last` ends the table."""

    lines: list[bytes]
    snapshot: Snapshot
    last: bool
    after: tuple[str, ...] | None


class _Reading(msgspec.Struct):
    """A chunk that is being read: what was asked, and the chunk to come."""

    asked: tuple[Slice, tuple[str, ...] | None, Limits]
    future: Future[Chunk]


class ChunkReader:
    """One connection that reads chunks; made at the first chunk, closed when all are read.

    A thread reads, so that the next chunk can come while this one is published: nobody holds a
    table's lock for longer than it takes to read. `tick` is called about every second while the
    server is slow to answer.
    """

    def __init__(self, login: Login, tick: Callable[[], None]) -> None:
        self._login = login
        self._tick = tick
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, "chunks")
        self._reading: _Reading | None = None

    def close(self) -> None:
        """Let go of the connection; the next read makes another one."""
        reading, self._reading = self._reading, None
        if reading is not None and self._connection is not None and not reading.future.done():
            hang_up(self._connection.pgconn)
            reading.future.exception()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def give_up(self) -> None:
        """Forget what is being read ahead; a connection costs less than to wait for it."""
        if self._reading is not None:
            self.close()

    @property
    def connection(self) -> Connection:
        """The connection, made when there is none; what is being read ahead is given up."""
        self.give_up()
        if self._connection is None:
            self._connection = connect(self._login, _SETTINGS)
            with guard(self._login):
                self._connection.execute(FIND_OPERATORS)
        return self._connection

    def snapshot(self) -> Snapshot:
        """Return what is visible now."""
        with guard(self._login):
            return _seen(self.connection)

    def wal_position(self) -> int:
        """Return an LSN behind every transaction that is visible now."""
        with guard(self._login):
            query = "SELECT pg_current_wal_insert_lsn()::text"
            row = self.connection.execute(query).fetchone()
        return parse_lsn(str(row[0])) if row else 0

    def read(self, what: Slice, after: tuple[str, ...] | None, limits: Limits) -> Chunk:
        """Read the rows that follow the key `after`, at most `limits`, in one snapshot.

        Raises `TableLocked` when it had to wait for more than 3 s.
        """
        if self._reading is None or self._reading.asked != (what, after, limits):
            self.ahead(what, after, limits)
        with self._naming(what):
            return self._awaited()

    def ahead(self, what: Slice, after: tuple[str, ...] | None, limits: Limits) -> None:
        """Begin with what the next `read` asks for; any other question gives it up."""
        with self._naming(what):
            connection = self.connection
            future = self._thread.submit(_read_chunk, connection, what, after, limits)
        self._reading = _Reading((what, after, limits), future)

    def _awaited(self) -> Chunk:
        while self._reading is not None:
            future = self._reading.future
            try:
                chunk = future.result(_TICK_S)
            except TimeoutError:
                self._tick()
            except psycopg.Error:
                self._reading = None
                raise
            else:
                self._reading = None
                return chunk
        raise AssertionError("nothing is being read")

    def _naming(self, what: Slice) -> _Naming:
        return _Naming(self._login, what)

    def all_rows(self, what: Slice, limits: Limits) -> Iterator[Chunk]:
        """Read a whole table in one snapshot; the first piece may be empty, the end has `last`."""
        query = _query(what, None, None)
        with self._naming(what):
            connection = self.connection
            connection.execute(_BEGIN)
            try:
                snapshot = _seen(connection)
                lines: list[bytes] = []
                held = 0
                encoded = query.as_bytes(connection)
                with closing(copy_lines(connection.pgconn, encoded, self._tick)) as found:
                    for line in found:
                        lines.append(line)
                        held += len(line)
                        if len(lines) >= limits.rows or held >= limits.size:
                            yield Chunk(lines, snapshot, last=False, after=None)
                            lines, held = [], 0
                yield Chunk(lines, snapshot, last=True, after=None)
            finally:
                _rollback(connection)

    def rows_of(self, what: Slice, key: Sequence[str]) -> list[bytes]:
        """Return the rows whose key is `key`, as they are now."""
        match = [
            sql.SQL("{} = {}").format(sql.Identifier(name), typed)
            for name, typed in zip(what.key, _typed(what, key), strict=True)
        ]
        query = _select(what, sql.SQL(" WHERE ") + sql.SQL(" AND ").join(match))
        with self._naming(what):
            connection = self.connection
            encoded = query.as_bytes(connection)
            return list(copy_lines(connection.pgconn, encoded, self._tick))


def _seen(connection: Connection) -> Snapshot:
    row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
    return Snapshot.parse(str(row[0]) if row else "1:1:")


def _rollback(connection: Connection) -> None:
    if not connection.closed:
        connection.execute("ROLLBACK")


def _read_chunk(
    connection: Connection, what: Slice, after: tuple[str, ...] | None, limits: Limits
) -> Chunk:
    """Read one chunk in one snapshot; cut at `limits.size` it is still one, its rows are in order.

    Runs in the reader's thread. Raises `psycopg.Error`.
    """
    query = _query(what, after, limits.rows).as_bytes(connection)
    lines: list[bytes] = []
    held = 0
    connection.execute(_BEGIN)
    try:
        snapshot = _seen(connection)
        with closing(copy_lines(connection.pgconn, query, lambda: None)) as found:
            for line in found:
                lines.append(line)
                held += len(line)
                if held >= limits.size:
                    break
    finally:
        _rollback(connection)
    last = held < limits.size and len(lines) < limits.rows
    return Chunk(lines, snapshot, last, _key_of(what, lines[-1]) if lines else after)


class _Naming:
    """Turns what can go wrong while reading a table into our errors."""

    def __init__(self, login: Login, what: Slice) -> None:
        self._guard = guard(login)
        self._user = sql.Identifier(user_name(login)).as_string(None)
        self._what = what
        self._table = what.schema.table

    def __enter__(self) -> None:
        self._guard.__enter__()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        failed = self._failed(error)
        if failed is not None:
            raise failed from error
        self._guard.__exit__(type(error) if error else None, error, None)

    def _failed(self, error: BaseException | None) -> CdcError | None:
        name = f'"{self._table.schema}"."{self._table.name}"'
        if isinstance(error, psycopg.errors.LockNotAvailable):
            return TableLocked(
                f"{self._table} is locked by another session",
                hint=f"see who: pg_locks WHERE relation = '{name}'::regclass",
            )
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return PreflightFailed(
                f"{self._table} cannot be read: {str(error).strip()}",
                hint=f"GRANT SELECT ON {name} TO {self._user}; with row security also: "
                f"ALTER ROLE {self._user} BYPASSRLS;",
            )
        if not isinstance(error, psycopg.Error) or (error.sqlstate or "08")[:2] in _CONNECTION:
            return None
        text = f"{self._table} cannot be read: {str(error).strip()}"
        if self._what.where:
            return ConditionRefused(text)
        if error.sqlstate in _CHANGED or (error.sqlstate or "").startswith("40"):
            return TableLocked(text)
        return PreflightFailed(text, hint="run `cdc check`; the server's log says more")


def _typed(what: Slice, key: Sequence[str]) -> list[sql.Composed]:
    return [
        sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(spelled))
        for value, spelled in zip(key, what.key_types, strict=True)
    ]


def _select(what: Slice, tail: sql.Composable) -> sql.Composed:
    columns = sql.SQL(", ").join([sql.Identifier(c.name) for c in what.schema.columns])
    only = sql.SQL("ONLY " if what.only else "")
    table = qualified(what.schema.table)
    head = sql.SQL("COPY (SELECT {} FROM {}{}").format(columns, only, table)
    return head + tail + sql.SQL(") TO STDOUT")


def _query(what: Slice, after: tuple[str, ...] | None, rows: int | None) -> sql.Composed:
    names = sql.SQL(", ").join([sql.Identifier(name) for name in what.key])
    conditions = [
        sql.Composed([sql.SQL("(" + text + ")")]) for text in (what.where, what.row_filter) if text
    ]
    if after is not None:
        values = sql.SQL(", ").join(_typed(what, after))
        conditions.append(sql.SQL("({}) > ({})").format(names, values))
    tail = sql.Composed([])
    if conditions:
        tail += sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions)
    if what.key:
        tail += sql.SQL(" ORDER BY ") + names
    if rows is not None:
        tail += sql.SQL(" LIMIT {}").format(sql.Literal(rows))
    return _select(what, tail)


def _key_of(what: Slice, line: bytes) -> tuple[str, ...] | None:
    cells = read_copy(line).after
    if cells is None or not what.key:
        return None
    names = [column.name for column in what.schema.columns]
    found = [cells[names.index(name)] for name in what.key]
    return tuple(cell.decode() for cell in found if isinstance(cell, bytes))
