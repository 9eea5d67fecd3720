"""PostgreSQL keeps the contract of a transactional target, on the real server."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from cdc.connector import Context
from schemas.table import TableId
from sinks.targets.postgres import Config, PostgresTarget, create
from sinks.testing import TargetContract


class Database:
    """A database of its own, looked at with a plain connection."""

    def __init__(self, url: str, **options: object) -> None:
        self.url = url
        self.options = options
        self.opened: list[PostgresTarget] = []

    def connect(self) -> PostgresTarget:
        config = Config.model_validate({"url": self.url, "tables": ["shop.*"], **self.options})
        self.opened.append(create(Context("shop", "mirror"), config))
        return self.opened[-1]

    def rows(self, table: TableId) -> list[tuple[bytes | None, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            query = sql.SQL("SELECT t.* FROM {} t").format(sql.Identifier(table.schema, table.name))
            found = psycopg.RawCursor(connection).execute(query.as_string(connection)).fetchall()
            return sorted((_text(row) for row in found), key=repr)


def _text(row: tuple[object, ...]) -> tuple[bytes | None, ...]:
    return tuple(None if value is None else str(value).encode() for value in row)


@pytest.fixture
def system(pg_database: str) -> Iterator[Database]:
    database = Database(pg_database)
    yield database
    for target in database.opened:
        target.close()


class TestPostgres(TargetContract):
    pass
