"""Rows events → changes: one reader per shape and set of columns, made once.

A row image has a bit for each of its columns that is NULL, then the values of the others. Columns
an image does not have are absent, not NULL (R6).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from cdc.decode.binlogevents import RowsEvent
from cdc.decode.mysqlvalues import Read
from cdc.mariadb.tables import Shape
from schemas.change import ABSENT, Cell, Change, Op

__all__ = ["changes"]

Image = Callable[[bytes, int], tuple[list[Cell], int]]


def changes(event: RowsEvent, shape: Shape) -> Iterator[Change]:
    """Yield the rows of `event`, in order. Raises `ValueError` when they do not fit `shape`."""
    if event.width != len(shape.readers):
        raise ValueError(f"{event.width} columns where the table has {len(shape.readers)}")
    before = _image(shape.readers, event.before)
    after = _image(shape.readers, event.after)
    make = {b"I": _created, b"U": _updated, b"D": _deleted}[event.kind]
    data, at = event.data, 0
    try:
        while at < len(data):
            change, at = make(data, at, before, after)
            yield change
    except (IndexError, struct.error):
        raise ValueError(f"a row ends behind its {len(data)} bytes") from None
    if at != len(data):
        raise ValueError(f"the rows end at byte {at} of {len(data)}")


def _created(data: bytes, at: int, before: Image, _: Image) -> tuple[Change, int]:
    row, at = before(data, at)
    return Change(Op.CREATE, None, row), at


def _deleted(data: bytes, at: int, before: Image, _: Image) -> tuple[Change, int]:
    row, at = before(data, at)
    return Change(Op.DELETE, row, None), at


def _updated(data: bytes, at: int, before: Image, after: Image) -> tuple[Change, int]:
    old, at = before(data, at)
    new, at = after(data, at)
    if ABSENT in new:  # what the new image leaves out has the value the old one has
        new = [was if now is ABSENT else now for was, now in zip(old, new, strict=True)]
    return Change(Op.UPDATE, old, new), at


def _image(readers: tuple[Read, ...], bitmap: bytes) -> Image:
    present = int.from_bytes(bitmap, "little")
    width = len(readers)
    places = [(place, readers[place]) for place in range(width) if present >> place & 1]
    nulls_size = (len(places) + 7) // 8
    whole = len(places) == width

    def read(data: bytes, at: int) -> tuple[list[Cell], int]:
        nulls = int.from_bytes(data[at : at + nulls_size], "little")
        at += nulls_size
        cells: list[Cell]
        if whole and not nulls:
            cells = []
            for take in readers:
                cell, at = take(data, at)
                cells.append(cell)
        else:
            cells = [ABSENT] * width
            for bit, (place, take) in enumerate(places):
                if nulls >> bit & 1:
                    cells[place] = None
                else:
                    cells[place], at = take(data, at)
        if at > len(data):
            raise IndexError
        return cells, at

    return read
