"""Logical messages (`pg_logical_emit_message`) as records of a topic of their own.

They travel as `Rows` of the pseudo table `MESSAGES`, form "changes", one `Change` with
`Op.MESSAGE` each, and become records with `schemas.avro.message_schema` and a null key:

    message: {prefix, content} │ source: as of a row │ op "m" │ ts_ms
"""

from __future__ import annotations

from collections.abc import Iterator

from schemas.avro import message_schema
from schemas.change import Change, Op, Rows
from schemas.plan import Message, Record, SourceName, append, origin_block
from schemas.table import TableId, TableSchema
from schemas.types import avro_long, avro_text
from schemas.wire import frame

__all__ = ["MESSAGES", "MessagePlan", "message_record", "message_schema"]

MESSAGES = TableSchema(TableId("", "message"), ())
"""The table logical messages pretend to come from: it has no columns and no key."""

_FIRST = avro_long(0)


def message_record(source: SourceName, schema_id: int, rows: Rows, now_ms: int) -> list[Record]:
    """Return the records of a run of logical messages; see `MessagePlan.records`."""
    return list(MessagePlan(source, schema_id).records(rows, now_ms))


class MessagePlan:
    """What `schemas.plan.Plan` is for rows: everything constant of a message's record, once."""

    schema = MESSAGES

    def __init__(self, source: SourceName, schema_id: int) -> None:
        names = (source.version, source.connector, source.name, source.database)
        table = (MESSAGES.table.schema, MESSAGES.table.name)
        self._frame = frame(schema_id)
        self._constant = b"".join(avro_text(name.encode()) for name in (*names, *table))

    def write(self, rows: Rows, now_ms: int, out: list[Message]) -> int:
        """Append what `records` yields to `out`; return the bytes of the values."""
        return append(self.records(rows, now_ms), out)

    def records(self, rows: Rows, now_ms: int) -> Iterator[Record]:
        """Yield one record per message; `now_ms` is `ts_ms`, ms since 1970.

        Raises `ValueError` for anything that is not a logical message.
        """
        origin = self._constant + origin_block(rows.origin)
        tail = _FIRST + avro_text(Op.MESSAGE.value.encode()) + avro_long(now_ms)
        for item, ordinal in zip(rows.items, rows.ordinals, strict=True):
            if not isinstance(item, Change) or item.op is not Op.MESSAGE or item.message is None:
                raise ValueError(f"{item!r} is no logical message")
            prefix, content = item.message
            message = avro_text(prefix.encode()) + avro_text(content)
            yield Record(None, self._frame + message + origin + avro_long(ordinal) + tail)
