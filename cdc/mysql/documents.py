"""The JSON columns of updates that log only the changed parts of a document.

Under `binlog_row_value_options = PARTIAL_JSON` a new row begins with options and a bit per JSON
column; where it is set, there are changes instead of a document, to be made in that of the old row.
Where the old row has no such column (`binlog_row_image` MINIMAL and NOBLOB) nobody can tell from
the log what the document is now: it is then `UNTOLD`, and read again by its key (R6).

Source: MySQL 9.7 `sql/rpl_record.cc` (unpack_row), `sql/log_event.h` (Partial_update_rows).
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from cdc.decode.binlogevents import Reader
from cdc.decode.mysqljson import changed
from cdc.decode.mysqlvalues import Read
from schemas.change import UNREADABLE

__all__ = ["UNTOLD", "Documents"]

UNTOLD = UNREADABLE + b"changes of a JSON document that was not logged"
"""Stands for such a document until it has been read; whoever encodes refuses it."""

_WIDE = 4
"""Bytes of a document's length."""
_OPTIONS = 9
"""Bytes that options may have, at most."""


class Documents:
    """What reads old and new rows in turn: `before` remembers documents, `after` changes them.

    `readers` are those of all columns, `places` the JSON ones; `logged` are places an old row has.
    """

    def __init__(
        self, readers: tuple[Read, ...], places: AbstractSet[int], logged: AbstractSet[int]
    ) -> None:
        self._places = sorted(places)
        self._logged = logged
        self._read: dict[int, bytes] = {}
        self._there: dict[int, bytes] = {}
        self._partly: frozenset[int] = frozenset()
        self.before = tuple(
            self._remembering(place, read) if place in places else read
            for place, read in enumerate(readers)
        )
        self.after = tuple(
            self._changing(place, read) if place in places else read
            for place, read in enumerate(readers)
        )

    def begin(self, data: bytes, at: int) -> int:
        """Read what the new row at `at` begins with; return the offset behind it.

        Raises `ValueError` for options that are not known.
        """
        self._there, self._read = self._read, {}
        reader = Reader(data[at : at + _OPTIONS])
        options = reader.packed()
        if options not in (0, 1):
            raise ValueError(f"options {options:#x} of a row are not known")
        start = at + reader.at
        end = start + (len(self._places) + 7) // 8 if options else start
        bits = int.from_bytes(data[start:end], "little")
        self._partly = frozenset(
            place for index, place in enumerate(self._places) if bits >> index & 1
        )
        return end

    def _remembering(self, place: int, read: Read) -> Read:
        def remembering(data: bytes, at: int) -> tuple[bytes, int]:
            text, end = read(data, at)
            self._read[place] = data[at + _WIDE : end]
            return text, end

        return remembering

    def _changing(self, place: int, read: Read) -> Read:
        def changing(data: bytes, at: int) -> tuple[bytes, int]:
            if place not in self._partly:
                return read(data, at)
            start = at + _WIDE
            end = start + int.from_bytes(data[at:start], "little")
            if place not in self._logged:
                return UNTOLD, end
            if place not in self._there:
                raise ValueError("changes of a JSON document that was not there")
            return changed(self._there[place], data[start:end]), end

        return changing
