"""Postgres → Kafka → SQLite with the workers a user starts, killed again and again on the way."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fix_pipeline import Pipeline
from fix_shop import Shop, Tables

QUERIES = {
    "customers": "SELECT id, name, balance::text, born::text, created_at::text || ':00', "
    "seen::text, active::int, photo, attrs::text, CASE WHEN score <> 'NaN' THEN score END, "
    "ratio::text::float8, tags::text, total::text FROM customers ORDER BY id",
    "orders": "SELECT id, line, what::text FROM orders ORDER BY id, line",
    "notes": "SELECT note, n FROM notes ORDER BY note, n",
}
WANTED = {
    "customers": "SELECT id, name, balance, born, created_at, seen, active, photo, attrs, "
    "nullif(score, 'NaN'), ratio, tags, total FROM customers ORDER BY id",
    "orders": "SELECT id, line, what FROM orders ORDER BY id, line",
    "notes": "SELECT note, n FROM notes ORDER BY note IS NULL, note, n",
}


@pytest.mark.crash
def test_a_file_ends_equal_to_its_source_however_often_the_sink_is_killed(
    pipeline: Pipeline, pg_database: str, tmp_path: Path
) -> None:
    file = tmp_path / "pocket.db"

    def in_file() -> Tables:
        with closing(sqlite3.connect(file)) as connection:
            try:
                return {name: connection.execute(q).fetchall() for name, q in WANTED.items()}
            except sqlite3.OperationalError:  # not made yet
                return {}

    sink = {"type": "sqlite", "path": str(file)}
    Shop(pipeline, pg_database, tmp_path, sink).end_equal(QUERIES, in_file)
