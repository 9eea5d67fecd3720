"""Postgres → Kafka → MariaDB with the workers a user starts, killed again and again on the way.

MySQL runs the same (`targets/mysql/live_pipeline.py`).
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pymysql
import pytest

from cdc.connections.mariadb import fetch
from fix_mariadb import Place
from fix_pipeline import Pipeline
from fix_shop import Shop, Tables

QUERIES = {
    "customers": "SELECT id, name, balance, born, created_at AT TIME ZONE 'UTC', seen, "
    "active::int, photo, attrs::text, score, ratio::text::float8, tags::text, total::text "
    "FROM customers ORDER BY id",
    "orders": "SELECT id, line, what::text FROM orders ORDER BY id, line",
    "notes": "SELECT note, n FROM notes ORDER BY note, n",
}
WANTED = {
    "customers": "SELECT * FROM customers ORDER BY id",
    "orders": "SELECT * FROM orders ORDER BY id, line",
    "notes": "SELECT * FROM notes ORDER BY note IS NULL, note, n",
}


@pytest.mark.crash
def test_tables_end_equal_to_their_source_however_often_the_sink_is_killed(
    pipeline: Pipeline, pg_database: str, maria_place: Place, tmp_path: Path
) -> None:
    def in_target() -> Tables:
        with closing(maria_place.server.connect(maria_place.database)) as connection:
            try:
                return {name: fetch(connection, query) for name, query in WANTED.items()}
            except pymysql.ProgrammingError:  # not made yet
                return {}

    sink = {"type": maria_place.dialect.word, "url": maria_place.url}
    odd = {"score": "-1.7976931348623157e+308", "seen": "9999-12-31 23:59:59.999999"}
    Shop(pipeline, pg_database, tmp_path, sink, **odd).end_equal(QUERIES, in_target)
