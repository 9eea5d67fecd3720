"""The key cells of rows in the forms that logs and snapshots have."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.change import Change, Row, Rows
from schemas.forms import read_copy, split_tuple

__all__ = ["keys_of", "line_key"]


def keys_of(rows: Rows) -> set[tuple[object, ...]]:
    """Return every key, old or new, that a run of rows touched."""
    indexes = rows.schema.key_indexes()
    found: set[tuple[object, ...]] = set()
    for item in rows.items:
        if isinstance(item, Change):
            sides = [side for side in (item.before, item.after) if side is not None]
        else:
            sides = _sides(item)
        found.update(tuple(side[index] for index in indexes) for side in sides)
    return found


def _sides(item: bytes) -> list[Row]:
    before, at = split_tuple(item, 2)
    if at == len(item):
        return [before]
    return [before, split_tuple(item, at + 1)[0]]


def line_key(line: bytes, indexes: Sequence[int]) -> tuple[object, ...]:
    """Return the key cells of a COPY line."""
    if b"\\" in line:
        cells = read_copy(line).after or ()
        return tuple(cells[index] for index in indexes)
    fields = line.split(b"\t", max(indexes) + 1)
    return tuple(fields[index] for index in indexes)
