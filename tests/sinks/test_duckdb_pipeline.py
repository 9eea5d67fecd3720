"""Postgres → Kafka → DuckDB with the workers a user starts, killed again and again on the way."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from cdc.errors import TargetUnavailable
from fix_pipeline import Pipeline
from fix_shop import Shop, Tables
from sinks.duckdb.files import connect

QUERIES = {
    "customers": "SELECT id, name, balance, born, created_at::text, seen::text, active, photo, "
    "attrs::text, CASE WHEN score <> 'NaN' THEN score END, ratio::text::float8, tags::text, "
    "total::text FROM customers ORDER BY id",
    "orders": "SELECT id, line, what FROM orders ORDER BY id, line",
    "notes": "SELECT note, n FROM notes ORDER BY note, n",
}
WANTED = {
    "customers": "SELECT id, name, balance, born, created_at::VARCHAR, seen::VARCHAR, active, "
    "photo, attrs::VARCHAR, CASE WHEN NOT isnan(score) THEN score END, ratio::VARCHAR::DOUBLE, "
    "tags, total FROM customers ORDER BY id",
    "orders": "SELECT id, line, what FROM orders ORDER BY id, line",
    "notes": "SELECT note, n FROM notes ORDER BY note NULLS LAST, n",
}


@pytest.mark.crash
def test_a_file_ends_equal_to_its_source_however_often_the_sink_is_killed(
    pipeline: Pipeline, pg_database: str, tmp_path: Path
) -> None:
    file = tmp_path / "lake.duckdb"

    def in_file() -> Tables:
        try:
            with closing(connect(file, "1GB", wait=0)) as connection:
                return {name: connection.execute(q).fetchall() for name, q in WANTED.items()}
        except (duckdb.CatalogException, TargetUnavailable):  # not made yet, or in use
            return {}

    sink = {"type": "duckdb", "path": str(file)}
    Shop(pipeline, pg_database, tmp_path, sink).end_equal(QUERIES, in_file)
