"""Truncations that wait for every partition of their table (R8), kept beside the cursors.

A row says that a partition stands at a truncation; it counts only while the cursor is where the
row says. The file has one write lock, and `meet` is called with it held: what it reads is so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from sqlite3 import Connection

from cdc.connector import Context
from sinks.sqlite.cursors import CursorTable
from sinks.stored import VERSION, Places, place_of, released, stand
from sinks.target import Barrier

__all__ = ["BarrierTable"]

_CREATE = """
CREATE TABLE IF NOT EXISTS tailrace_barriers (
    pipeline TEXT, sink TEXT, topic TEXT, "partition" INTEGER,
    topic_id TEXT NOT NULL, at_offset INTEGER NOT NULL,
    incarnation INTEGER NOT NULL, "commit" INTEGER NOT NULL, ordinal INTEGER NOT NULL,
    sub INTEGER NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (pipeline, sink, topic, "partition")) WITHOUT ROWID
"""
_READ = """
SELECT c."partition", c.next_offset, c.incarnation, c."commit", c.ordinal, c.sub,
       b.incarnation, b."commit", b.ordinal, b.sub
FROM tailrace_cursors c LEFT JOIN tailrace_barriers b
    ON b.pipeline = c.pipeline AND b.sink = c.sink AND b.topic = c.topic
    AND b."partition" = c."partition" AND b.topic_id = c.topic_id AND b.at_offset = c.next_offset
WHERE c.pipeline = ? AND c.sink = ? AND c.topic = ? AND c.topic_id = ?
"""
_ARRIVE = "INSERT OR REPLACE INTO tailrace_barriers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM tailrace_barriers WHERE pipeline = ? AND sink = ?"


class BarrierTable:
    """The waiting partitions of one sink; the table is made at its first truncation."""

    def __init__(self, context: Context, cursors: CursorTable) -> None:
        self._owner = (context.pipeline, context.name)
        self._cursors = cursors

    def meet(
        self, connection: Connection, barrier: Barrier, empty: Callable[[], None]
    ) -> Sequence[int]:
        """Note who stands at the barrier; the last one calls `empty` and lets all go on.

        Returns the partitions still waited for. Raises as `sinks.target.Target.meet` says. To be
        called inside a write transaction.
        """
        connection.execute(_CREATE)

        def let_on(places: Places) -> None:
            empty()
            self._release(connection, barrier, places)

        arrive = partial(self._arrive, connection, barrier)
        return stand(barrier, partial(self._read, connection, barrier), [arrive], let_on)

    def _read(self, connection: Connection, barrier: Barrier) -> Places:
        rows = connection.execute(_READ, (*self._owner, *barrier.topic))
        return {row[0]: place_of(row) for row in rows}

    def _arrive(self, connection: Connection, barrier: Barrier) -> Sequence[int]:
        """Move our cursors to the truncation and say that they stand there."""
        moving = [span for span in barrier.spans if span.start != span.end]
        self._cursors.advance(connection, moving)
        topic, topic_id = barrier.topic
        for span in barrier.spans:
            place = (topic, span.partition.partition, topic_id, span.end.offset)
            connection.execute(_ARRIVE, (*self._owner, *place, *barrier.stamp, VERSION))
        return ()  # nobody else has the write lock

    def _release(self, connection: Connection, barrier: Barrier, places: Places) -> None:
        self._cursors.advance(connection, released(places, barrier))
        connection.execute(f"{_FORGET} AND topic = ?", (*self._owner, barrier.topic[0]))

    def forget(self, connection: Connection) -> None:
        """Delete what waits of this sink."""
        connection.execute(_CREATE)
        connection.execute(_FORGET, self._owner)
