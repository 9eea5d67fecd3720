"""What targets that speak SQL share: lines of COPY text, and the order foreign keys ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

from schemas.change import Cell
from schemas.table import TableSchema

__all__ = ["line_writer", "parents_first"]

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
_PLAIN = frozenset(
    {
        "boolean",
        "int16",
        "int32",
        "int64",
        "float32",
        "float64",
        "decimal",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "uuid",
    }
)
"""Logical types whose text never holds a character that COPY escapes."""


def _escape(cell: bytes) -> bytes:
    if _UNSAFE.search(cell) is None:
        return cell
    return _UNSAFE.sub(lambda found: _ESCAPED[found[0]], cell)


def line_writer(schema: TableSchema) -> Callable[[Sequence[Cell]], bytes]:
    """Return rows of `schema` → fields of COPY text, joined by tabs, without a newline.

    Raises `TypeError` for a row with an absent value: the caller then takes the longer way.
    Source: PostgreSQL 18 manual, "COPY, Text Format".
    """
    texts = [n for n, column in enumerate(schema.columns) if column.type.logical not in _PLAIN]
    search = _UNSAFE.search

    def write(row: Sequence[Cell]) -> bytes:
        cells = [b"\\N" if cell is None else cell for cell in row]
        for place in texts:
            cell = row[place]
            if cell is not None and search(cell) is not None:  # type: ignore[arg-type]
                cells[place] = _escape(cell)  # type: ignore[arg-type]
        return b"\t".join(cells)  # type: ignore[arg-type]

    return write


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
