"""Truncations that wait for every partition of their table (R8), kept beside the cursors.

    partition 0  ────────┤T├──▶      one row of `barriers` for each partition that stands at T,
    partition 1  ──┤ … ┤T├──▶        written with its cursor; it counts only while the cursor is
    partition 2  ────────┤T├──▶      where the row says, so a moved cursor makes it void

Who finds a row for every partition locks the cursors, looks again, empties the table and moves all
cursors behind T, in one transaction. Nothing else passes T, so rows before it are gone and rows
behind it come later, whichever worker dies in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from cdc.connector import Context
from sinks.postgres.cursors import CursorTable
from sinks.stored import VERSION, Places, place_of, released, stand
from sinks.target import Barrier

__all__ = ["BarrierTable"]

Connection = psycopg.Connection[Any]

_CREATE = """
CREATE TABLE IF NOT EXISTS {} (
    pipeline text, sink text, topic text, partition integer,
    topic_id text NOT NULL, at_offset bigint NOT NULL,
    incarnation bigint NOT NULL, commit bigint NOT NULL, ordinal bigint NOT NULL,
    sub integer NOT NULL, updated_at timestamptz NOT NULL DEFAULT now(), version integer NOT NULL,
    PRIMARY KEY (pipeline, sink, topic, partition))
"""
_READ = """
SELECT c.partition, c.next_offset, c.incarnation, c.commit, c.ordinal, c.sub,
       b.incarnation, b.commit, b.ordinal, b.sub
FROM {cursors} c LEFT JOIN {barriers} b ON b.pipeline = c.pipeline AND b.sink = c.sink
    AND b.topic = c.topic AND b.partition = c.partition AND b.topic_id = c.topic_id
    AND b.at_offset = c.next_offset
WHERE c.pipeline = %s AND c.sink = %s AND c.topic = %s AND c.topic_id = %s
"""
_LOCK = """
SELECT partition FROM {} WHERE pipeline = %s AND sink = %s AND topic = %s AND topic_id = %s
ORDER BY partition FOR UPDATE SKIP LOCKED
"""
_ARRIVE = """
INSERT INTO {} (pipeline, sink, topic, partition, topic_id, at_offset,
                incarnation, commit, ordinal, sub, version)
SELECT %s, %s, %s, p, %s, o, %s, %s, %s, %s, %s FROM unnest(%s::int[], %s::bigint[]) v (p, o)
ON CONFLICT (pipeline, sink, topic, partition) DO UPDATE SET
    topic_id = excluded.topic_id, at_offset = excluded.at_offset,
    incarnation = excluded.incarnation, commit = excluded.commit, ordinal = excluded.ordinal,
    sub = excluded.sub, updated_at = now(), version = excluded.version
"""
_FORGET = "DELETE FROM {} WHERE pipeline = %s AND sink = %s"


class BarrierTable:
    """The waiting partitions of one sink."""

    def __init__(self, context: Context, schema: str, cursors: CursorTable) -> None:
        self._owner = (context.pipeline, context.name)
        self._cursors = cursors
        self._cursors_name = sql.Identifier(schema, "cursors")
        self._name = sql.Identifier(schema, "barriers")

    def create(self, connection: Connection) -> None:
        """Make the table where it is missing; the cursors table is there."""
        self._cursors.make(connection, self._name, sql.SQL(_CREATE).format(self._name))

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
        query = sql.SQL(_READ).format(cursors=self._cursors_name, barriers=self._name)
        found = connection.execute(query, (*self._owner, *barrier.topic)).fetchall()
        return {row[0]: place_of(row) for row in found}

    def _arrive(self, connection: Connection, barrier: Barrier) -> Sequence[int]:
        """Move our cursors to the truncation and say so; the second time nothing is written."""
        moving = [span for span in barrier.spans if span.start != span.end]
        self._cursors.advance(connection, moving)
        places = self._read(connection, barrier)
        known = {n for n, place in places.items() if place.stands_at == barrier.stamp}
        here = [span for span in barrier.spans if span.partition.partition not in known]
        if here:
            numbers = [span.partition.partition for span in here]
            offsets = [span.end.offset for span in here]
            query = sql.SQL(_ARRIVE).format(self._name)
            values = (*self._owner, *barrier.topic, *barrier.stamp, VERSION, numbers, offsets)
            connection.execute(query, values)
        return ()

    def _lock(self, connection: Connection, barrier: Barrier) -> Sequence[int]:
        """Lock every cursor of the topic; return those that somebody else holds."""
        query = sql.SQL(_LOCK).format(self._cursors_name)
        found = connection.execute(query, (*self._owner, *barrier.topic)).fetchall()
        return sorted(set(range(barrier.partitions)) - {row[0] for row in found})

    def _release(self, connection: Connection, barrier: Barrier, places: Places) -> None:
        self._cursors.advance(connection, released(places, barrier))
        query = sql.SQL(_FORGET + " AND topic = %s").format(self._name)
        connection.execute(query, (*self._owner, barrier.topic[0]))

    def forget(self, connection: Connection) -> None:
        """Delete what waits of this sink."""
        if self._cursors.has(connection, self._name):
            connection.execute(sql.SQL(_FORGET).format(self._name), self._owner)
