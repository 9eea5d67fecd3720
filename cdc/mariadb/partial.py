"""Row images with a part of their rows → rows in the tuple form of `schemas/forms.py` (R6).

Under `binlog_row_image` MINIMAL, NOBLOB and FULL_NODUP an image has some columns only. What the new
row lacks it has of the old one, or it is absent. An old row that lacks any is given by its key
alone, as K, and only where that is told: by D, and by U of another key. New rows of MySQL may have
parts of their JSON documents only (`cdc/mysql/documents.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from cdc.decode.binlogevents import RowsEvent
from cdc.decode.mysqlvalues import Read
from cdc.mysql.documents import Documents

__all__ = ["has_keys", "packed_partly"]

_NULL = b"n"
_ABSENT = b"u"

_Present = list[tuple[int, Read]]


def has_keys(event: RowsEvent, key: Sequence[int]) -> bool:
    """Tell whether a row can be told by `event`: by all of its columns, or by those of `key`."""
    every = (1 << event.width) - 1
    told = int.from_bytes(event.before, "little") & every
    if event.kind == b"U" and told == every:
        return True
    return bool(key) and all(told >> place & 1 for place in key)


def packed_partly(
    event: RowsEvent,
    readers: tuple[Read, ...],
    key: Sequence[int],
    places: AbstractSet[int] = frozenset(),
) -> list[bytes]:
    """Return the rows of an `event` for which `has_keys` holds, in order, in the form "pgoutput".

    `places` are those of MySQL's JSON columns. Raises `ValueError` when rows do not fit.
    """
    if event.width != len(readers) or not readers:
        raise ValueError(f"{event.width} columns where the table has {len(readers)}")
    if not has_keys(event, key):
        raise ValueError("rows without their key")
    old, new, begin = _sides(event, readers, places)
    data, at, out = event.data, 0, []
    try:
        while at < len(data):
            before, at = _cells(data, at, old, len(readers))
            if event.kind != b"U":
                out.append(_told(event.kind, before, key))
                continue
            after, at = _cells(data, begin(data, at), new, len(readers))
            filled = [b if a is _ABSENT else a for a, b in zip(after, before, strict=True)]
            out.append(b"U" + _old_row(before, filled, key) + _tuple(b"N", filled))
    except (IndexError, struct.error):
        raise ValueError(f"a row ends behind its {len(data)} bytes") from None
    if at != len(data):
        raise ValueError(f"the rows end at byte {at} of {len(data)}")
    return out


def _sides(
    event: RowsEvent, readers: tuple[Read, ...], places: AbstractSet[int]
) -> tuple[_Present, _Present, Callable[[bytes, int], int]]:
    """Return what reads old rows, what reads new ones, and what is before each of these."""
    if not event.parts:
        return _present(event.before, readers), _present(event.after, readers), _nothing
    logged = frozenset(place for place, _ in _present(event.before, readers))
    documents = Documents(readers, places, logged)
    old = _present(event.before, documents.before)
    return old, _present(event.after, documents.after), documents.begin


def _nothing(_: bytes, at: int) -> int:
    return at


def _present(bitmap: bytes, readers: tuple[Read, ...]) -> _Present:
    """Return the places an image has, and what reads them."""
    told = int.from_bytes(bitmap, "little")
    return [(place, read) for place, read in enumerate(readers) if told >> place & 1]


def _cells(data: bytes, at: int, present: _Present, width: int) -> tuple[list[bytes], int]:
    """Return the cells of one image, each with what it is, and the offset behind it."""
    size = (len(present) + 7) // 8
    nulls = int.from_bytes(data[at : at + size], "little")
    at += size
    cells = [_ABSENT] * width
    for place, read in present:
        if nulls & 1:
            cells[place] = _NULL
        else:
            cell, at = read(data, at)
            cells[place] = b"t" + struct.pack(">I", len(cell)) + cell
        nulls >>= 1
    if at > len(data):
        raise IndexError
    return cells, at


def _told(kind: bytes, cells: list[bytes], key: Sequence[int]) -> bytes:
    """Return an insert, or a delete by the key alone where the row is not whole."""
    if kind == b"I":
        return b"I" + _tuple(b"N", cells)
    return b"D" + (_tuple(b"K", _only(cells, key)) if _ABSENT in cells else _tuple(b"O", cells))


def _old_row(before: list[bytes], after: list[bytes], key: Sequence[int]) -> bytes:
    """Return the old row of an update: whole, or its key where that has changed, or nothing."""
    if _ABSENT not in before:
        return _tuple(b"O", before)
    if all(before[place] == after[place] for place in key):
        return b""
    return _tuple(b"K", _only(before, key))


def _only(cells: list[bytes], key: Sequence[int]) -> list[bytes]:
    return [cell if place in key else _NULL for place, cell in enumerate(cells)]


def _tuple(kind: bytes, cells: list[bytes]) -> bytes:
    return b"".join([kind, struct.pack(">H", len(cells)), *cells])
