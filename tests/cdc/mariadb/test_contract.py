"""MariaDB keeps the contract of a source, on the real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdc.connector import Context
from cdc.local import LocalMariaDB
from cdc.source import Source
from cdc.sources.mariadb import Config, create
from cdc.testing import SourceContract
from fix_mariadb_capture import Database, database_of


class Items:
    """A table that gets another row with each change."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.made: list[Source] = []
        database.execute("CREATE TABLE item (id int AUTO_INCREMENT PRIMARY KEY, name text)")

    def source(self) -> Source:
        options = {"url": self.database.url, "tables": [f"{self.database.name}.*"]}
        self.made.append(create(Context("contract", "shop"), Config.model_validate(options)))
        return self.made[-1]

    def change(self, count: int) -> None:
        self.database.execute("BEGIN", *["INSERT INTO item (name) VALUES ('x')"] * count, "COMMIT")


@pytest.fixture
def system(mariadb: LocalMariaDB, fresh: str) -> Iterator[Items]:
    with database_of(mariadb, fresh) as database:
        items = Items(database)
        yield items
        for source in items.made:
            source.close()


class TestMariaDB(SourceContract):
    pass
