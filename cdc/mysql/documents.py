"""Updates that log only the changed parts of JSON documents → rows in the tuple form of plans.

Under `binlog_row_value_options = PARTIAL_JSON` a new row begins with options and a bit per JSON
column; where it is set, there are changes instead of a document, to be made in that of the old row.

Source: MySQL 9.7 `sql/rpl_record.cc` (unpack_row), `sql/log_event.h` (Partial_update_rows).
"""

from __future__ import annotations

import struct
from collections.abc import Set as AbstractSet

from cdc.decode.binlogevents import Reader, RowsEvent
from cdc.decode.mysqljson import changed
from cdc.decode.mysqlvalues import Read

__all__ = ["packed_documents"]

_WIDE = 4
"""Bytes of a document's length."""


def packed_documents(
    event: RowsEvent, readers: tuple[Read, ...], documents: AbstractSet[int]
) -> list[bytes]:
    """Return the rows of an update in the form "pgoutput"; `documents` are JSON columns' places.

    Raises `ValueError` when they do not fit.
    """
    if event.width != len(readers) or not readers:
        raise ValueError(f"{event.width} columns where the table has {len(readers)}")
    data, at, out = event.data, 0, []
    image = _Image(readers, documents)
    try:
        while at < len(data):
            before, at = image.old(data, at)
            after, at = image.new(data, at)
            out.append(b"".join([b"U", *_tuple(b"O", before), *_tuple(b"N", after)]))
    except (IndexError, struct.error):
        raise ValueError(f"a row ends behind its {len(data)} bytes") from None
    if at != len(data):
        raise ValueError(f"the rows end at byte {at} of {len(data)}")
    return out


def _tuple(kind: bytes, cells: list[bytes]) -> list[bytes]:
    return [kind, struct.pack(">H", len(cells)), *cells]


def _cell(text: bytes) -> bytes:
    return b"t" + struct.pack(">I", len(text)) + text


class _Image:
    """Reads old and new images in turn; changes are made in the old one's documents."""

    def __init__(self, readers: tuple[Read, ...], documents: AbstractSet[int]) -> None:
        self._readers = readers
        self._documents = documents
        self._before: dict[int, bytes] = {}

    def old(self, data: bytes, at: int) -> tuple[list[bytes], int]:
        """Return the cells of an image and the offset behind it."""
        self._before = {}
        return self._cells(data, at, 0)

    def new(self, data: bytes, at: int) -> tuple[list[bytes], int]:
        """Return the same of one that begins with its options."""
        reader = Reader(data[at : at + 9])
        options = reader.packed()
        if options not in (0, 1):
            raise ValueError(f"options {options:#x} of a row are not known")
        at += reader.at
        size = (len(self._documents) + 7) // 8 if options else 0
        partly = int.from_bytes(data[at : at + size], "little")
        return self._cells(data, at + size, partly)

    def _cells(self, data: bytes, at: int, partly: int) -> tuple[list[bytes], int]:
        size = (len(self._readers) + 7) // 8
        nulls = int.from_bytes(data[at : at + size], "little")
        at += size
        cells = []
        for place, read in enumerate(self._readers):
            part = place in self._documents and partly & 1
            partly >>= place in self._documents
            if nulls >> place & 1:
                cells.append(b"n")
                continue
            if part:
                text, at = self._changed(place, data, at)
            else:
                start = at
                text, at = read(data, at)
                if place in self._documents:
                    self._before[place] = data[start + _WIDE : at]
            cells.append(_cell(text))
        if at > len(data):
            raise IndexError
        return cells, at

    def _changed(self, place: int, data: bytes, at: int) -> tuple[bytes, int]:
        start = at + _WIDE
        end = start + int.from_bytes(data[at:start], "little")
        if place not in self._before:
            raise ValueError("changes of a JSON document that was not there")
        return changed(self._before[place], data[start:end]), end
