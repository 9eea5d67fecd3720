"""Rows events → rows in the tuple form of `schemas/forms.py`, which compiled plans read.

A row image has a bit for each of its columns that is NULL, then the values of the others. One
reader is made per shape; it makes the text of each value and puts it behind its length, as
PostgreSQL's log does: I with N, U with O and N, D with O.
"""

from __future__ import annotations

import struct

from cdc.decode.binlogevents import RowsEvent
from cdc.decode.mysqlvalues import Read

__all__ = ["is_whole", "packed"]

_NULL = b"n"
_SHORT = tuple(b"t" + struct.pack(">I", size) for size in range(256))


def is_whole(event: RowsEvent) -> bool:
    """Tell whether the images of `event` have all columns of its table."""
    every = (1 << event.width) - 1
    bitmaps = (event.before, event.after)
    return all(int.from_bytes(bitmap, "little") & every == every for bitmap in bitmaps)


def packed(event: RowsEvent, readers: tuple[Read, ...]) -> list[bytes]:
    """Return the rows of a whole `event`, in order, in the form "pgoutput".

    Raises `ValueError` when they do not fit the readers.
    """
    if event.width != len(readers) or not readers:
        raise ValueError(f"{event.width} columns where the table has {len(readers)}")
    data, at, out = event.data, 0, []
    update = event.kind == b"U"
    head = event.kind + (b"N" if event.kind == b"I" else b"O") + struct.pack(">H", event.width)
    middle = b"N" + struct.pack(">H", event.width)
    try:
        while at < len(data):
            parts = [head]
            at = _image(data, at, readers, parts)
            if update:
                parts.append(middle)
                at = _image(data, at, readers, parts)
            out.append(b"".join(parts))
    except (IndexError, struct.error):
        raise ValueError(f"a row ends behind its {len(data)} bytes") from None
    if at != len(data):
        raise ValueError(f"the rows end at byte {at} of {len(data)}")
    return out


def _image(data: bytes, at: int, readers: tuple[Read, ...], parts: list[bytes]) -> int:
    """Append the cells of one image and return the offset behind it."""
    size = (len(readers) + 7) // 8
    nulls = int.from_bytes(data[at : at + size], "little")
    at += size
    append = parts.append
    for read in readers:
        if nulls & 1:
            append(_NULL)
        else:
            cell, at = read(data, at)
            length = len(cell)
            append(_SHORT[length] if length < 256 else b"t" + struct.pack(">I", length))
            append(cell)
        nulls >>= 1
    if at > len(data):
        raise IndexError
    return at
