"""Row events whose values cannot be written, kept whole in `<pipeline>.quarantine`.

    a run of rows ─▶ encode ─▶ data topic
                       └ a value is none of its type ─▶ one letter, in the same Kafka transaction

A letter here has the form of a dead letter (`sinks/letters.py` reads both): its value is the row as
the source handed it over, its key the row's key columns as JSON, the rest are `cdc.*` headers. It
commits with the records of its transaction and the position behind them, so it is there exactly
once, and the row is never in both topics or in none.

Only values are put aside. A row that is torn, or has another number of columns than its table, says
that the log is not understood, and stops the source whatever was asked for (R7).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import orjson

from cdc.brokers import TopicSettings, ensure_topics
from cdc.connector import Context
from cdc.kafka import KafkaConfig
from schemas.change import UNREADABLE, Cell, Op, Row, Rows
from schemas.forms import READERS, Read
from schemas.plan import Message

__all__ = ["OnUndecodable", "Quarantine", "objection", "readable_row", "singly"]

OnUndecodable = Literal["stop", "quarantine"]
"""What a source does with a row event whose values cannot be decoded or encoded."""

_SETTINGS = TopicSettings(1, {"cleanup.policy": "delete", "retention.ms": "-1"})
_HINT = (
    "The row is not in its topic. Repair the value in the source and `cdc backfill` its key; "
    "`cdc verify --repair` finds rows that should be gone."
)
_KINDS = {Op.UPDATE: b"U", Op.DELETE: b"D"}
_SHOWN = 24
"""Bytes of a value that an error quotes."""


class Quarantine:
    """Makes the letters of one source; connects at the first, to make the topic."""

    def __init__(self, context: Context, kafka: KafkaConfig) -> None:
        self._context = context
        self._kafka = kafka
        self._made = False
        self.topic = f"{context.pipeline}.quarantine"

    def letter(self, row: Rows, topic: str, error: Exception) -> Message:
        """Return the record for `row`, a run of one, that was meant for `topic`.

        Raises `ValueError` or `IndexError` for bytes that are no row of their table.
        """
        if not self._made:
            ensure_topics(self._kafka, {self.topic: _SETTINGS})
            self._made = True
        item, read = row.items[0], _whole(row)
        columns = [column.name for column in row.schema.columns]
        facts = {
            "pipeline": self._context.pipeline,
            "source": self._context.name,
            "topic": topic,
            "table": row.schema.table,
            "form": "copy" if row.form == "copy" else "pgoutput",
            "columns": orjson.dumps(columns).decode(),
            "incarnation": row.origin.incarnation,
            "commit": row.origin.commit,
            "ordinal": row.ordinals[0],
            "txid": row.origin.txid,
            "error": type(error).__name__,
            "reason": objection(row, error),
            "hint": _HINT,
            "at": time.time_ns() // 1_000_000,
        }
        headers = [(f"cdc.{name}", str(fact).encode()) for name, fact in facts.items()]
        value = item if isinstance(item, bytes) else _packed(read)
        return {"key": _key(row, read), "value": value, "headers": headers}


def singly(rows: Rows) -> Iterator[Rows]:
    """Yield each row of a run as a run of its own."""
    for item, ordinal in zip(rows.items, rows.ordinals, strict=True):
        one: list[Any] = [item]
        yield Rows(rows.schema, rows.form, rows.origin, one, (ordinal,))


def objection(row: Rows, error: Exception) -> str:
    """Say what is wrong with a run of one row: which values are no text, else what `error` says."""
    try:
        read = _whole(row)
    except (ValueError, IndexError):
        return str(error)
    told = {}
    for cells in (read.before, read.after):
        for column, cell in zip(row.schema.columns, cells or (), strict=False):
            if isinstance(cell, bytes) and not _is_text(cell):
                shown = cell.removeprefix(UNREADABLE)[:_SHOWN].hex(" ")
                told[column.name] = f"column {column.name} is no text in its character set: {shown}"
    return "; ".join(told.values()) or str(error)


def readable_row(form: str, columns: Sequence[str], value: bytes) -> dict[str, Any]:
    """Return a letter's row by column, without what was not sent; bytes as in Python."""
    read = READERS[form](value)
    sides = {"before": read.before, "after": read.after}
    told = {side: _by_name(cells, columns) for side, cells in sides.items() if cells is not None}
    return {"op": read.op.value, **told}


def _whole(row: Rows) -> Read:
    """Return the cells of a run of one row, as many as its table has columns."""
    read, width = READERS[row.form](row.items[0]), len(row.schema.columns)
    for cells in (read.before, read.after):
        if cells is not None and len(cells) != width:
            raise ValueError(f"a row of {len(cells)} cells for {width} columns")
    return read


def _packed(read: Read) -> bytes:
    """Return a row that came as an object in the form "pgoutput"."""
    sides = [b"O" + _tuple(read.before)] if read.before is not None else []
    if read.after is not None:
        sides.append(b"N" + _tuple(read.after))
    return _KINDS.get(read.op, b"I") + b"".join(sides)


def _tuple(cells: Row) -> bytes:
    parts = [struct.pack(">H", len(cells))]
    for cell in cells:
        if isinstance(cell, bytes):
            parts.append(b"t" + struct.pack(">I", len(cell)) + cell)
        else:
            parts.append(b"n" if cell is None else b"u")
    return b"".join(parts)


def _by_name(cells: Row, columns: Sequence[str]) -> dict[str, str | None]:
    pairs = zip(columns, cells, strict=True)
    return {name: _shown(cell) for name, cell in pairs if cell is None or isinstance(cell, bytes)}


def _key(row: Rows, read: Read) -> bytes | None:
    """Return the row's key by column, the new one where it has changed; None without a key."""
    cells = read.after if read.after is not None else read.before
    if cells is None or not row.schema.key:
        return None
    by_name = dict(zip((column.name for column in row.schema.columns), cells, strict=True))
    return orjson.dumps({name: _shown(by_name[name]) for name in row.schema.key})


def _shown(cell: Cell) -> str | None:
    if not isinstance(cell, bytes):
        return None
    return cell.removeprefix(UNREADABLE).decode(errors="backslashreplace")


def _is_text(cell: bytes) -> bool:
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True
