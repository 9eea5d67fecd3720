"""A table of MariaDB or MySQL as `cdc verify` reads it: rows in a source's texts, and as lines.

Lines are read as a snapshot reads them (`results.py`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import msgspec
from pymysql.cursors import SSCursor

from cdc.decode.mysqltypes import KINDS, MysqlColumn, selected
from cdc.errors import PreflightFailed
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.connection import (
    Connection,
    Login,
    connect,
    leave,
    quoted,
    unread,
    whole_guard,
)
from cdc.mariadb.dialect import Dialect
from cdc.mariadb.position import Place
from cdc.mariadb.results import lines
from cdc.mariadb.server import MariaDB
from cdc.verify.readable import NotThere, Piece, Row, Wanted, cells_of
from schemas.table import TableId

__all__ = ["MariaDBSource", "MariaDBTable"]

_INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint")
_TRUTHS = {b"t": b"1", b"true": b"1", b"f": b"0", b"false": b"0"}


class MariaDBTable:
    """See `cdc.verify.readable.Readable` and `Lined`."""

    def __init__(
        self, login: Login, place: tuple[str, str], wanted: Wanted, dialect: Dialect | None = None
    ) -> None:
        self._login, self._wanted = login, wanted
        self._dialect = dialect or MariaDB()
        self.engine = self._dialect.word
        self._table = TableId(*place)
        self._connection: Connection | None = None
        self._columns: list[MysqlColumn] = []
        self._rows = 0

    def open(self) -> None:
        """Connect and look the table up."""
        self.close()
        self._connection = connect(self._login)
        found = Catalog(self._connection, self._login, self._dialect).find(self._table)
        if found is None:
            raise NotThere(f"there is no table {self._table}")
        known = {facts.column.name.lower(): facts.column for facts in found.columns}
        missing = [name for name in self._wanted.columns if name.lower() not in known]
        if missing:
            raise NotThere(f"{self._table} has no column {', '.join(missing)}")
        self._columns = [known[name.lower()] for name in self._wanted.columns]
        self._rows = found.rows

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            leave(connection)

    def types(self) -> Sequence[str]:
        """Return nothing that another engine would spell alike."""
        return ["" for _ in self._wanted.columns]

    def rows(self, piece: Piece) -> Iterator[Row]:
        """Yield the rows of a piece; all of them come one by one, a range at once."""
        return map(cells_of, self._select(map(_cell, self._columns), self._within(piece)))

    def lines(self, piece: Piece) -> Sequence[bytes]:
        """Return the rows of a piece, in PostgreSQL's texts where the types are known."""
        kinds = [kind.logical for kind in self._wanted.kinds] or [""] * len(self._columns)
        return list(self._select(map(_cell, self._columns, kinds), self._within(piece)))

    def find(self, keys: Sequence[Row]) -> Iterator[Row]:
        """Yield the rows of some keys."""
        if not keys:
            return iter(())
        where = f" WHERE {self._among(keys)}"
        return map(cells_of, self._select(map(_cell, self._columns), where))

    # SQL

    def _select(
        self, cells: Iterable[tuple[str, MysqlColumn]], where: str, by: Connection | None = None
    ) -> Generator[bytes, None, None]:
        """Yield the lines of a query over a connection, this side's own when none is given.

        All rows of a table are read as they are wanted, those of a condition at once: the
        connection is free for others meanwhile.
        """
        table = quoted(self._table.schema, self._table.name)
        asked, columns = zip(*cells, strict=True)
        query = f"SELECT {', '.join(asked)} FROM {table}{where}"  # noqa: S608 - quoted
        with whole_guard(self._login), self._reading(SSCursor(by or self._live())) as cursor:
            cursor.execute(query)
            found = lines(cursor, columns)
            for run in list(found) if where else found:
                yield from run

    @contextmanager
    def _reading(self, cursor: SSCursor) -> Iterator[SSCursor]:
        """Let go of the connection too where nobody wants the rest of a result."""
        connection = cursor.connection
        with closing(cursor):
            try:
                yield cursor
            finally:
                if unread(cursor) and connection is self._connection:
                    self.close()
                elif unread(cursor):
                    leave(connection)

    def _within(self, piece: Piece) -> str:
        sides = [(">", piece.after), ("<=", piece.upto)]
        where = " AND ".join(
            f"({self._key()}) {sign} {self._values(bound)}"
            for sign, bound in sides
            if bound is not None
        )
        return f" WHERE {where}" if where else ""

    def _key(self) -> str:
        return ", ".join(quoted(column.name) for column in self._columns[: self._wanted.key])

    def _among(self, keys: Sequence[Row]) -> str:
        return f"({self._key()}) IN ({', '.join(map(self._values, keys))})"

    def _values(self, key: Row) -> str:
        cells = zip(self._columns, key, strict=False)
        return "(" + ", ".join(self._literal(column, cell) for column, cell in cells) + ")"

    def _literal(self, column: MysqlColumn, cell: bytes | None) -> str:
        """Return the literal of a cell of any engine's text."""
        if cell is None:
            return "NULL"
        if KINDS[column.kind].logical == "bytes":
            return f"X'{cell[2:].decode()}'"
        if column.kind in _INTEGERS:
            cell = _TRUTHS.get(cell, cell)
        elif column.kind in ("datetime", "timestamp"):
            cell = cell.removesuffix(b"+00")
        return str(self._live().escape(cell.decode()))

    def _live(self) -> Any:
        if self._connection is None:
            raise self._login.unavailable("the connection is closed")
        return self._connection


class MariaDBSource(MariaDBTable):
    """See `cdc.verify.readable.ReadableSource`. Places are of one server's log."""

    def estimate(self) -> int:
        """Return what the statistics say."""
        return self._rows

    def pieces(self, rows: int) -> Iterator[Piece]:
        """Cut the table behind every so many rows of the key's own order.

        Uses a connection of its own, so that others may read meanwhile.
        """
        after: Row | None = None
        key = [_cell(column) for column in self._columns[: self._wanted.key]]
        tail = f" LIMIT 1 OFFSET {rows - 1}"
        other = connect(self._login)
        try:
            while True:
                where = f"{self._within(Piece(after))} ORDER BY {self._key()}{tail}"
                found = list(self._select(key, where, other))
                upto = cells_of(found[0]) if found else None
                yield Piece(after, upto)
                if upto is None:
                    return
                after = upto
        finally:
            leave(other)

    def here(self) -> tuple[int, Place]:
        """Return the server and the end of its log: a commit is written there before it is seen."""
        catalog = Catalog(self._live(), self._login, self._dialect)
        return int(catalog.variable("server_id")), catalog.log_end()

    def has_passed(self, position: Mapping[str, Any], here: tuple[int, Place]) -> bool:
        """Tell whether every transaction in the log before `here` was delivered."""
        server, place = here
        known = position.get("server") == server and "file" in position
        return known and Place(position["file"], int(position["offset"])).covers(place)

    def condition(self, keys: Sequence[Row]) -> str:
        """Return the condition for some keys."""
        if not self._wanted.key:
            raise PreflightFailed(f"{self._table} has no key")
        return self._among(keys)


def _cell(column: MysqlColumn, kind: str = "") -> tuple[str, MysqlColumn]:
    """Return what to ask for, and the column that it is to be read as.

    That gives the text a source has, where a logical type `kind` is named that of PostgreSQL.
    """
    name = quoted(column.name)
    if kind == "boolean" and column.kind in _INTEGERS:
        truth = f"CASE {name} WHEN 1 THEN 't' WHEN 0 THEN 'f' ELSE {name} END"
        return truth, msgspec.structs.replace(column, kind="varchar")
    if kind == "timestamptz" and column.kind == "datetime":
        column = msgspec.structs.replace(column, kind="timestamp")
    return selected(column, name), column
