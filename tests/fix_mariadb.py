"""A real MariaDB for the session, and an empty place of a test's own on it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from cdc.connections.mariadb import fetch, quoted
from cdc.connector import Context
from cdc.local import LocalMariaDB
from schemas.table import TableId, TableSchema
from sinks.mariadb.catalog import place_of
from sinks.targets import mariadb as mariadb_target
from sinks.targets.mariadb import Config, MariaDBTarget, create

CONTEXT = Context("shop", "mirror")


@pytest.fixture(scope="session")
def mariadb() -> Iterator[LocalMariaDB]:
    """One server for the whole session; a test that hurts a server starts one of its own."""
    with LocalMariaDB() as server:
        yield server


@pytest.fixture
def fresh(mariadb: LocalMariaDB) -> Iterator[str]:
    """Give the URL of an empty database, dropped after the test."""
    name = f"test_{secrets.token_hex(6)}"
    yield mariadb.create_database(name)
    mariadb.drop_database(name)


class Place:
    """An empty database; every target on it is closed after the test.

    Tables of the schema `shop` lie in a database of that name, dropped with it.
    """

    module = mariadb_target
    context = CONTEXT

    def __init__(self, server: LocalMariaDB, url: str, **options: object) -> None:
        self.server = server
        self.url = url
        self.database = url.rpartition("/")[2]
        self.options = {"url": url, "tables": ["shop.*"], **options}
        self.config = Config.model_validate(self.options)
        self.opened: list[MariaDBTarget] = []
        self._connection = server.connect(self.database)

    def connect(self) -> MariaDBTarget:
        self.opened.append(create(CONTEXT, self.config))
        return self.opened[-1]

    def open(self, *schemas: TableSchema) -> MariaDBTarget:
        target = self.connect()
        target.open()
        for schema in schemas:
            target.prepare(schema)
        return target

    def query(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements; what the last one finds."""
        found: list[tuple[Any, ...]] = []
        for statement in statements:
            found = fetch(self._connection, statement)
        return found

    def rows(self, table: TableId) -> list[tuple[bytes | None, ...]]:
        database, name = place_of(table, self.database)
        found = self.query(f"SELECT * FROM {quoted(database)}.{quoted(name)}")
        texts = [tuple(None if v is None else str(v).encode() for v in row) for row in found]
        return sorted(texts, key=repr)

    def close(self) -> None:
        for target in self.opened:
            target.close()
        if self.query("SHOW DATABASES LIKE 'shop'"):
            self.query("DROP DATABASE shop")
        self._connection.close()


@pytest.fixture
def maria_place(mariadb: LocalMariaDB, fresh: str) -> Iterator[Place]:
    place = Place(mariadb, fresh)
    yield place
    place.close()
