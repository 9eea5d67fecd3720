"""A twin of the target database: rows and the cursors table, in transactions.

`sinks.targets.postgres.PostgresTarget` and its `CursorTable` run as they are; what they say about
cursors is read from their SQL, conditions and all. Staging and merging are played on plain rows, in
`staging`; so is a COPY into a table itself, here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Self

import psycopg
from psycopg.pq import TransactionStatus

from schemas.change import Cell
from schemas.forms import read_copy
from schemas.table import TableId, TableSchema
from simulation.world import HERE, World, call

Rows = dict[tuple[Cell, ...], list[Cell]]
Cursors = dict[tuple[str, int], tuple[Any, ...]]

_WAIT_S = 5.0


class Server:
    """What is durable, and who holds the cursors. `committed` hears of each transaction."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tables: dict[TableId, Rows] = {}
        self.cursors: Cursors = {}
        self.exists = False
        self.holder: Connection | None = None
        self.next_commit = "answered"
        self.connections: list[Connection] = []
        self.committed: Callable[[], None] = lambda: None


class Answer(list[Any]):
    """A cursor; `rowcount` as psycopg counts."""

    rowcount = 0

    def fetchone(self) -> Any:
        return self[0] if self else None

    def fetchall(self) -> list[Any]:
        return list(self)


class Connection:
    """`psycopg.Connection` to the target."""

    adapters = psycopg.adapters
    connection = None

    def __init__(self, _login: Any, _settings: Any = None) -> None:
        self.world = HERE.world
        self.process = self.world.current
        self.server: Server = HERE.world.target  # type: ignore[attr-defined]
        self.server.connections.append(self)
        self.number = len(self.server.connections)
        self.prepare_threshold: int | None = 5
        self.cut = False
        self.depth = 0
        self.savepoints: list[dict[TableId, Rows]] = []
        self.tables: dict[TableId, Rows] = {}
        self.cursors: Cursors = {}

    @property
    def closed(self) -> bool:
        return self.cut

    @property
    def info(self) -> Any:
        state = TransactionStatus.INTRANS if self.depth else TransactionStatus.IDLE
        return SimpleNamespace(backend_pid=self.number, transaction_status=state)

    def close(self) -> None:
        if self.process is not None and not self.process.dead:
            self.end()

    def end(self) -> None:
        """The server ends this connection and what it had begun."""
        self.cut, self.depth, self.savepoints = True, 0, []
        if self.server.holder is self:
            self.server.holder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def alive(self) -> None:
        if self.cut:
            raise psycopg.OperationalError("the connection was cut")

    @call("target.begin")
    def begin(self) -> None:
        self.alive()
        self.depth += 1
        kept = {table: dict(rows) for table, rows in self.tables.items()}
        self.savepoints.append(kept if self.depth > 1 else {})
        if self.depth == 1:
            self.tables, self.cursors = {}, dict(self.server.cursors)

    @call("target.commit")
    def commit(self) -> None:
        self.alive()
        self.depth -= 1
        self.savepoints.pop()
        if self.depth:
            return
        server = self.server
        outcome, server.next_commit = server.next_commit, "answered"
        if outcome != "lost before":
            self.write()
        if server.holder is self:
            server.holder = None
        if outcome != "answered":
            self.end()
            raise psycopg.OperationalError("the connection was cut at COMMIT")

    def write(self) -> None:
        """Make what was done durable."""
        self.server.tables.update(self.tables)
        if self.server.holder is self:
            self.server.cursors = self.cursors
        self.tables = {}
        self.server.committed()

    def rollback(self) -> None:
        self.depth = max(self.depth - 1, 0)
        self.tables = self.savepoints.pop() if self.savepoints else {}
        if self.server.holder is self and not self.depth:
            self.server.holder = None

    @contextmanager
    def transaction(self, *, force_rollback: bool = False) -> Iterator[None]:
        self.begin()
        try:
            yield
        except BaseException:
            self.rollback()
            raise
        if force_rollback:
            self.rollback()
        else:
            self.commit()

    def rows(self, table: TableId) -> Rows:
        """Return a table to be changed by the transaction that is open."""
        if not self.depth:
            return self.server.tables.setdefault(table, {})
        if table not in self.tables:
            self.tables[table] = dict(self.server.tables.get(table, {}))
        return self.tables[table]

    @call("target.sql")
    def execute(self, query: Any, arguments: Any = ()) -> Answer:
        self.alive()
        text = query if isinstance(query, str) else query.as_string(None)
        for words, answer in _ANSWERS:
            if words in text:
                found, count = answer(self, text, tuple(arguments or ()))
                out = Answer(found)
                out.rowcount = count
                return out
        raise AssertionError(f"the twin does not know this statement: {text}")

    @contextmanager
    def cursor(self) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(copy=self.copy, rowcount=-1)

    @contextmanager
    def copy(self, table: TableSchema) -> Iterator[SimpleNamespace]:
        """Play a COPY into `table` itself: a key that is there refuses all."""
        sent: list[bytes] = []
        yield SimpleNamespace(write=sent.append)
        self.fill(table, b"".join(sent).splitlines())

    @call("target.fill")
    def fill(self, table: TableSchema, lines: Sequence[bytes]) -> None:
        self.alive()
        rows = self.rows(table.table)
        for line in lines:
            row = list(read_copy(line).after or ())
            key = tuple(row[place] for place in table.key_indexes())
            if key in rows:
                raise psycopg.errors.UniqueViolation(f"{key} is there already")
            rows[key] = row

    def lock(self) -> Cursors:
        """Return the cursors to be changed; whoever holds them is waited for, but not for ever."""
        server = self.server
        if server.holder not in (None, self):
            self.world.now += _WAIT_S
            raise psycopg.errors.LockNotAvailable("canceling statement due to lock timeout")
        if server.holder is None:
            self.cursors = dict(server.cursors)
        if self.depth:
            server.holder = self
        else:
            self.cursors = server.cursors
        return self.cursors


_Given = tuple[Any, ...]
_Told = tuple[Sequence[Any], int]


def _insert(connection: Connection, _text: str, given: _Given) -> _Told:
    cursors, count = connection.lock(), 0
    for row in zip(*given[3:], strict=True):
        place = (row[0], row[1])
        if place not in cursors:
            cursors[place] = row[2:]
            count += 1
    _outside(connection)
    return [], count


def _update(connection: Connection, text: str, given: _Given) -> _Told:
    cursors, count = connection.lock(), 0
    compares = re.search(r"c\.next_offset = v\.start_offset", text) is not None
    for topic, number, identity, start, *end in zip(*given[1:-2], strict=True):
        stored = cursors.get((topic, number))
        if stored is not None and (not compares or stored[1] == start):
            cursors[topic, number] = (identity, *end)
            count += 1
    _outside(connection)
    return [], count


def _outside(connection: Connection) -> None:
    """Without a transaction every statement is one of its own."""
    if not connection.depth:
        connection.server.committed()


def _read(connection: Connection, _text: str, given: _Given) -> _Told:
    stored = connection.server.cursors
    found = [(*place, *row, 1) for place, row in stored.items() if place[0] in given[2]]
    return found, len(found)


def _create(connection: Connection, _text: str, _given: _Given) -> _Told:
    connection.server.exists = True
    return [], 0


def _exists(connection: Connection, _text: str, _given: _Given) -> _Told:
    return [("cursors" if connection.server.exists else None,)], 1


def _terminate(connection: Connection, _text: str, _given: _Given) -> _Told:
    holder = connection.server.holder
    if holder is not None:
        holder.end()
    return ([(holder.info.backend_pid,)] if holder is not None else []), 1


def _nothing(_connection: Connection, _text: str, _given: _Given) -> _Told:
    return [(1,)], 0


_ANSWERS: list[tuple[str, Callable[[Connection, str, _Given], _Told]]] = [
    ("pg_terminate_backend", _terminate),
    ("to_regclass", _exists),
    ("pg_advisory_xact_lock", _nothing),
    ("FROM pg_namespace", _nothing),
    ("CREATE TABLE IF NOT EXISTS", _create),
    ("CREATE SCHEMA", _nothing),
    ("SET CONSTRAINTS", _nothing),
    ("EXPLAIN", _nothing),
    ("INSERT INTO", _insert),
    ("UPDATE", _update),
    ("SELECT topic, partition, topic_id", _read),
]


class Catalog:
    """Stands for `sinks.postgres.catalog.Catalog`."""

    def __init__(self, connection: Connection) -> None:
        self._tables = connection.server.tables

    def read(self, table: TableId) -> object | None:
        return self._tables.get(table)

    def ensure(self, schema: TableSchema, _rules: Any) -> Any:
        self._tables.setdefault(schema.table, {})
        return SimpleNamespace(oid=str(schema.table))

    def drops(self, _schema: TableSchema, _rules: Any) -> None:
        """Nothing is dropped: the histories change no schema."""

    def parents(self, _tables: Any) -> Mapping[Any, Any]:
        return {}
