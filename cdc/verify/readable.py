"""What `cdc verify` asks of a database, on whichever side of the pipeline it is.

A connector offers `readable(context, config, wanted)`. Cells are the text a source reads them as
(`schemas/change.py`), None for NULL; rows begin with their key. A table without a key is read as
one whose key is the hash of a row and whose only other column is how many of these there are.

Ranges need no order that both sides share. Each side puts a row into the range its own order says;
a row is in at least one of them on either side, so a row that differs makes some range differ, and
keys that only lie in different ranges are found equal when they are looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from cdc.errors import PreflightFailed
from schemas.change import ABSENT
from schemas.forms import read_copy
from schemas.table import TableId, Type

__all__ = [
    "NULL_MARK",
    "Hashing",
    "Lined",
    "NotThere",
    "Piece",
    "Readable",
    "ReadableSource",
    "Row",
    "Sums",
    "Wanted",
    "cells_of",
    "lines_of",
]

Row = tuple[bytes | None, ...]
"""Cells in the order of `Wanted.columns`, or of its key alone."""


class NotThere(PreflightFailed):
    """The table is not there, or a column of it."""


class Wanted(msgspec.Struct, frozen=True):
    """What to read of a table: columns by name, of which the first `key` are its key.

    `kinds` are the types of the columns as they travel: what the texts of a key are.
    """

    table: TableId
    columns: tuple[str, ...]
    key: int
    kinds: tuple[Type, ...] = ()


class Piece(msgspec.Struct, frozen=True):
    """Rows whose key is behind `after` and not behind `upto`; None is without a bound."""

    after: Row | None = None
    upto: Row | None = None


class Sums(msgspec.Struct, frozen=True):
    """How many rows a piece has, and the sum of their hashes."""

    rows: int
    checksum: str


def cells_of(line: bytes) -> Row:
    """Return the cells of a line of COPY text."""
    if b"\\" not in line:
        return tuple(line.split(b"\t"))
    return tuple([cell for cell in read_copy(line).after or () if cell is not ABSENT])


NULL_MARK = "\x01"
"""What stands for NULL in rows that a server joined to one text."""


def lines_of(text: bytes, rows: int, columns: int, nulls: int) -> list[bytes] | None:
    """Return the lines of rows that a server joined: cells by tabs, rows by newlines.

    The server has escaped nothing. None where a cell has a tab, a newline or `NULL_MARK` in it, of
    which there are `nulls`: then nobody can tell where the cells end.
    """
    if not rows:
        return []
    mark = NULL_MARK.encode()
    if (text.count(b"\t"), text.count(b"\n")) != (rows * (columns - 1), rows - 1):
        return None
    if text.count(mark) != nulls:
        return None
    return text.replace(b"\\", b"\\\\").replace(mark, b"\\N").split(b"\n")


class Readable(Protocol):
    """One table. Every method may raise `errors.Unavailable` or `errors.Stop`; one thread."""

    engine: str

    def open(self) -> None:
        """Connect. Raises `NotThere`."""
        ...

    def types(self) -> Sequence[str]:
        """Return the columns' types, as the engine spells them."""
        ...

    def rows(self, piece: Piece) -> Iterator[Row]:
        """Yield the rows of a piece, in no order."""
        ...

    def find(self, keys: Sequence[Row]) -> Iterator[Row]:
        """Yield the rows that have one of `keys`."""
        ...

    def close(self) -> None:
        """Let go of the connection; safe to call twice."""
        ...


@runtime_checkable
class Hashing(Protocol):
    """A side whose server sums rows up: equal rows of equal types give equal hashes anywhere."""

    def sums(self, piece: Piece) -> Sums:
        """Return the sums of a piece."""
        ...

    def hashes(self, piece: Piece) -> Iterator[tuple[Row, bytes | None]]:
        """Yield the key and the hash of each row of a piece."""
        ...


@runtime_checkable
class Lined(Protocol):
    """A side that gives many rows at once, each as a line: what is equal need not be split."""

    def lines(self, piece: Piece) -> Sequence[bytes]:
        """Return the rows of a piece as COPY text without newlines, in no order.

        Lines that are equal are equal rows. A value may be spelled otherwise than in `rows`, where
        the form of its type (`cdc/verify/forms.py`) makes both the same.
        """
        ...


@runtime_checkable
class ReadableSource(Readable, Protocol):
    """A table of a source: it says how the table is cut, and where its log stands."""

    def estimate(self) -> int:
        """Return about how many rows there are."""
        ...

    def pieces(self, rows: int) -> Iterator[Piece]:
        """Cut the table into pieces of about `rows` rows."""
        ...

    def here(self) -> Any:
        """Return a place of the log behind everything that any read has seen so far."""
        ...

    def has_passed(self, position: dict[str, Any], here: Any) -> bool:
        """Tell whether a stored position of this source has everything up to `here`."""
        ...

    def condition(self, keys: Sequence[Row]) -> str:
        """Return the condition for the rows of `keys`, as `cdc backfill --where` takes it."""
        ...
