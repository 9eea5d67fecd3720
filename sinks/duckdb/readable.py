"""A table of a DuckDB file as `cdc verify` reads it: joined to one text for each range.

The file is open for one question at a time, so that the sink gets it in between; while another
process has it, it is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cdc.verify.readable import NULL_MARK, NotThere, Piece, Row, Wanted, cells_of, lines_of
from schemas.forms import copy_line
from sinks.duckdb import catalog
from sinks.duckdb.files import File, quoted
from sinks.duckdb.values import form_of

__all__ = ["DuckdbTable"]

_AT_ONCE = 500
"""Keys of one query."""


class DuckdbTable:
    """See `cdc.verify.readable.Readable` and `Lined`."""

    engine = "duckdb"

    def __init__(self, path: Path, memory_limit: str, wanted: Wanted) -> None:
        self._path, self._wanted = path, wanted
        self._file = File(path, memory_limit)
        self._name = ""
        self._cells: list[str] = []

    def open(self) -> None:
        """Look the table up in the file, which has to be there."""
        if not self._path.exists():
            raise NotThere(f"there is no file {self._path}")
        with self._file.used() as connection:
            found = catalog.read(connection, self._wanted.table)
        table = catalog.table_name(self._wanted.table)
        if found is None:
            raise NotThere(f"there is no table {table}")
        there = [found.column(name) for name in self._wanted.columns]
        missing = [n for n, c in zip(self._wanted.columns, there, strict=True) if c is None]
        if missing:
            raise NotThere(f"{table} has no column {', '.join(missing)}")
        self._name = found.quoted
        self._cells = [_cell(quoted(c.name), c.type) for c in there if c is not None]

    def close(self) -> None:
        """Nothing stays open."""

    def types(self) -> Sequence[str]:
        """Return nothing that another engine would spell alike."""
        return ["" for _ in self._wanted.columns]

    def rows(self, piece: Piece) -> Iterator[Row]:
        """Yield the rows of a piece."""
        return map(cells_of, self._read(self._within(piece)))

    def lines(self, piece: Piece) -> Sequence[bytes]:
        """Return the rows of a piece, joined by DuckDB where that can be taken apart."""
        where = self._within(piece)
        columns = [quoted(name) for name in self._wanted.columns]
        nulls = " + ".join(f"({name} IS NULL)::int" for name in columns)
        cells = ", ".join(f"ifnull({cell}, '{NULL_MARK}')" for cell in self._cells)
        joined = f"string_agg(concat_ws('\t', {cells}), '\n'), count(*), sum({nulls})"
        query = f"SELECT {joined} FROM {self._name}{where}"  # noqa: S608 - quoted
        [(text, count, empty)] = self._ask(query)
        lines = lines_of((text or "").encode(), count, len(columns), int(empty or 0))
        return list(self._read(where)) if lines is None else lines

    def find(self, keys: Sequence[Row]) -> Iterator[Row]:
        """Yield the rows of some keys."""
        for first in range(0, len(keys), _AT_ONCE):
            listed = ", ".join(map(self._values, keys[first : first + _AT_ONCE]))
            yield from map(cells_of, self._read(f" WHERE {self._key()} IN ({listed})"))

    def _read(self, where: str) -> Iterator[bytes]:
        """Yield the rows' lines, every cell escaped."""
        query = f"SELECT {', '.join(self._cells)} FROM {self._name}{where}"  # noqa: S608 - quoted
        for row in self._ask(query):
            yield copy_line([None if cell is None else cell.encode() for cell in row])[:-1]

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        with self._file.used() as connection:
            return connection.execute(query).fetchall()

    def _within(self, piece: Piece) -> str:
        sides = [(">", piece.after), ("<=", piece.upto)]
        where = [f"{self._key()} {sign} {self._values(key)}" for sign, key in sides if key]
        return f" WHERE {' AND '.join(where)}" if where else ""

    def _key(self) -> str:
        return f"({', '.join(map(quoted, self._wanted.columns[: self._wanted.key]))})"

    def _values(self, key: Row) -> str:
        """Return a key as SQL, its cells read as the sink reads them."""
        return "(" + ", ".join(map(self._value, range(len(key)), key)) + ")"

    def _value(self, place: int, cell: bytes | None) -> str:
        if cell is None:
            return "NULL"
        field = copy_line([cell])[:-1].decode().replace("'", "''")
        return form_of(self._wanted.kinds[place]).expression(f"'{field}'")


def _cell(name: str, storage: str) -> str:
    """Return the SQL of a column's text, as PostgreSQL writes its values."""
    if storage == "BLOB":
        return f"'\\x' || lower(hex({name}))"
    if storage == "BOOLEAN":
        return f"CASE WHEN {name} THEN 't' WHEN NOT {name} THEN 'f' END"
    if storage in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        return f"replace({name}::VARCHAR, ' (BC)', ' BC')"
    return f"{name}::VARCHAR"
