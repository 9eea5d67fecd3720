"""Which folder a row lies in: that of its table, then of its time, then of a value, as Hive has it.

shop.orders/cdc_day=2026-01-31/country=NL/…
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote

from cdc.errors import SchemaIncompatible
from schemas.change import Cell
from schemas.table import TableSchema

__all__ = ["By", "Folders"]

By = Literal["month", "day", "hour"]

_LENGTHS: dict[By, int] = {"month": 7, "day": 10, "hour": 13}
"""How much of `2026-01-31 08:00:00+00` names the folder."""
_NULL = "__HIVE_DEFAULT_PARTITION__"


class Folders:
    """The folders of one sink: `time` of the source's commit, and the value of `column`."""

    def __init__(self, time: By | None, column: str | None) -> None:
        self._time = time
        self._column = column
        self._places: dict[TableSchema, tuple[int, int]] = {}

    def bind(self, schema: TableSchema) -> None:
        """Look for the columns. Raises `errors.SchemaIncompatible` where one is missing."""
        names = [column.name for column in schema.columns]
        if self._column is not None and self._column not in names:
            raise SchemaIncompatible(
                f"{schema.table} has no column {self._column} to make folders of",
                hint="Map one of that name, or take the table with a sink of its own.",
            )
        place = 0 if self._column is None else names.index(self._column)
        self._places[schema] = (names.index("cdc_at"), place)

    def of(self, schema: TableSchema, row: Sequence[Cell]) -> str:
        """Return the folder of a row."""
        if schema not in self._places:
            self.bind(schema)
        at, place = self._places[schema]
        parts = [quote(str(schema.table), safe=" ")]
        if self._time is not None:
            length = _LENGTHS[self._time]
            parts.append(f"cdc_{self._time}={_named(row[at], length).replace('%20', 'T')}")
        if self._column is not None:
            parts.append(f"{quote(self._column, safe='')}={_named(row[place], None)}")
        return "/".join(parts)


def _named(cell: Cell, length: int | None) -> str:
    return quote(cell.decode()[:length], safe="") if isinstance(cell, bytes) and cell else _NULL
