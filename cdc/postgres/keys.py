"""Rows whose key changed, read again where they were logged without a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from schemas.change import ABSENT, Change, Op, Row, Rows
from schemas.forms import Read, read_pgoutput
from schemas.table import TableSchema

__all__ = ["refill"]

Reselect = Callable[[TableSchema, Sequence[str]], Row | None]
"""Schema and new key → the row as it is now, None when it is gone."""


def refill(rows: Rows, reselect: Reselect, *, every: bool = False) -> list[Rows]:
    """Return a run in which no update of a key leaves out an unchanged value (R6).

    Under REPLICA IDENTITY DEFAULT and USING INDEX the log carries the old key alone; a consumer
    that sees a delete and a create needs the whole new row, so it is read again by the new key.
    A row that is gone by now stays as it came: what removed it follows. `every` asks for the
    same of all updates.
    """
    schema = rows.schema
    out: list[Rows] = []
    start = 0
    for place, item in enumerate(rows.items):
        change = None
        if isinstance(item, bytes) and item[:1] == b"U":
            row = read_pgoutput(item)
            change = _refilled(row, schema, reselect) if every or row.only_key else None
        if change is not None:
            _cut(rows, start, place, out)
            ordinals = rows.ordinals[place : place + 1]
            out.append(Rows(schema, "changes", rows.origin, [change], ordinals))
            start = place + 1
    _cut(rows, start, len(rows.items), out)
    return out


def _cut(rows: Rows, start: int, end: int, out: list[Rows]) -> None:
    if start < end:
        items = rows.items[start:end]
        out.append(Rows(rows.schema, rows.form, rows.origin, items, rows.ordinals[start:end]))


def _refilled(row: Read, schema: TableSchema, reselect: Reselect) -> Change | None:
    if row.after is None or ABSENT not in row.after:
        return None
    indexes = schema.key_indexes()
    key = [row.after[index] for index in indexes]
    texts = [cell.decode() for cell in key if isinstance(cell, bytes)]
    now = reselect(schema, texts) if len(texts) == len(key) and key else None
    if now is None:
        return None
    after = [there if cell is ABSENT else cell for cell, there in zip(row.after, now, strict=True)]
    before = row.before
    if before is not None and row.only_key:
        before = [cell if i in indexes else ABSENT for i, cell in enumerate(before)]
    return Change(Op.UPDATE, before, after)
