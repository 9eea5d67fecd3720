"""`mode: append`: a row of the target for each change, none ever replaced or deleted.

The row is the one after the change, of a delete the one before it, and the columns below say what
happened. Topic, partition and offset are the key: a change that is read again is the same row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from confluent_kafka import Message

from schemas.change import Cell
from schemas.table import Column
from sinks.cast import CASTS
from sinks.values import text_of

__all__ = ["FACTS", "KEY", "facts", "moment"]

FACTS = (
    Column("cdc_op", CASTS["text"]),
    Column("cdc_at", CASTS["timestamptz"]),
    Column("cdc_absent", CASTS["text"]),
    Column("cdc_topic", CASTS["text"], nullable=False),
    Column("cdc_partition", CASTS["int"], nullable=False),
    Column("cdc_offset", CASTS["bigint"], nullable=False),
)
"""What is added to a row: the envelope's op; when the source committed; the columns whose value the
log did not carry, which are NULL here, by commas; and which record it was."""

KEY = ("cdc_topic", "cdc_partition", "cdc_offset")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(ts_ms: int) -> bytes | None:
    """Return ms since 1970 as text of a timestamptz."""
    return text_of(_EPOCH + timedelta(milliseconds=ts_ms))


def facts(message: Message, op: str, ts_ms: int, absent: Sequence[str]) -> list[Cell]:
    """Return the cells of `FACTS`."""
    return [
        op.encode(),
        moment(ts_ms),
        ",".join(absent).encode() if absent else None,
        (message.topic() or "").encode(),
        b"%d" % (message.partition() or 0),
        b"%d" % (message.offset() or 0),
    ]
