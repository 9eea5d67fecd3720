"""The servers a demo runs between, and all that differs between them.

The shop's SQL is one for all: `%s` stands for a value, and nothing is written that only one server
understands. What cannot be had so stands here: how to connect, how to stream a large result, and
how a value is printed so that equal values of two servers are equal texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self

import msgspec
import psycopg
import pymysql
from pymysql.cursors import SSCursor

from cdc.connections import mariadb

__all__ = ["ENGINES", "Engine", "Pair", "Session"]

_PAGE = 5_000
_NO_SUCH_TABLE = 1146
_Row = tuple[Any, ...]


class Session:
    """One connection to a server of any kind. `with` closes it; what is not committed is lost."""

    def __init__(self, connection: Any, streaming: Callable[[Any], Any]) -> None:
        self._connection = connection
        self._streaming = streaming

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run a statement; return the number of rows it inserted, changed, deleted or found."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return max(int(cursor.rowcount), 0)

    def execute_many(self, statement: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Run a statement for each of `rows`, whose values it names `%(name)s`."""
        with self._connection.cursor() as cursor:
            cursor.executemany(statement, rows)

    def fetch(self, query: str, values: Sequence[object] = ()) -> list[_Row]:
        """Return the rows of a query."""
        with self._connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return list(cursor.fetchall())

    def stream(self, query: str) -> Iterator[_Row]:
        """Yield the rows of a query as the server sends them, so that memory does not grow."""
        with self._streaming(self._connection) as cursor:
            cursor.execute(query)
            yield from cursor

    def finds(self, table: str, condition: str, value: object) -> bool:
        """Tell whether the table is there and has a row for which `condition` on `value` holds."""
        query = f"select 1 from {table} where {condition}"  # noqa: S608 - our own names
        try:
            return bool(self.fetch(query, (value,)))
        except (psycopg.Error, pymysql.Error) as error:
            if isinstance(error, psycopg.errors.UndefinedTable):
                return False
            if error.args[:1] == (_NO_SUCH_TABLE,):
                return False
            raise

    def commit(self) -> None:
        """Commit what was done since the last commit or rollback."""
        self._connection.commit()

    def rollback(self) -> None:
        """Take back what was done since the last commit or rollback."""
        self._connection.rollback()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()


class Engine(msgspec.Struct, frozen=True):
    """One kind of server.

    `schema` is where a source's tables lie, `mirror` where the mirror's do. `order` and `forms`
    (by kind of column, see `compare.py`) are SQL around a column's name: what texts are sorted by,
    byte for byte, and the text of a value. `words` is the literal of a list of words.
    """

    name: str
    title: str
    schema: str
    mirror: str
    script: str
    words: str
    order: str
    forms: Mapping[str, str]
    connect: Callable[[str, bool], Session]

    def session(self, url: str, *, autocommit: bool = False) -> Session:
        """Connect; times are in UTC."""
        return self.connect(url, autocommit)


class Pair(msgspec.Struct, frozen=True):
    """What the demo runs from and to."""

    source: Engine
    target: Engine

    @property
    def engines(self) -> frozenset[str]:
        """The names of both, which may be one."""
        return frozenset((self.source.name, self.target.name))


def _postgres(url: str, autocommit: bool) -> Session:  # noqa: FBT001 - one of Engine's fields
    connection = psycopg.connect(url, options="-c timezone=UTC", autocommit=autocommit)
    return Session(connection, _server_side)


def _server_side(connection: psycopg.Connection[Any]) -> Any:
    cursor = connection.cursor("rows")
    cursor.itersize = _PAGE
    return cursor


def _mariadb(url: str, autocommit: bool) -> Session:  # noqa: FBT001 - one of Engine's fields
    connection = mariadb.connect(mariadb.Login(url, "cdc demo"))
    connection.autocommit(autocommit)
    return Session(connection, lambda made: closing(made.cursor(SSCursor)))


ENGINES: Mapping[str, Engine] = {
    "postgres": Engine(
        name="postgres",
        title="PostgreSQL",
        schema="public",
        mirror="public",
        script="shop.sql",
        words="{{{}}}",
        order='{}::text collate "C"',
        forms={
            "text": "{}::text",
            "float": "{}::text",
            "moment": "to_char({}, 'YYYY-MM-DD HH24:MI:SS.US')",
            "day": "{}::date::text",
        },
        connect=_postgres,
    ),
    "mariadb": Engine(
        name="mariadb",
        title="MariaDB",
        schema="shop",
        mirror="mirror",
        script="shop.mariadb.sql",
        words="{}",
        order="cast({} as binary)",
        forms={
            "text": "cast({} as char)",
            "float": "cast(cast({} as double) as char)",
            "moment": "date_format({}, '%Y-%m-%d %H:%i:%s.%f')",
            "day": "cast(cast({} as date) as char)",
        },
        connect=_mariadb,
    ),
}
"""By their `type:` in a pipeline file."""
