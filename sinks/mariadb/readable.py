"""A MariaDB table as `cdc verify` reads it: in the texts a source would read it as."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from pymysql.cursors import Cursor, SSCursor

from cdc.decode.mysqltypes import MysqlColumn, selected, text
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.connection import Connection, Login, connect, quoted, whole_guard
from cdc.mariadb.server import MariaDB
from cdc.verify.readable import NotThere, Piece, Row, Wanted
from schemas.table import TableId
from sinks.mariadb.forms import literal

__all__ = ["MariaDBTable"]

_Text = Callable[[bytes], bytes]


class MariaDBTable:
    """See `cdc.verify.readable.Readable`."""

    engine = "mariadb"

    def __init__(self, login: Login, place: tuple[str, str], wanted: Wanted) -> None:
        self._login, self._wanted = login, wanted
        self._table = TableId(*place)
        self._connection: Connection | None = None
        self._columns: list[MysqlColumn] = []

    def open(self) -> None:
        """Connect and look the table up."""
        self.close()
        self._connection = connect(self._login)
        found = Catalog(self._connection, self._login, MariaDB()).find(self._table)
        if found is None:
            raise NotThere(f"there is no table {self._table}")
        known = {facts.column.name.lower(): facts.column for facts in found.columns}
        missing = [name for name in self._wanted.columns if name.lower() not in known]
        if missing:
            raise NotThere(f"{self._table} has no column {', '.join(missing)}")
        self._columns = [known[name.lower()] for name in self._wanted.columns]

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def types(self) -> Sequence[str]:
        """Return nothing that another engine would spell alike."""
        return ["" for _ in self._wanted.columns]

    def rows(self, piece: Piece) -> Iterator[Row]:
        """Yield the rows of a piece; all of them come one by one, a range at once."""
        sides = [(">", piece.after), ("<=", piece.upto)]
        where = " AND ".join(
            f"({self._key()}) {sign} {self._values(bound)}"
            for sign, bound in sides
            if bound is not None
        )
        return self._select(f" WHERE {where}" if where else "", Cursor if where else SSCursor)

    def find(self, keys: Sequence[Row]) -> Iterator[Row]:
        """Yield the rows of some keys."""
        if not keys:
            return iter(())
        listed = ", ".join(map(self._values, keys))
        return self._select(f" WHERE ({self._key()}) IN ({listed})", Cursor)

    def _select(self, where: str, kind: type[Cursor]) -> Iterator[Row]:
        if self._connection is None:
            raise self._login.unavailable("the connection is closed")
        names = ", ".join(selected(c, quoted(c.name)) for c in self._columns)
        table = quoted(self._table.schema, self._table.name)
        query = f"SELECT {names} FROM {table}{where}"  # noqa: S608 - quoted
        texts: list[tuple[int, _Text]] = [
            (place, made) for place, c in enumerate(self._columns) if (made := text(c)) is not None
        ]
        with whole_guard(self._login), closing(kind(self._connection)) as cursor:
            cursor.execute(query)
            while found := cursor.fetchmany(1_000):
                for row in found:
                    cells = list(row)
                    for place, made in texts:
                        if cells[place] is not None:
                            cells[place] = made(cells[place])
                    yield tuple(cells)

    def _key(self) -> str:
        return ", ".join(quoted(name) for name in self._wanted.columns[: self._wanted.key])

    def _values(self, key: Row) -> str:
        cells = zip(self._wanted.kinds, key, strict=False)
        return "(" + ", ".join(literal(kind, cell).decode() for kind, cell in cells) + ")"
