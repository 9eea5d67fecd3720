"""A twin of an SQL connection to the source: the catalogue, snapshots, COPY of a table.

Statements are told apart by words only one of them has; one that nobody knows fails loudly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Self

import psycopg

from cdc.decode.lsn import format_lsn
from simulation.database import TABLES, Database, Row
from simulation.walsender import Walsender
from simulation.world import HERE, call

_COLUMNS = [
    ("id", 23, -1, "integer", False, None, ""),
    ("v", 25, -1, "text", True, None, ""),
    ("big", 25, -1, "text", True, None, ""),
]
_COPY = re.compile(r'FROM (?:ONLY )?"public"\."(\w+)"(.*)\) TO STDOUT', re.DOTALL)
_AFTER = re.compile(r"> \('(-?\d+)'::integer\)")
_EQUAL = re.compile(r"\"id\" = '(-?\d+)'::integer")
_LIMIT = re.compile(r"LIMIT (\d+)")


class Answer(list[Any]):
    """A cursor that holds its rows."""

    def fetchall(self) -> list[Any]:
        return list(self)

    def fetchone(self) -> Any:
        return self[0] if self else None


class Connection:
    """`psycopg.Connection` in autocommit, to the source."""

    adapters = psycopg.adapters
    connection = None

    def __init__(self, _login: Any, _settings: Any = None) -> None:
        self.world = HERE.world
        self.process = self.world.current
        self.database: Database = HERE.world.database  # type: ignore[attr-defined]
        self.info = SimpleNamespace(dbname="shop", server_version=140000, user="cdc")
        self.pgconn = self
        self._closed = False
        self._snapshot: dict[int, dict[int, Row]] | None = None
        self._in_transaction = False

    @property
    def closed(self) -> bool:
        return self._closed or self.process is None or self.process.dead

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @call("source.sql")
    def execute(self, query: Any, arguments: Any = None) -> Answer:
        text = query if isinstance(query, str) else query.as_string(None)
        for words, answer in _ANSWERS:
            if words in text:
                return Answer(answer(self, tuple(arguments or ())))
        raise AssertionError(f"the twin does not know this statement: {text}")

    def begin(self) -> None:
        self._in_transaction, self._snapshot = True, None

    def rollback(self) -> None:
        self._in_transaction, self._snapshot = False, None

    def see(self) -> str:
        """Take the snapshot of the transaction, if there is one, and return it."""
        if self._in_transaction and self._snapshot is None:
            tables = self.database.tables
            self._snapshot = {oid: dict(rows) for oid, rows in tables.items()}
        return self.database.snapshot()

    def rows(self, name: str) -> list[Row]:
        oid = next(oid for oid, known in TABLES.items() if known == name)
        tables = self._snapshot if self._snapshot is not None else self.database.tables
        return [row for _, row in sorted(tables[oid].items())]


def copy_lines(connection: Connection, query: bytes, _tick: Any) -> Iterator[bytes]:
    """Stands for `cdc.postgres.copying.copy_lines`."""
    if connection.process is not None:
        connection.process.before("source.copy")
    found = _COPY.search(query.decode())
    assert found, query
    name, tail = found.groups()
    rows = connection.rows(name)
    if after := _AFTER.search(tail):
        rows = [row for row in rows if row[0] > int(after[1])]
    if equal := _EQUAL.search(tail):
        rows = [row for row in rows if row[0] == int(equal[1])]
    if limit := _LIMIT.search(tail):
        rows = rows[: int(limit[1])]
    for row in rows:
        yield "\t".join(map(str, row)).encode()


def _table(oid: int) -> tuple[Any, ...]:
    return (oid, "public", TABLES[oid], "d", "r", 10, ["id"], [])


def _facts(connection: Connection, arguments: Sequence[Any]) -> list[Any]:
    if not arguments:
        return [_table(oid) for oid in TABLES]
    wanted = arguments[-1]
    return [_table(oid) for oid, name in TABLES.items() if wanted in (oid, name)]


def _published(connection: Connection, _: Sequence[Any]) -> list[Any]:
    names = connection.database.publications
    return [("public", name, names[0]) for name in TABLES.values()] if names else []


def _publish(connection: Connection, _: Sequence[Any]) -> list[Any]:
    connection.database.publications.append(f"p{len(connection.database.publications)}")
    return []


def _existing(connection: Connection, names: Sequence[Any]) -> list[Any]:
    return [(name,) for name in names[: len(connection.database.publications)]]


def _slot(connection: Connection, _: Sequence[Any]) -> list[Any]:
    slot = connection.database.slot
    if slot is None:
        return []
    pid = slot.reader.backend_pid if isinstance(slot.reader, Walsender) else None
    place = slot.confirmed
    return [(slot.name, "pgoutput", "shop", pid, "reserved", place, place, 0)]


def _terminate(connection: Connection, arguments: Sequence[Any]) -> list[Any]:
    for other in connection.database.connections:
        if isinstance(other, Walsender) and other.backend_pid == arguments[0]:
            other.release()
    return [(True,)]


def _drop(connection: Connection, arguments: Sequence[Any]) -> list[Any]:
    slot, at = connection.database.slot, arguments[1]
    if slot is None or at not in {None, slot.confirmed}:
        return []
    connection.database.slot = None
    return [(None,)]


def _emit(transactional: bool) -> Callable[[Connection, Sequence[Any]], list[Any]]:  # noqa: FBT001
    def emit(connection: Connection, arguments: Sequence[Any]) -> list[Any]:
        content = arguments[1] if len(arguments) > 1 else "{}"
        connection.database.emit(arguments[0], content.encode(), transactional=transactional)
        return [(None,)]

    return emit


def _waiting(connection: Connection, _: Sequence[Any]) -> list[Any]:
    return [(str(xid),) for xid in connection.database.waiting_for_a_standby()]


def _begin(connection: Connection, _: Sequence[Any]) -> list[Any]:
    connection.begin()
    return []


def _rollback(connection: Connection, _: Sequence[Any]) -> list[Any]:
    connection.rollback()
    return []


_ANSWERS: list[tuple[str, Callable[[Connection, Sequence[Any]], list[Any]]]] = [
    ("BEGIN ISOLATION", _begin),
    ("ROLLBACK", _rollback),
    ("pg_current_snapshot()", lambda c, _: [(c.see(),)]),
    ("SHOW wal_level", lambda _c, _: [("logical",)]),
    ("pg_is_in_recovery", lambda _c, _: [(False,)]),
    ("SELECT DISTINCT p.root", lambda _c, _: []),
    ("set_config('search_path'", lambda _c, _: [("",)]),
    ("emit_message(true", _emit(transactional=True)),
    ("emit_message(false", _emit(transactional=False)),
    ("pg_terminate_backend", _terminate),
    ("pg_drop_replication_slot", _drop),
    ("SELECT slot_name::text", _slot),
    ("wait_event = 'SyncRep'", _waiting),
    ("coalesce(max(pg_current_wal_lsn()", lambda c, _: [(0, c.database.lsn)]),
    ("pg_current_wal_insert_lsn", lambda c, _: [(format_lsn(c.database.lsn),)]),
    ("SELECT DISTINCT l.virtualtransaction", lambda _c, _: []),
    ("pg_blocking_pids", lambda _c, _: []),
    ("SELECT schemaname, tablename", _published),
    ("SELECT pubname::text", _existing),
    ("CREATE PUBLICATION", _publish),
    ("a.atttypmod", lambda _c, given: [(oid, *row) for oid in given[0] for row in _COLUMNS]),
    ("SELECT c.oid::bigint, n.nspname", _facts),
]
