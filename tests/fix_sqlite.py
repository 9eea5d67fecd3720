"""A SQLite file of a test's own: targets on it, and what a plain connection finds in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from schemas.change import Cell
from schemas.table import TableId, TableSchema
from sinks.sqlite.catalog import table_name
from sinks.sqlite.files import quoted
from sinks.target import Mapped
from sinks.targets import sqlite
from sinks.targets.sqlite import SqliteTarget
from target_files import TargetFile

CONTEXT = TargetFile.context


class File(TargetFile[SqliteTarget]):
    module = sqlite

    def query(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements; what the last one finds."""
        found: list[tuple[Any, ...]] = []
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            for statement in statements:
                found = connection.execute(statement).fetchall()
        return found

    def rows(self, table: TableId) -> list[tuple[bytes | None, ...]]:
        found = self.query(f"SELECT * FROM {quoted(table_name(table))}")
        texts = [tuple(None if v is None else str(v).encode() for v in row) for row in found]
        return sorted(texts, key=repr)


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Iterator[File]:
    file = File(tmp_path / "shop.db")
    yield file
    file.close()


def writes(schema: TableSchema, *rows: Sequence[Cell]) -> Mapped:
    """Upserts of one table."""
    return Mapped(schema, list(rows), [])
