"""What a target is to hold: the rows of a source as a sink's mapping makes them.

The same columns, filter and functions as in `sinks/decode.py`, over the source's rows instead of
its changes. A row that the mapping cannot make is a dead letter there; here it is one that no row
of the target equals, with the reason as its last cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from cdc.columns import Mask
from cdc.errors import DataError
from cdc.verify.readable import Piece, ReadableSource, Row
from schemas.change import Cell
from schemas.table import Column
from sinks.binding import MappedTable
from sinks.fields import MappedColumn

__all__ = ["Expected", "View"]

_Make = Callable[[Row], Cell]


class View(msgspec.Struct):
    """A mapping as rows are compared: the target's columns in `order`, `width` of them its key.

    Each of these key columns is one of the source's, unchanged.
    """

    table: MappedTable
    order: Sequence[MappedColumn]
    width: int

    @property
    def names(self) -> tuple[str, ...]:
        """The target's columns."""
        return tuple(mapped.column.name for mapped in self.order)

    @property
    def sources(self) -> tuple[str, ...]:
        """The source's columns: what the target's are made of first, each once, then the rest."""
        made_of = [mapped.source.name for mapped in self.order if mapped.source is not None]
        every = [column.name for column in self.table.source.columns]
        return tuple(dict.fromkeys([*made_of, *every]))

    @property
    def copies(self) -> bool:
        """Whether each target column is a source column as it is, and no row is left out."""
        plain = all(m.source is not None and m.convert is None for m in self.order)
        return plain and self.table.copies


class Expected:
    """A source's rows behind a mapping; `source` reads the columns `view.sources`.

    `masks` hide values as the source does before Kafka.
    """

    def __init__(self, source: ReadableSource, view: View, masks: Mapping[str, Mask]) -> None:
        self._source, self.engine = source, source.engine
        self._order = view.order
        self._masks = [masks.get(name) for name in view.sources]
        self._hides = any(mask is not None for mask in self._masks)
        self._places = {name: place for place, name in enumerate(view.sources)}
        self._where = view.table.where
        self._width = view.width
        self._make = [self._maker(mapped) for mapped in view.order]

    def open(self) -> None:
        """Connect."""
        self._source.open()

    def close(self) -> None:
        """Let go of the connection."""
        self._source.close()

    def types(self) -> Sequence[str]:
        """Return the types of columns that are as they were; what is made has none."""
        types = self._source.types()
        return [
            types[self._places[m.source.name]] if m.source is not None and m.convert is None else ""
            for m in self._order
        ]

    def rows(self, piece: Piece) -> Iterator[Row]:
        """Yield the rows a target is to have in a piece."""
        return filter(None, map(self._row, self._source.rows(piece)))

    def find(self, keys: Sequence[Row]) -> Iterator[Row]:
        """Yield the rows a target is to have for some keys."""
        return filter(None, map(self._row, self._source.find(keys)))

    def _row(self, row: Row) -> Row | None:
        if self._hides:
            cells = zip(row, self._masks, strict=True)
            row = tuple([c if mask is None or c is None else mask(c) for c, mask in cells])
        try:
            if not self._wants(row):
                return None
            return tuple([make(row) for make in self._make])  # type: ignore[misc]
        except DataError as error:
            return (*row[: self._width], str(error).encode())

    def _wants(self, row: Row) -> bool:
        if self._where is None:
            return True
        found = self._where.value(self._cells(row, self._where.columns))
        if not isinstance(found, bool):
            raise DataError(f"{self._where.place}: `{self._where.text}` is neither true nor false")
        return found

    def _cells(self, row: Row, names: Sequence[str]) -> dict[str, Cell]:
        return {name: row[self._places[name]] for name in names}

    def _maker(self, mapped: MappedColumn) -> _Make:
        compute, convert = mapped.compute, mapped.convert
        if compute is not None:
            return lambda row: compute.cell(self._cells(row, compute.columns))
        if mapped.source is None:
            fixed = convert(b"") if convert is not None else None
            return lambda _: fixed
        return self._copier(mapped.source, convert)

    def _copier(self, column: Column, convert: Callable[[bytes], bytes | None] | None) -> _Make:
        place = self._places[column.name]
        if convert is None:
            return lambda row: row[place]

        def make(row: Row) -> Cell:
            cell = row[place]
            return None if cell is None else convert(cell)

        return make
