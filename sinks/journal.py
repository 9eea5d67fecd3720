"""Tables that keep what was: every change (`mode: append`), or every version (`mode: history`).

A journal has a row for each change, none ever replaced or deleted: the row after the change, of a
delete the one before it, and `FACTS` say what happened. Topic, partition and offset are the key: a
change that is read again is the same row.

A history has a row for each version. The present one has `NOW` in the last column of the key; when
it ends, it moves to the offset of the record that ended it, and keeps its values. That is a key
change for the target, which knows how to carry over what the record does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from confluent_kafka import Message

from schemas.change import Cell, Stamp
from schemas.table import Column
from sinks.cast import CASTS
from sinks.values import text_of

__all__ = [
    "FACTS",
    "KEY",
    "NOW",
    "PART",
    "POSITION",
    "ROW_KEY",
    "VERSION",
    "facts",
    "moment",
    "position",
    "row_key",
    "until",
]

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

VERSION = (
    Column("valid_from", CASTS["timestamptz"]),
    Column("valid_to", CASTS["timestamptz"]),
    Column("cdc_until", CASTS["bigint"], nullable=False),
)
"""What is added to a version: when it began and ended (NULL: it has not), and by which record."""

NOW = b"%d" % (2**63 - 1)
"""`cdc_until` of the present version."""

KEY = ("cdc_topic", "cdc_partition", "cdc_offset")

POSITION = Column("cdc_position", CASTS["text"])
"""Where in its source a change was, as `position` writes it: behind `FACTS` for targets that take
single changes."""

ROW_KEY = "cdc.key"
"""The attribute of their tables that names the columns of the row's own key, as a JSON list."""

PART = "cdc.part"
"""The attribute of those whose topic goes to other tables, too."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(ts_ms: int) -> bytes | None:
    """Return ms since 1970 as text of a timestamptz."""
    return text_of(_EPOCH + timedelta(milliseconds=ts_ms))


def position(stamp: Stamp | None) -> bytes | None:
    """Return a stamp as text, its numbers joined by `-`; NULL for a producer that is not ours."""
    return None if stamp is None else "-".join(map(str, stamp)).encode()


def row_key(key: Sequence[str], unchanged: Mapping[str, str]) -> tuple[str, str]:
    """Return the attribute `ROW_KEY` of a table of single changes; no name where some are cast.

    `unchanged` is source column → target column.
    """
    known = [unchanged[name] for name in key] if unchanged.keys() >= set(key) else []
    return (ROW_KEY, msgspec.json.encode(known).decode())


def until(message: Message) -> bytes:
    """Return `cdc_until` of a version that `message` ends."""
    return b"%d" % (message.offset() or 0)


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
