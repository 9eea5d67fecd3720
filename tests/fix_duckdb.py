"""A DuckDB file of a test's own: targets on it, and what is found in it between their batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from schemas.table import TableId
from sinks.duckdb.files import connect, quoted
from sinks.targets import duckdb
from sinks.targets.duckdb import DuckdbTarget
from target_files import TargetFile

CONTEXT = TargetFile.context


class DuckFile(TargetFile[DuckdbTarget]):
    module = duckdb

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


@pytest.fixture
def duckdb_file(tmp_path: Path) -> Iterator[DuckFile]:
    file = DuckFile(tmp_path / "shop.duckdb")
    yield file
    file.close()
