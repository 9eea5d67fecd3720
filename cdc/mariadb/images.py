"""Rows events → rows in the tuple form of `schemas/forms.py`, which compiled plans read.

A row image has a bit for each of its columns that is NULL, then the values of the others. One
reader is made per shape; it makes the text of each value and puts it behind its length, as
PostgreSQL's log does: I with N, U with O and N, D with O. `_Plain` is the reference; the same is
done in C (schemas/_images.pyx) where that was built.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Protocol

from cdc.decode.binlogevents import RowsEvent
from cdc.decode.mysqltypes import Native
from cdc.decode.mysqlvalues import Read
from schemas.executor import compiled

__all__ = ["Images", "image_reader", "is_whole", "packed"]

_NULL = b"n"
_SHORT = tuple(b"t" + struct.pack(">I", size) for size in range(256))


def is_whole(event: RowsEvent) -> bool:
    """Tell whether the images of `event` have all columns of its table."""
    every = (1 << event.width) - 1
    bitmaps = (event.before, event.after)
    return all(int.from_bytes(bitmap, "little") & every == every for bitmap in bitmaps)


class Images(Protocol):
    """Reads the images of one shape."""

    width: int

    def packed(self, kind: bytes, data: bytes) -> list[bytes]:
        """Return the rows of `data`, in order, in the form "pgoutput".

        Raises `IndexError`, `struct.error` or `ValueError` when they do not fit.
        """
        ...


def image_reader(readers: tuple[Read, ...], natives: Sequence[Native]) -> Images:
    """Return what reads images of these columns: compiled where that was built."""
    extension = compiled("schemas._images")
    if extension is None:
        return _Plain(readers)
    found: Images = extension.ImageReader(tuple(natives), readers)
    return found


def packed(event: RowsEvent, images: Images) -> list[bytes]:
    """Return the rows of a whole `event`, in order, in the form "pgoutput".

    Raises `ValueError` when they do not fit the readers.
    """
    if event.width != images.width or not images.width:
        raise ValueError(f"{event.width} columns where the table has {images.width}")
    try:
        return images.packed(event.kind, event.data)
    except (IndexError, struct.error):
        raise ValueError(f"a row ends behind its {len(event.data)} bytes") from None


class _Plain:
    """The readable reader."""

    def __init__(self, readers: tuple[Read, ...]) -> None:
        self.width = len(readers)
        self._readers = readers

    def packed(self, kind: bytes, data: bytes) -> list[bytes]:
        at, out = 0, []
        head = kind + (b"N" if kind == b"I" else b"O") + struct.pack(">H", self.width)
        middle = b"N" + struct.pack(">H", self.width)
        while at < len(data):
            parts = [head]
            at = self._image(data, at, parts)
            if kind == b"U":
                parts.append(middle)
                at = self._image(data, at, parts)
            out.append(b"".join(parts))
        return out

    def _image(self, data: bytes, at: int, parts: list[bytes]) -> int:
        """Append the cells of one image and return the offset behind it."""
        size = (self.width + 7) // 8
        nulls = int.from_bytes(data[at : at + size], "little")
        at += size
        append = parts.append
        for read in self._readers:
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
