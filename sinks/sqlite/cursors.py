"""The cursors table, kept in the file that holds the rows: how far each partition was applied.

One row per (pipeline, sink, topic, partition). `advance` is a compare-and-set inside the
transaction that holds the rows: what two workers do at once, one of them does not do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from sqlite3 import Connection
from typing import Any

from cdc.connector import Context
from sinks.stored import VERSION, cursor_of, displaced
from sinks.target import Cursor, Span, TopicPartition

__all__ = ["CursorTable"]

_CREATE = """
CREATE TABLE IF NOT EXISTS tailrace_cursors (
    pipeline TEXT, sink TEXT, topic TEXT, "partition" INTEGER,
    topic_id TEXT NOT NULL, next_offset INTEGER NOT NULL,
    incarnation INTEGER, "commit" INTEGER, ordinal INTEGER, sub INTEGER,
    version INTEGER NOT NULL, updated_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (pipeline, sink, topic, "partition")) WITHOUT ROWID
"""
_READ = """
SELECT topic, "partition", topic_id, next_offset, incarnation, "commit", ordinal, sub, version
FROM tailrace_cursors WHERE pipeline = ? AND sink = ?
"""
_INSERT = """
INSERT INTO tailrace_cursors (next_offset, incarnation, "commit", ordinal, sub, version,
                       pipeline, sink, topic, "partition", topic_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_UPDATE = """
UPDATE tailrace_cursors SET next_offset = ?, incarnation = ?, "commit" = ?, ordinal = ?, sub = ?,
    version = ?, updated_at = CURRENT_TIMESTAMP
WHERE pipeline = ? AND sink = ? AND topic = ? AND "partition" = ? AND topic_id = ?
  AND next_offset = ?
"""
_FORGET = "DELETE FROM tailrace_cursors WHERE pipeline = ? AND sink = ?"
_NO_STAMP = (None, None, None, None)


class CursorTable:
    """The cursors of one sink."""

    def __init__(self, context: Context) -> None:
        self._owner = (context.pipeline, context.name)

    def create(self, connection: Connection) -> None:
        """Make the table where it is missing."""
        connection.execute(_CREATE)

    def read(
        self, connection: Connection, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, Cursor | None]:
        """Return what is stored for `partitions`; raises as `sinks.stored.cursor_of`."""
        rows = connection.execute(_READ, self._owner)
        stored = {(row[0], row[1]): row[2:] for row in rows}
        sink = self._owner[1]
        return {p: cursor_of(stored.get((p.topic, p.partition)), p, sink) for p in partitions}

    def advance(self, connection: Connection, spans: Sequence[Span]) -> None:
        """Move every cursor from start to end. Raises `CursorMoved` when one is elsewhere."""
        first = [(*_end(s), *self._owner, *_name(s)) for s in spans if s.start is None]
        later = [
            (*_end(s), *self._owner, *_name(s), s.start.offset)
            for s in spans
            if s.start is not None
        ]
        moved = connection.executemany(_INSERT, first).rowcount if first else 0
        moved += connection.executemany(_UPDATE, later).rowcount if later else 0
        if moved != len(spans):
            raise displaced(len(spans) - moved)

    def place(
        self, connection: Connection, cursors: Mapping[TopicPartition, Cursor | None]
    ) -> None:
        """Put cursors where an operator wants them, whatever they were; None forgets one."""
        gone = [(*self._owner, partition.topic, partition.partition) for partition in cursors]
        connection.executemany(f'{_FORGET} AND topic = ? AND "partition" = ?', gone)
        spans = [Span(p, None, cursor) for p, cursor in cursors.items() if cursor is not None]
        self.advance(connection, spans)

    def forget(self, connection: Connection) -> None:
        """Delete the cursors of this sink."""
        connection.execute(_FORGET, self._owner)


def _name(span: Span) -> tuple[Any, ...]:
    partition = span.partition
    return partition.topic, partition.partition, partition.topic_id


def _end(span: Span) -> tuple[Any, ...]:
    return (span.end.offset, *(span.end.stamp or _NO_STAMP), VERSION)
