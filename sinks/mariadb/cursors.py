"""The cursors table, kept in the database the URL names: how far each partition was applied.

One row per (pipeline, sink, topic, partition). `advance` is a compare-and-set inside the
transaction that holds the rows: what two workers do at once, one of them does not do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pymysql
from pymysql.constants import ER

from cdc.connections.mariadb import Connection, code_of, fetch
from cdc.connector import Context
from sinks.mariadb.dialect import Dialect
from sinks.stored import VERSION, cursor_of, displaced
from sinks.target import Cursor, Span, TopicPartition

__all__ = ["NAMES", "CursorTable", "has", "table_options"]

NAMES = """
    pipeline VARCHAR(200), sink VARCHAR(200), topic VARCHAR(249), `partition` INT,
"""

_CREATE = f"""
CREATE TABLE IF NOT EXISTS tailrace_cursors ({NAMES}
    topic_id VARCHAR(100) NOT NULL, next_offset BIGINT NOT NULL,
    incarnation BIGINT, `commit` BIGINT, ordinal BIGINT, sub INT,
    version INT NOT NULL, updated_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    PRIMARY KEY (pipeline, sink, topic, `partition`))
"""
_READ = """
SELECT topic, `partition`, topic_id, next_offset, incarnation, `commit`, ordinal, sub, version
FROM tailrace_cursors WHERE pipeline = %s AND sink = %s
"""
_INSERT = """
INSERT INTO tailrace_cursors (next_offset, incarnation, `commit`, ordinal, sub, version,
                              pipeline, sink, topic, `partition`, topic_id)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_UPDATE = """
UPDATE tailrace_cursors SET next_offset = %s, incarnation = %s, `commit` = %s, ordinal = %s,
    sub = %s, version = %s, updated_at = UTC_TIMESTAMP(6)
WHERE pipeline = %s AND sink = %s AND topic = %s AND `partition` = %s AND topic_id = %s
  AND next_offset = %s
"""
_FORGET = "DELETE FROM tailrace_cursors WHERE pipeline = %s AND sink = %s"
_NO_STAMP = (None, None, None, None)


def table_options(dialect: Dialect) -> str:
    """Return those of every table that is made: transactional, texts compare byte for byte."""
    return f"ENGINE=InnoDB DEFAULT {dialect.texts}"


def has(connection: Connection, table: str) -> bool:
    """Tell whether the URL's database has a table of ours."""
    query = (
        "SELECT 1 FROM information_schema.TABLES "
        "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s"
    )
    return bool(fetch(connection, query, (table,)))


class CursorTable:
    """The cursors of one sink."""

    def __init__(self, context: Context, dialect: Dialect) -> None:
        self._owner = (context.pipeline, context.name)
        self._options = table_options(dialect)

    def create(self, connection: Connection) -> None:
        """Make the table where it is missing: a user may have no right to make any."""
        if not has(connection, "tailrace_cursors"):
            connection.query(f"{_CREATE} {self._options}")

    def read(
        self, connection: Connection, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, Cursor | None]:
        """Return what is stored for `partitions`; raises as `sinks.stored.cursor_of`."""
        rows = fetch(connection, _READ, self._owner)
        stored = {(row[0], row[1]): row[2:] for row in rows}
        sink = self._owner[1]
        return {p: cursor_of(stored.get((p.topic, p.partition)), p, sink) for p in partitions}

    def advance(self, connection: Connection, spans: Sequence[Span]) -> None:
        """Move every cursor from start to end. Raises `CursorMoved` when one is elsewhere."""
        ordered = sorted(spans, key=lambda span: span.partition)
        first = [(*_end(s), *self._owner, *_name(s)) for s in ordered if s.start is None]
        later = [
            (*_end(s), *self._owner, *_name(s), s.start.offset)
            for s in ordered
            if s.start is not None
        ]
        with connection.cursor() as cursor:
            try:
                moved = cursor.executemany(_INSERT, first) or 0
            except pymysql.IntegrityError as error:
                if code_of(error) != ER.DUP_ENTRY:
                    raise
                raise displaced(1) from error
            moved += cursor.executemany(_UPDATE, later) or 0
        if moved != len(spans):
            raise displaced(len(spans) - moved)

    def place(
        self, connection: Connection, cursors: Mapping[TopicPartition, Cursor | None]
    ) -> None:
        """Put cursors where an operator wants them, whatever they were; None forgets one."""
        gone = [(*self._owner, partition.topic, partition.partition) for partition in cursors]
        spans = [Span(p, None, cursor) for p, cursor in cursors.items() if cursor is not None]
        with connection.cursor() as cursor:
            cursor.executemany(f"{_FORGET} AND topic = %s AND `partition` = %s", gone)
        self.advance(connection, spans)

    def forget(self, connection: Connection) -> None:
        """Delete the cursors of this sink."""
        with connection.cursor() as cursor:
            cursor.execute(_FORGET, self._owner)


def _name(span: Span) -> tuple[Any, ...]:
    partition = span.partition
    return partition.topic, partition.partition, partition.topic_id


def _end(span: Span) -> tuple[Any, ...]:
    return (span.end.offset, *(span.end.stamp or _NO_STAMP), VERSION)
