"""PostgreSQL keeps the contract of a source, on the real server."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from cdc.connector import Context
from cdc.source import Source
from cdc.sources.postgres import Config, create
from cdc.testing import SourceContract


class Database:
    """A table that gets another row with each change."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.made: list[Source] = []
        self.connection = psycopg.connect(url, autocommit=True)
        self.connection.execute("CREATE TABLE item (id serial PRIMARY KEY, name text)")

    def source(self) -> Source:
        config = Config.model_validate({"url": self.url})
        self.made.append(create(Context("test", "shop"), config))
        return self.made[-1]

    def change(self, count: int) -> None:
        insert = "INSERT INTO item (name) SELECT 'x' FROM generate_series(1, %s)"
        self.connection.execute(insert, (count,))


@pytest.fixture
def system(pg_database: str) -> Iterator[Database]:
    database = Database(pg_database)
    yield database
    for source in database.made:
        source.close()
    database.connection.close()


class TestPostgres(SourceContract):
    pass
