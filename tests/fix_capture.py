"""A Postgres source driven as the worker drives it, with Kafka played by a few variables.

`Capture` keeps what was committed (position, progress, events) apart from what was only read, so
`kill` loses exactly what a SIGKILL would lose, and it applies every event to a model of the
tables that can be compared with the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import msgspec
import psycopg
import pytest

from cdc.connector import Context
from cdc.source import Progress, Source
from cdc.sources.postgres import Config, create
from schemas.change import ABSENT, Op, Rows, Stamp
from schemas.forms import READERS
from schemas.table import TableSchema

DEADLINE_S = 30.0


class Event(NamedTuple):
    """One change as it would stand in Kafka."""

    table: str
    op: Op
    before: tuple[Any, ...] | None
    after: tuple[Any, ...] | None
    stamp: Stamp
    snapshot: bool
    schema: TableSchema
    message: tuple[str, bytes] | None = None

    def row(self) -> dict[str, Any]:
        """Its new row by column name."""
        names = [column.name for column in self.schema.columns]
        return dict(zip(names, self.after or (), strict=True))

    def absent(self) -> set[str]:
        """The columns of its new row that are absent."""
        return {name for name, cell in self.row().items() if cell is ABSENT}


def events_of(rows: Rows) -> Iterator[Event]:
    for item, ordinal in zip(rows.items, rows.ordinals, strict=True):
        read = READERS[rows.form](item)
        yield Event(
            str(rows.schema.table),
            read.op,
            None if read.before is None else tuple(read.before),
            None if read.after is None else tuple(read.after),
            Stamp(rows.origin.incarnation, rows.origin.commit, ordinal),
            rows.origin.snapshot,
            rows.schema,
            getattr(item, "message", None),
        )


class Model:
    """The tables a consumer would have: table → key → row by name."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}

    def apply(self, event: Event) -> None:
        table = self.tables.setdefault(event.table, {})
        if event.op is Op.TRUNCATE:
            table.clear()
        indexes = event.schema.key_indexes()
        old = {}
        if event.before is not None:
            old = table.pop(tuple(event.before[i] for i in indexes), {})
        if event.after is not None:
            key = tuple(event.after[i] for i in indexes)
            old = table.get(key, old)
            row = event.row()
            table[key] = {n: old.get(n) if v is ABSENT else v for n, v in row.items()}

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        return sorted(tuple(row.values()) for row in self.tables.get(table, {}).values())


class Capture:
    """One source on one database, opened again as often as a test likes."""

    def __init__(self, url: str, **options: Any) -> None:
        self.options = {"url": url, "heartbeat": 1.0, **options}
        self.name = "shop"
        self.position: dict[str, Any] | None = None
        self.boundary = Stamp(0, 0)
        self.progress: dict[str, dict[str, Any]] = {}
        self.events: list[Event] = []
        self.model = Model()
        self.commits = True
        self._pending: list[Any] = []
        self.source: Source | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def config(self) -> Config:
        return Config.model_validate(self.options)

    def context(self) -> Context:
        return Context("test", self.name)

    def open(self) -> Source:
        return self.opened(create(self.context(), self.config()))

    def opened(self, source: Source) -> Source:
        """Open `source` behind what was committed last."""
        self.source = source
        stored = [Progress(key, value) for key, value in self.progress.items()]
        source.open(self.position, stored)
        return source

    def step(self, timeout: float = 0.1) -> bool:
        """Read once and commit; tell whether there was anything."""
        source = self.source or self.open()
        batch = source.read(timeout)
        if batch is not None:
            self._pending.append(batch)
            if self.commits:
                self.commit()
        return batch is not None

    def commit(self) -> None:
        for batch in self._pending:
            for event in (event for rows in batch.rows for event in events_of(rows)):
                self.events.append(event)
                self.model.apply(event)
            for item in batch.progress:
                if item.value is None:
                    self.progress.pop(item.key, None)
                else:
                    self.progress[item.key] = msgspec.json.decode(msgspec.json.encode(item.value))
            self.position = msgspec.json.decode(msgspec.json.encode(batch.upto.encode()))
            self.boundary = batch.boundary
        if self._pending and self.source is not None:
            self.source.confirm(self._pending[-1].upto)
        self._pending.clear()

    def until(self, condition: Callable[[], bool], what: str = "the condition") -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > deadline:
                status = self.source.status() if self.source else None
                pytest.fail(f"{what} did not come within {DEADLINE_S} s: {status}")
            self.step()

    def until_streaming(self) -> None:
        self.until(lambda: self.position is not None and not self.position["creating"])

    def until_snapshot_done(self) -> None:
        self.until_streaming()
        self.until(lambda: not any(key.startswith("chunk/") for key in self.progress), "snapshot")

    def until_caught_up(self, connection: psycopg.Connection[Any]) -> None:
        """Read to where the log ends now."""
        row = connection.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
        assert row is not None
        connection.execute("SELECT pg_logical_emit_message(true, 'tailrace', '{}')")
        self.until(lambda: (self.position or {}).get("confirmed_lsn", 0) >= row[0], "the end")

    def kill(self) -> None:
        """Lose what was read and not committed, as SIGKILL would."""
        self._pending.clear()
        if self.source is not None:
            self.source.close()
            self.source = None

    def drop_slot(self, connection: psycopg.Connection[Any]) -> None:
        """Take the slot away, once the server has noticed that nobody reads it."""
        self.kill()
        active = "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'cdc_test_shop' AND active"
        self.wait_for(lambda: connection.execute(active).fetchone() is None)
        connection.execute("SELECT pg_drop_replication_slot('cdc_test_shop')")

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait without reading."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def of(self, table: str) -> list[Event]:
        return [event for event in self.events if event.table == table]

    def streamed(self, table: str) -> list[Event]:
        return [event for event in self.of(table) if not event.snapshot]


@pytest.fixture
def capture(pg_database: str) -> Iterator[Capture]:
    """A source on an empty database of the newest server."""
    with Capture(pg_database) as made:
        yield made


@pytest.fixture
def db(pg_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to that database, in autocommit."""
    with psycopg.connect(pg_database, autocommit=True) as connection:
        yield connection


def table_rows(connection: psycopg.Connection[Any], query: str) -> list[tuple[Any, ...]]:
    """Return rows as the text cells a source hands over."""
    lines: list[tuple[Any, ...]] = []
    with connection.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT") as copy:
        for block in copy:
            cells = READERS["copy"](bytes(block)[:-1]).after
            lines.append(tuple(cells))
    return sorted(lines)
