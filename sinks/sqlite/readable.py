"""A table of a SQLite file as `cdc verify` reads it, in a connection that cannot write."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from cdc.errors import TargetUnavailable
from cdc.verify.readable import NotThere, Piece, Row, Wanted
from schemas.floats import float64_text
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


class SqliteTable:
    """See `cdc.verify.readable.Readable`."""

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
        marks = self._marks()
        sides = [(">", piece.after), ("<=", piece.upto)]
        given = [(sign, bound) for sign, bound in sides if bound is not None]
        where = " AND ".join(f"({self._key()}) {sign} {marks}" for sign, _ in given)
        values = [value for _, bound in given for value in self._bound(bound)]
        yield from self._select(f" WHERE {where}" if where else "", values)

    def find(self, keys: Sequence[Row]) -> Iterator[Row]:
        """Yield the rows of some keys."""
        for first in range(0, len(keys), _AT_ONCE):
            some = keys[first : first + _AT_ONCE]
            listed = ", ".join([self._marks()] * len(some))
            values = [value for key in some for value in self._bound(key)]
            yield from self._select(f" WHERE ({self._key()}) IN (VALUES {listed})", values)

    def _select(self, where: str, values: Sequence[Any]) -> Iterator[Row]:
        if self._connection is None:
            raise TargetUnavailable(f"{self._path} is closed")
        names = ", ".join(map(quoted, self._wanted.columns))
        query = f"SELECT {names} FROM {quoted(self._name)}{where}"  # noqa: S608 - quoted
        with named_errors(self._path), closing(self._connection.cursor()) as cursor:
            for row in cursor.execute(query, values):
                yield tuple([read(cell) for read, cell in zip(self._read, row, strict=True)])

    def _key(self) -> str:
        return ", ".join(map(quoted, self._wanted.columns[: self._wanted.key]))

    def _marks(self) -> str:
        return f"({', '.join('?' * self._wanted.key)})"

    def _bound(self, key: Row) -> Iterator[Any]:
        for cell, bind in zip(key, self._bind, strict=True):
            text = None if cell is None else cell.decode()
            yield text if text is None or bind is None else bind(text)
