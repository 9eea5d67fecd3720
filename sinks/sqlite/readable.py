"""A table of a SQLite file as `cdc verify` reads it, in a connection that cannot write."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from cdc.errors import TargetUnavailable
from cdc.verify.readable import NULL_MARK, NotThere, Piece, Row, Wanted, lines_of
from schemas.floats import float64_text
from schemas.forms import copy_line
from sinks.sqlite.catalog import Catalog, table_name
from sinks.sqlite.files import BUSY_S, named_errors, quoted
from sinks.sqlite.values import binder

__all__ = ["SqliteTable"]

_AT_ONCE = 500
"""Keys of one statement, which takes 32,766 values at most."""

_TEXTS: dict[type, Callable[[Any], bytes | None]] = {
    type(None): lambda _: None,
    int: lambda value: b"%d" % value,
    float: float64_text,
    str: str.encode,
    bytes: lambda value: b"\\x" + value.hex().encode(),
}
"""Class of a stored value → its text, whatever the column is."""


def _text(value: Any) -> bytes | None:
    return _TEXTS[type(value)](value)


def _truth(value: Any) -> bytes | None:
    return (b"f", b"t")[value] if value in (0, 1) else _text(value)


def _moment(value: Any) -> bytes | None:
    """Leave out of the zone what `sinks.sqlite.values` added."""
    text = _text(value)
    return text[:-3] if text is not None and text.endswith(b"+00:00") else text


_READERS = {"boolean": _truth, "timestamptz": _moment}


_FLOATS = ("float32", "float64")
"""Types whose texts SQLite prints otherwise than anybody else."""
_WHOLE = ("boolean", "int16", "int32", "int64")


def _joined(names: Sequence[str], kinds: Sequence[str]) -> str:
    """Return the SQL of all rows as one text, and what proves that it can be taken apart again.

    The columns have such logical types, none of which is a float: the text, how many rows, how many
    values are NULL, and how many are of a class that such a column does not hold.
    """
    columns = [(quoted(name), kind) for name, kind in zip(names, kinds, strict=True)]
    cells = [f"ifnull({_cell(name, kind)}, '{NULL_MARK}')" for name, kind in columns]
    nulls = " + ".join(f"({name} IS NULL)" for name, _ in columns)
    strange = " + ".join(_strange(name, kind) for name, kind in columns)
    line = " || '\t' || ".join(cells)
    return f"group_concat({line}, '\n'), count(*), total({nulls}), total({strange})"


def _cell(name: str, kind: str) -> str:
    if kind == "boolean":
        return f"CASE {name} WHEN 1 THEN 't' WHEN 0 THEN 'f' ELSE {name} END"
    if kind == "timestamptz":
        short = f"substr({name}, 1, length({name}) - 3)"
        return f"CASE WHEN substr({name}, -6) = '+00:00' THEN {short} ELSE {name} END"
    return f"'\\x' || lower(hex({name}))" if kind == "bytes" else name


def _strange(name: str, kind: str) -> str:
    """Numbers sort before texts, and these before blobs."""
    if kind == "bytes":
        return f"({name} < x'')"
    return f"({name} >= x'')" if kind in _WHOLE else f"({name} < '' OR {name} >= x'')"


class SqliteTable:
    """See `cdc.verify.readable.Readable` and `Lined`."""

    engine = "sqlite"

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self._path, self._wanted = path, wanted
        self._name = table_name(wanted.table)
        self._bind = [binder(kind) for kind in wanted.kinds[: wanted.key]]
        self._read = [_READERS.get(kind.logical, _text) for kind in wanted.kinds]
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the file, which has to be there."""
        self.close()
        if not self._path.exists():
            raise NotThere(f"there is no file {self._path}")
        with named_errors(self._path):
            self._connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode=ro",
                uri=True,
                timeout=BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
            found = Catalog(self._connection).read(self._wanted.table)
        if found is None:
            raise NotThere(f"there is no table {self._name}")
        missing = [name for name in self._wanted.columns if found.column(name) is None]
        if missing:
            raise NotThere(f"{self._name} has no column {', '.join(missing)}")

    def close(self) -> None:
        """Let go of the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def types(self) -> Sequence[str]:
        """Return nothing that another engine would spell alike."""
        return ["" for _ in self._wanted.columns]

    def rows(self, piece: Piece) -> Iterator[Row]:
        """Yield the rows of a piece."""
        where, values = self._within(piece)
        yield from self._select(where, values)

    def lines(self, piece: Piece) -> Sequence[bytes]:
        """Return the rows of a piece, joined by SQLite and fetched as one text."""
        kinds = [kind.logical for kind in self._wanted.kinds]
        lines = None if any(kind in _FLOATS for kind in kinds) else self._joined(kinds, piece)
        return [copy_line(row)[:-1] for row in self.rows(piece)] if lines is None else lines

    def _joined(self, kinds: Sequence[str], piece: Piece) -> list[bytes] | None:
        """Return the lines of a piece, None when the text cannot be taken apart, or is too long."""
        where, values = self._within(piece)
        columns = _joined(self._wanted.columns, kinds)
        query = f"SELECT {columns} FROM {quoted(self._name)}{where}"  # noqa: S608 - quoted
        with named_errors(self._path):
            try:
                [(text, rows, nulls, strange)] = self._live().execute(query, values)
            except sqlite3.DataError:
                return None
        if strange:
            return None
        return lines_of((text or "").encode(), rows, len(kinds), int(nulls))

    def _within(self, piece: Piece) -> tuple[str, list[Any]]:
        marks = self._marks()
        sides = [(">", piece.after), ("<=", piece.upto)]
        given = [(sign, bound) for sign, bound in sides if bound is not None]
        where = " AND ".join(f"({self._key()}) {sign} {marks}" for sign, _ in given)
        values = [value for _, bound in given for value in self._bound(bound)]
        return (f" WHERE {where}" if where else "", values)

    def find(self, keys: Sequence[Row]) -> Iterator[Row]:
        """Yield the rows of some keys."""
        for first in range(0, len(keys), _AT_ONCE):
            some = keys[first : first + _AT_ONCE]
            listed = ", ".join([self._marks()] * len(some))
            values = [value for key in some for value in self._bound(key)]
            yield from self._select(f" WHERE ({self._key()}) IN (VALUES {listed})", values)

    def _select(self, where: str, values: Sequence[Any]) -> Iterator[Row]:
        names = ", ".join(map(quoted, self._wanted.columns))
        query = f"SELECT {names} FROM {quoted(self._name)}{where}"  # noqa: S608 - quoted
        with named_errors(self._path), closing(self._live().cursor()) as cursor:
            for row in cursor.execute(query, values):
                yield tuple([read(cell) for read, cell in zip(self._read, row, strict=True)])

    def _live(self) -> sqlite3.Connection:
        if self._connection is None:
            raise TargetUnavailable(f"{self._path} is closed")
        return self._connection

    def _key(self) -> str:
        return ", ".join(map(quoted, self._wanted.columns[: self._wanted.key]))

    def _marks(self) -> str:
        return f"({', '.join('?' * self._wanted.key)})"

    def _bound(self, key: Row) -> Iterator[Any]:
        for cell, bind in zip(key, self._bind, strict=True):
            text = None if cell is None else cell.decode()
            yield text if text is None or bind is None else bind(text)
