"""Truncations that wait for every partition of their table (R8), kept beside the cursors.

    partition 0  ────────┤T├──▶      one row here for each partition that stands at T, written
    partition 1  ──┤ … ┤T├──▶        with its cursor; it counts only while the cursor is where
    partition 2  ────────┤T├──▶      the row says, so a moved cursor makes it void

Who finds a row for every partition locks the cursors, looks again, empties the table and moves all
cursors behind T, in one transaction. Nothing else passes T, so rows before it are gone and rows
behind it come later, whichever worker dies in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from cdc.connections.mariadb import Connection, fetch
from cdc.connector import Context
from sinks.mariadb.cursors import NAMES, CursorTable, has, table_options
from sinks.mariadb.dialect import Dialect
from sinks.stored import VERSION, Places, place_of, released, stand
from sinks.target import Barrier

__all__ = ["BarrierTable"]

_CREATE = f"""
CREATE TABLE IF NOT EXISTS tailrace_barriers ({NAMES}
    topic_id VARCHAR(100) NOT NULL, at_offset BIGINT NOT NULL,
    incarnation BIGINT NOT NULL, `commit` BIGINT NOT NULL, ordinal BIGINT NOT NULL,
    sub INT NOT NULL, version INT NOT NULL,
    PRIMARY KEY (pipeline, sink, topic, `partition`))
"""
_READ = """
SELECT c.`partition`, c.next_offset, c.incarnation, c.`commit`, c.ordinal, c.sub,
       b.incarnation, b.`commit`, b.ordinal, b.sub
FROM tailrace_cursors c LEFT JOIN tailrace_barriers b
    ON b.pipeline = c.pipeline AND b.sink = c.sink AND b.topic = c.topic
    AND b.`partition` = c.`partition` AND b.topic_id = c.topic_id AND b.at_offset = c.next_offset
WHERE c.pipeline = %s AND c.sink = %s AND c.topic = %s AND c.topic_id = %s
"""
_LOCK = """
SELECT `partition` FROM tailrace_cursors
WHERE pipeline = %s AND sink = %s AND topic = %s AND topic_id = %s
ORDER BY `partition` FOR UPDATE SKIP LOCKED
"""
_ARRIVE = """
REPLACE INTO tailrace_barriers VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_FORGET = "DELETE FROM tailrace_barriers WHERE pipeline = %s AND sink = %s"


class BarrierTable:
    """The waiting partitions of one sink."""

    def __init__(self, context: Context, cursors: CursorTable, dialect: Dialect) -> None:
        self._owner = (context.pipeline, context.name)
        self._options = table_options(dialect)
        self._cursors = cursors

    def create(self, connection: Connection) -> None:
        """Make the table where it is missing."""
        if not has(connection, "tailrace_barriers"):
            connection.query(f"{_CREATE} {self._options}")

    def meet(
        self, connection: Connection, barrier: Barrier, empty: Callable[[], None]
    ) -> Sequence[int]:
        """Note who stands at the barrier; the last one calls `empty` and lets all go on.

        Returns the partitions still waited for. Raises as `sinks.target.Target.meet` says. To be
        called inside a transaction.
        """

        def let_on(places: Places) -> None:
            empty()
            self._release(connection, barrier, places)

        steps = [partial(step, connection, barrier) for step in (self._arrive, self._lock)]
        return stand(barrier, partial(self._read, connection, barrier), steps, let_on)

    def _read(self, connection: Connection, barrier: Barrier) -> Places:
        rows = fetch(connection, _READ, (*self._owner, *barrier.topic))
        return {row[0]: place_of(row) for row in rows}

    def _arrive(self, connection: Connection, barrier: Barrier) -> Sequence[int]:
        """Move our cursors to the truncation and say that they stand there."""
        moving = [span for span in barrier.spans if span.start != span.end]
        self._cursors.advance(connection, moving)
        topic, topic_id = barrier.topic
        rows = [
            (*self._owner, topic, span.partition.partition, topic_id, span.end.offset)
            for span in barrier.spans
        ]
        with connection.cursor() as cursor:
            cursor.executemany(_ARRIVE, [(*row, *barrier.stamp, VERSION) for row in rows])
        return ()

    def _lock(self, connection: Connection, barrier: Barrier) -> Sequence[int]:
        """Lock every cursor of the topic; return those that somebody else holds."""
        found = {row[0] for row in fetch(connection, _LOCK, (*self._owner, *barrier.topic))}
        return sorted(set(range(barrier.partitions)) - found)

    def _release(self, connection: Connection, barrier: Barrier, places: Places) -> None:
        self._cursors.advance(connection, released(places, barrier))
        with connection.cursor() as cursor:
            cursor.execute(f"{_FORGET} AND topic = %s", (*self._owner, barrier.topic[0]))

    def forget(self, connection: Connection) -> None:
        """Delete what waits of this sink."""
        if has(connection, "tailrace_barriers"):
            with connection.cursor() as cursor:
                cursor.execute(_FORGET, self._owner)
