"""What a target in one file keeps beside the rows: its cursors, and who waits at a truncation.

Both are tables of that file, so they move with the rows or not at all. The statements are such as
SQLite and DuckDB read alike. `advance` and `meet` are called inside the transaction that holds the
rows, and nobody else can change what they have read before it ends: SQLite has one write lock,
DuckDB lets one process in and refuses the later of two changes of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from cdc.connector import Context
from sinks.stored import VERSION, Places, cursor_of, displaced, place_of, released, stand
from sinks.target import Barrier, Cursor, Span, TopicPartition

__all__ = ["BarrierTable", "Connection", "CursorTable", "Found", "forget"]

_CURSORS = """
CREATE TABLE IF NOT EXISTS tailrace_cursors (
    pipeline TEXT, sink TEXT, topic TEXT, "partition" INTEGER,
    topic_id TEXT NOT NULL, next_offset BIGINT NOT NULL,
    incarnation BIGINT, "commit" BIGINT, ordinal BIGINT, sub BIGINT,
    version INTEGER NOT NULL, updated_at TIMESTAMP NOT NULL,
    PRIMARY KEY (pipeline, sink, topic, "partition"))
"""
_READ = """
SELECT topic, "partition", topic_id, next_offset, incarnation, "commit", ordinal, sub, version
FROM tailrace_cursors WHERE pipeline = ? AND sink = ?
"""
_PUT = """
INSERT OR REPLACE INTO tailrace_cursors (pipeline, sink, topic, "partition", topic_id, next_offset,
    incarnation, "commit", ordinal, sub, version, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CURRENT_TIMESTAMP)
"""
_FORGET = "DELETE FROM tailrace_cursors WHERE pipeline = ? AND sink = ?"
_NO_STAMP = (None, None, None, None)

_BARRIERS = """
CREATE TABLE IF NOT EXISTS tailrace_barriers (
    pipeline TEXT, sink TEXT, topic TEXT, "partition" INTEGER,
    topic_id TEXT NOT NULL, at_offset BIGINT NOT NULL,
    incarnation BIGINT NOT NULL, "commit" BIGINT NOT NULL, ordinal BIGINT NOT NULL,
    sub BIGINT NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (pipeline, sink, topic, "partition"))
"""
_PLACES = """
SELECT c."partition", c.next_offset, c.incarnation, c."commit", c.ordinal, c.sub,
       b.incarnation, b."commit", b.ordinal, b.sub
FROM tailrace_cursors c LEFT JOIN tailrace_barriers b
    ON b.pipeline = c.pipeline AND b.sink = c.sink AND b.topic = c.topic
    AND b."partition" = c."partition" AND b.topic_id = c.topic_id AND b.at_offset = c.next_offset
WHERE c.pipeline = ? AND c.sink = ? AND c.topic = ? AND c.topic_id = ?
"""
_ARRIVE = "INSERT OR REPLACE INTO tailrace_barriers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LEAVE = "DELETE FROM tailrace_barriers WHERE pipeline = ? AND sink = ?"


class Found(Protocol):
    """What a statement found."""

    def fetchall(self) -> list[Any]:
        """Return the rows."""
        ...


class Connection(Protocol):
    """What `sqlite3` and `duckdb` connections have in common."""

    def execute(self, statement: str, values: Sequence[Any] = ..., /) -> Found:
        """Run a statement; `?` stands for a value."""
        ...


class CursorTable:
    """The cursors of one sink: one row per partition."""

    def __init__(self, context: Context) -> None:
        self._owner = (context.pipeline, context.name)

    def create(self, connection: Connection) -> None:
        """Make the table where it is missing."""
        connection.execute(_CURSORS)

    def read(
        self, connection: Connection, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, Cursor | None]:
        """Return what is stored for `partitions`; raises as `sinks.stored.cursor_of`."""
        stored = self._rows(connection)
        sink = self._owner[1]
        return {p: cursor_of(stored.get((p.topic, p.partition)), p, sink) for p in partitions}

    def advance(self, connection: Connection, spans: Sequence[Span]) -> None:
        """Move every cursor from start to end. Raises `CursorMoved` when one is elsewhere."""
        stored = self._rows(connection) if spans else {}
        found = [stored.get((s.partition.topic, s.partition.partition), ())[:2] for s in spans]
        moved = [place == _start(span) for place, span in zip(found, spans, strict=True)]
        if not all(moved):
            raise displaced(moved.count(False))
        for span in spans:
            self._put(connection, span.partition, span.end)

    def place(
        self, connection: Connection, cursors: Mapping[TopicPartition, Cursor | None]
    ) -> None:
        """Put cursors where an operator wants them, whatever they were; None forgets one."""
        for partition, cursor in cursors.items():
            gone = (*self._owner, partition.topic, partition.partition)
            connection.execute(f'{_FORGET} AND topic = ? AND "partition" = ?', gone)
            if cursor is not None:
                self._put(connection, partition, cursor)

    def forget(self, connection: Connection) -> None:
        """Delete the cursors of this sink."""
        connection.execute(_FORGET, self._owner)

    def _rows(self, connection: Connection) -> dict[tuple[str, int], tuple[Any, ...]]:
        rows = connection.execute(_READ, self._owner).fetchall()
        return {(row[0], row[1]): row[2:] for row in rows}

    def _put(self, connection: Connection, partition: TopicPartition, cursor: Cursor) -> None:
        name = (partition.topic, partition.partition, partition.topic_id)
        place = (cursor.offset, *(cursor.stamp or _NO_STAMP), VERSION)
        connection.execute(_PUT, (*self._owner, *name, *place))


def _start(span: Span) -> tuple[Any, ...]:
    """Return what is stored, of topic id and offset, where the span may begin."""
    return () if span.start is None else (span.partition.topic_id, span.start.offset)


class BarrierTable:
    """The partitions of one sink that wait at a truncation (R8); made at the first one.

    A row counts only while the cursor is where the row says.
    """

    def __init__(self, context: Context, cursors: CursorTable) -> None:
        self._owner = (context.pipeline, context.name)
        self._cursors = cursors

    def meet(
        self, connection: Connection, barrier: Barrier, empty: Callable[[], None]
    ) -> Sequence[int]:
        """Note who stands at the barrier; the last one calls `empty` and lets all go on.

        Returns the partitions still waited for. Raises as `sinks.target.Target.meet` says.
        """
        connection.execute(_BARRIERS)

        def let_on(places: Places) -> None:
            empty()
            self._release(connection, barrier, places)

        arrive = partial(self._arrive, connection, barrier)
        return stand(barrier, partial(self._read, connection, barrier), [arrive], let_on)

    def _read(self, connection: Connection, barrier: Barrier) -> Places:
        rows = connection.execute(_PLACES, (*self._owner, *barrier.topic)).fetchall()
        return {row[0]: place_of(row) for row in rows}

    def _arrive(self, connection: Connection, barrier: Barrier) -> Sequence[int]:
        """Move our cursors to the truncation and say that they stand there."""
        moving = [span for span in barrier.spans if span.start != span.end]
        self._cursors.advance(connection, moving)
        topic, topic_id = barrier.topic
        for span in barrier.spans:
            place = (topic, span.partition.partition, topic_id, span.end.offset)
            connection.execute(_ARRIVE, (*self._owner, *place, *barrier.stamp, VERSION))
        return ()  # nobody else can hold any

    def _release(self, connection: Connection, barrier: Barrier, places: Places) -> None:
        self._cursors.advance(connection, released(places, barrier))
        connection.execute(f"{_LEAVE} AND topic = ?", (*self._owner, barrier.topic[0]))

    def forget(self, connection: Connection) -> None:
        """Delete what waits of this sink."""
        connection.execute(_BARRIERS)
        connection.execute(_LEAVE, self._owner)


def forget(context: Context, connection: Connection) -> None:
    """Delete all that is kept of a sink beside the rows."""
    cursors = CursorTable(context)
    cursors.create(connection)
    BarrierTable(context, cursors).forget(connection)
    cursors.forget(connection)
