"""A DuckDB file of a test's own: targets on it, and what is found in it between their batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cdc.connector import Context
from schemas.table import TableId, TableSchema
from sinks.duckdb.files import connect, quoted
from sinks.targets.duckdb import Config, DuckdbTarget, create

CONTEXT = Context("shop", "lake")


class DuckFile:
    """A database file; every target of it is closed after the test."""

    def __init__(self, path: Path, **options: object) -> None:
        self.path = path
        self.config = Config.model_validate({"path": path, "tables": ["shop.*"], **options})
        self.opened: list[DuckdbTarget] = []

    def connect(self) -> DuckdbTarget:
        self.opened.append(create(CONTEXT, self.config))
        return self.opened[-1]

    def open(self, *schemas: TableSchema) -> DuckdbTarget:
        target = self.connect()
        target.open()
        for schema in schemas:
            target.prepare(schema)
        return target

    def query(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements; what the last one finds."""
        found: list[tuple[Any, ...]] = []
        with connect(self.path, "1GB") as connection:
            for statement in statements:
                found = connection.execute(statement).fetchall()
        return found

    def rows(self, table: TableId) -> Sequence[tuple[bytes | None, ...]]:
        schema = "main" if table.schema == "public" else table.schema
        name = ".".join(map(quoted, (self.path.stem, schema, table.name)))
        found = self.query(f"SELECT COLUMNS(*)::VARCHAR FROM {name}")
        texts = [tuple(None if v is None else v.encode() for v in row) for row in found]
        return sorted(texts, key=repr)

    def close(self) -> None:
        for target in self.opened:
            target.close()


@pytest.fixture
def duckdb_file(tmp_path: Path) -> Iterator[DuckFile]:
    file = DuckFile(tmp_path / "shop.duckdb")
    yield file
    file.close()
