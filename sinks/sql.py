"""What targets that speak SQL share: lines of COPY text, and the order foreign keys ask for."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeVar

from schemas.change import Cell
from schemas.forms import read_copy

__all__ = ["cells_of", "escaped", "line_of", "parents_first"]

_T = TypeVar("_T", bound=Hashable)

_UNSAFE = re.compile(rb"[\\\b\f\n\r\t\v]")
_ESCAPED = {
    b"\\": b"\\\\",
    b"\b": b"\\b",
    b"\f": b"\\f",
    b"\n": b"\\n",
    b"\r": b"\\r",
    b"\t": b"\\t",
    b"\v": b"\\v",
}


def escaped(cell: bytes) -> bytes:
    """Return a cell as a field of COPY text.

    Source: PostgreSQL 18 manual, "COPY, Text Format".
    """
    if _UNSAFE.search(cell) is None:
        return cell
    return _UNSAFE.sub(lambda found: _ESCAPED[found[0]], cell)


def line_of(row: Sequence[Cell]) -> bytes:
    """Return a row as COPY text: its fields joined by tabs, without a newline.

    Every cell is searched, whatever its type: a cast leaves text as it is, and what COPY would
    take for the end of a line or a field must not come from a value. Raises `TypeError` for a row
    with an absent value: the caller then takes the longer way.
    """
    search = _UNSAFE.search
    cells: Any = row  # an absent value is none that a pattern can be looked for in
    return b"\t".join(
        b"\\N" if cell is None else cell if search(cell) is None else escaped(cell)
        for cell in cells
    )


def cells_of(line: bytes) -> list[Cell]:
    """Return the row that `line_of` was given."""
    return list(read_copy(line).after or ())


def parents_first(tables: Iterable[_T], parents: Mapping[_T, Iterable[_T]]) -> list[_T]:
    """Return `tables` so that each comes after those its foreign keys point to.

    Tables whose foreign keys form a circle come in the order given.
    """
    given = list(tables)
    known = set(given)
    graph = {t: [p for p in parents.get(t, ()) if p != t and p in known] for t in given}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError:
        return given
