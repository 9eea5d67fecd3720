"""A real MariaDB for the session, and an empty place of a test's own on it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ClassVar

import pytest

from cdc.connections.mariadb import fetch, quoted
from cdc.connector import Context
from cdc.local import LocalMariaDB
from schemas.table import TableId, TableSchema
from sinks.mariadb.catalog import place_of
from sinks.mariadb.dialect import Dialect
from sinks.mariadb.server import MariaDB
from sinks.mariadb.target import MariaDBTarget
from sinks.targets import mariadb as mariadb_target

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

    module: ClassVar[ModuleType] = mariadb_target
    dialect: ClassVar[Dialect] = MariaDB()
    context = CONTEXT

    def __init__(self, server: Any, url: str, **options: object) -> None:
        self.server = server
        self.url = url
        self.database = url.rpartition("/")[2]
        self.options = {"url": url, "tables": ["shop.*"], **options}
        self.config = self.module.Config.model_validate(self.options)
        self.opened: list[MariaDBTarget] = []
        self._connection = server.connect(self.database)

    def connect(self) -> MariaDBTarget:
        self.opened.append(self.module.create(CONTEXT, self.config))
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

    def be_impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have sessions wait a second for a lock, and two for a worker that is silent."""
        short = {"innodb_lock_wait_timeout": 1, "idle_transaction_timeout": 2}
        monkeypatch.setattr(MariaDB, "settings", {**MariaDB.settings, **short})


@pytest.fixture
def make_place(mariadb: LocalMariaDB, fresh: str) -> Iterator[Callable[..., Place]]:
    """Give what makes a place, by the options of the sink."""
    made: list[Place] = []

    def one(**options: object) -> Place:
        made.append(Place(mariadb, fresh, **options))
        return made[-1]

    yield one
    for place in made:
        place.close()


@pytest.fixture
def maria_place(make_place: Callable[..., Place]) -> Place:
    return make_place()
