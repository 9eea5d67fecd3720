"""The cursors table: how far each partition was applied, kept beside the rows.

One row per (pipeline, sink, topic, partition). `advance` is a compare-and-set inside the
transaction that holds the rows: what two workers do at once, one of them does not do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc.connector import Context
from sinks.stored import VERSION, cursor_of, displaced
from sinks.target import Cursor, Span, TopicPartition

__all__ = ["CursorTable"]

Connection = psycopg.Connection[Any]
_LOCK = 0x7461696C72616365
"""`tailrace` in ASCII: the key of the advisory lock under which the table is made."""

_CREATE = """
CREATE TABLE IF NOT EXISTS {} (
    pipeline text, sink text, topic text, partition integer,
    topic_id text NOT NULL, next_offset bigint NOT NULL,
    incarnation bigint, commit bigint, ordinal bigint, sub integer,
    updated_at timestamptz NOT NULL DEFAULT now(), version integer NOT NULL,
    PRIMARY KEY (pipeline, sink, topic, partition))
"""
_READ = """
SELECT topic, partition, topic_id, next_offset, incarnation, commit, ordinal, sub, version
FROM {} WHERE pipeline = %s AND sink = %s AND topic = ANY (%s)
"""
_INSERT = """
INSERT INTO {} (pipeline, sink, topic, partition, topic_id, next_offset,
                incarnation, commit, ordinal, sub, version)
SELECT %s, %s, v.* , %s FROM unnest(%s::text[], %s::int[], %s::text[], %s::bigint[],
    %s::bigint[], %s::bigint[], %s::bigint[], %s::int[]) v
ON CONFLICT DO NOTHING
"""
_UPDATE = """
UPDATE {} c SET next_offset = v.next_offset, incarnation = v.incarnation, commit = v.commit,
    ordinal = v.ordinal, sub = v.sub, updated_at = now(), version = %s
FROM (SELECT * FROM unnest(%s::text[], %s::int[], %s::text[], %s::bigint[], %s::bigint[],
        %s::bigint[], %s::bigint[], %s::bigint[], %s::int[]) u (topic, partition, topic_id,
        start_offset, next_offset, incarnation, commit, ordinal, sub)) v
WHERE c.pipeline = %s AND c.sink = %s AND c.topic = v.topic AND c.partition = v.partition
  AND c.topic_id = v.topic_id AND c.next_offset = v.start_offset
"""


class CursorTable:
    """The cursors of one sink."""

    def __init__(self, context: Context, schema: str) -> None:
        self._owner = (context.pipeline, context.name)
        self._schema_name, self._schema = schema, sql.Identifier(schema)
        self._name = sql.Identifier(schema, "cursors")

    def create(self, connection: Connection) -> None:
        """Make the table where it is missing; of several sinks that start at once, one does."""
        self.make(connection, self._name, sql.SQL(_CREATE).format(self._name))

    def make(self, connection: Connection, name: sql.Identifier, statement: sql.Composed) -> None:
        """Make a table of the cursors' schema where it is missing."""
        if self.has(connection, name):
            return
        with connection.transaction():
            # Two CREATE IF NOT EXISTS at once collide in the catalogue (measured).
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            # Asked first: IF NOT EXISTS wants the right to create schemas even where there is one.
            known = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
            if connection.execute(known, (self._schema_name,)).fetchone() is None:
                connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(self._schema))
            if not self.has(connection, name):
                connection.execute(statement)

    def has(self, connection: Connection, name: sql.Identifier) -> bool:
        """Tell whether a table exists."""
        text = name.as_string(connection)
        found = connection.execute("SELECT to_regclass(%s)", (text,)).fetchone()
        return found is not None and found[0] is not None

    def read(
        self, connection: Connection, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, Cursor | None]:
        """Return what is stored for `partitions`; raises as `sinks.stored.cursor_of`."""
        topics = sorted({partition.topic for partition in partitions})
        rows = connection.execute(sql.SQL(_READ).format(self._name), (*self._owner, topics))
        stored = {(row[0], row[1]): row[2:] for row in rows}
        sink = self._owner[1]
        return {p: cursor_of(stored.get((p.topic, p.partition)), p, sink) for p in partitions}

    def advance(self, connection: Connection, spans: Sequence[Span]) -> None:
        """Move every cursor from start to end. Raises `CursorMoved` when one is elsewhere."""
        ordered = sorted(spans, key=lambda span: span.partition)
        first = [span for span in ordered if span.start is None]
        later = [span for span in ordered if span.start is not None]
        moved = 0
        if first:
            names, ends = _names(first), _ends(first)
            query = sql.SQL(_INSERT).format(self._name)
            parameters = (*self._owner, VERSION, *names, *ends)
            moved += connection.execute(query, parameters).rowcount
        if later:
            names, ends = _names(later), _ends(later)
            starts = [span.start.offset for span in later if span.start is not None]
            query = sql.SQL(_UPDATE).format(self._name)
            parameters = (VERSION, *names, starts, *ends, *self._owner)
            moved += connection.execute(query, parameters).rowcount
        if moved != len(spans):
            raise displaced(len(spans) - moved)

    def forget(self, connection: Connection) -> int:
        """Delete the cursors of this sink and return how many there were."""
        query = sql.SQL("DELETE FROM {} WHERE pipeline = %s AND sink = %s").format(self._name)
        return connection.execute(query, self._owner).rowcount

    def place(
        self, connection: Connection, cursors: Mapping[TopicPartition, Cursor | None]
    ) -> None:
        """Put cursors where an operator wants them, whatever they were; None forgets one."""
        query = sql.SQL(
            "DELETE FROM {} c USING unnest(%s::text[], %s::int[]) v (topic, partition) WHERE "
            "c.pipeline = %s AND c.sink = %s AND c.topic = v.topic AND c.partition = v.partition"
        ).format(self._name)
        topics = [partition.topic for partition in cursors]
        partitions = [partition.partition for partition in cursors]
        spans = [Span(p, None, cursor) for p, cursor in cursors.items() if cursor is not None]
        with connection.transaction():
            connection.execute(query, (topics, partitions, *self._owner))
            self.advance(connection, spans)


def _names(spans: Sequence[Span]) -> tuple[list[str], list[int], list[str]]:
    partitions = [span.partition for span in spans]
    return (
        [partition.topic for partition in partitions],
        [partition.partition for partition in partitions],
        [partition.topic_id for partition in partitions],
    )


def _ends(spans: Sequence[Span]) -> tuple[list[int], ...]:
    stamps = [span.end.stamp or (None, None, None, None) for span in spans]
    columns: list[Any] = [list(column) for column in zip(*stamps, strict=True)]
    return ([span.end.offset for span in spans], *columns)
