r"""Rows → a temporary table whose columns have the types they are stored with.

    lines of COPY text ─▶ one parameter ─▶ split ─▶ cast ─▶ temp table (c0, c1, …)
                                                      └─ `wrong`: the first field that is no value

All rows of a step travel as one text and are split and cast by DuckDB, a vector of rows at a time:
2 µs of CPU for a row of ten columns, where binding its values one by one takes 10 (measured). A
field that is none of its type is found here, before a table is touched, with its row.
"""

# ruff: noqa: S608 - names are ours, values are bound

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.change import Cell
from schemas.table import Column
from sinks.duckdb.files import Connection
from sinks.duckdb.values import Form
from sinks.sql import cells_of

__all__ = ["Field", "Staging", "Wrong"]

_SHOWN = 100
"""Characters of a refused value in the reason."""


class Field(msgspec.Struct, frozen=True):
    """A field of the lines: the column it is of, its form, and its name in the temporary table."""

    name: str
    column: Column
    form: Form


class Wrong(msgspec.Struct, frozen=True):
    """A row with a field that is no value of its column."""

    cells: Sequence[Cell]
    reason: str


class Staging:
    """A temporary table for lines of the same fields."""

    def __init__(self, name: str, fields: Sequence[Field]) -> None:
        self.name = name
        self._fields = fields
        values = [f"{f.form.expression(_field(n))} AS {f.name}" for n, f in enumerate(fields)]
        checks = [
            rf"WHEN {f.name} IS NULL AND {_field(n)} <> '\N' THEN {n}"
            for n, f in enumerate(fields)
            if not f.form.takes_all
        ]
        wrong = f"CASE {' '.join(checks)} END" if checks else "NULL::INTEGER"
        self._rows = (
            f"(SELECT *, {wrong} AS wrong FROM "
            f"(SELECT line, f, {', '.join(values)} FROM "
            "(SELECT line, string_split(line, chr(9)) AS f FROM "
            "(SELECT unnest(string_split(?, chr(10))) AS line))))"
        )
        names = ", ".join(f.name for f in fields)
        self._create = f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT {names}, wrong FROM "

    def fill(self, connection: Connection, lines: Sequence[bytes]) -> list[Wrong]:
        """Stage `lines`, at least one; return those that are not to be used."""
        text = b"\n".join(lines).decode()
        connection.execute(self._create + self._rows, [text])
        count = connection.execute(f"SELECT count(wrong) FROM {self.name}").fetchall()
        if count == [(0,)]:
            return []
        query = f"SELECT line, wrong FROM {self._rows} WHERE wrong IS NOT NULL"
        found = connection.execute(query, [text]).fetchall()
        return [self._wrong(line, place) for line, place in found]

    def _wrong(self, line: str, place: int) -> Wrong:
        cells, column = cells_of(line.encode()), self._fields[place].column
        cell = cells[place]
        shown = cell.decode()[:_SHOWN] if isinstance(cell, bytes) else ""
        return Wrong(cells, f"{column.name} takes no such {column.type.logical}: {shown!r}")

    def drop(self, connection: Connection) -> None:
        """Free what it holds."""
        connection.execute(f"DROP TABLE IF EXISTS {self.name}")


def _field(place: int) -> str:
    return f"f[{place + 1}]"
