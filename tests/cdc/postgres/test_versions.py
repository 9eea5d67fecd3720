"""Every supported server: the same promises on PostgreSQL 14, 15, 16, 17 and 18."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from cdc.local import LocalPostgres
from cdc.sources.postgres import check
from fix_capture import Capture, table_rows
from schemas.change import ABSENT

Db = psycopg.Connection[Any]
VERSIONS = (14, 15, 16, 17, 18)


@pytest.fixture(params=VERSIONS)
def server(
    request: pytest.FixtureRequest, postgres_server: Callable[[int], LocalPostgres]
) -> LocalPostgres:
    return postgres_server(request.param)


@pytest.fixture
def pg_database(server: LocalPostgres) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    yield server.create_database(name)
    server.drop_database(name)


def test_a_busy_life_ends_with_equal_tables(capture: Capture, db: Db, pg_database: str) -> None:
    db.execute(f'ALTER DATABASE "{db.info.dbname}" SET logical_decoding_work_mem = 64')
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text, body text)")
    db.execute("CREATE TABLE day (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)")
    db.execute(
        "CREATE TABLE day_1 PARTITION OF day FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')"
    )
    db.execute("CREATE TABLE log (line text); ALTER TABLE log REPLICA IDENTITY FULL")
    db.execute("INSERT INTO item SELECT i, 'old', repeat('b', 100) FROM generate_series(1, 2000) i")
    db.execute("INSERT INTO day SELECT i, '2026-02-02' FROM generate_series(1, 50) i")
    db.execute("INSERT INTO log SELECT 'l' || i FROM generate_series(1, 50) i")
    capture.options["chunk_rows"] = 300
    capture.until(lambda: len(capture.of("public.item")) >= 600)
    capture.kill()
    with db.transaction():
        db.execute("UPDATE item SET name = 'new' WHERE id % 2 = 0")
        with db.transaction() as inner:
            db.execute("DELETE FROM item WHERE id > 100")
            raise psycopg.Rollback(inner)
        db.execute("UPDATE day SET at = '2026-03-03' WHERE id < 10")
    db.execute("UPDATE item SET id = -id WHERE id <= 20")
    db.execute("TRUNCATE log; INSERT INTO log VALUES ('after')")
    capture.until_snapshot_done()
    db.execute("ALTER TABLE item ADD COLUMN n int DEFAULT 5")
    db.execute("DELETE FROM item WHERE id BETWEEN 500 AND 600")
    db.execute("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)")
    db.execute("INSERT INTO item VALUES (9999, 'x', 'y', 6)")
    capture.until(lambda: "public.late" in capture.model.tables, "the new table")
    capture.until_caught_up(db)
    capture.until_snapshot_done()
    for table in ("item", "day", "log", "late"):
        assert capture.model.rows(f"public.{table}") == table_rows(db, f"SELECT * FROM {table}")


def test_a_key_change_and_an_unchanged_large_value(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, body text, n int)")
    capture.until_snapshot_done()
    db.execute(
        "INSERT INTO item SELECT 1, string_agg(md5(i::text), ''), 1 FROM generate_series(1, 300) i"
    )
    db.execute("UPDATE item SET n = 2")
    db.execute("UPDATE item SET id = 7")
    capture.until_caught_up(db)
    _, update, move = capture.events
    assert update.after is not None
    assert update.after[1] is ABSENT
    assert move.after is not None
    assert ABSENT not in move.after


def test_the_preflight_has_nothing_to_say(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    found = list(check(capture.context(), capture.config()))
    assert [finding for finding in found if finding.level != "ok"] == []


def test_the_slot_is_one_that_standbys_keep_where_there_are_such(
    capture: Capture, db: Db, server: LocalPostgres
) -> None:
    capture.until_streaming()
    if server.version < 17:
        slots = "SELECT plugin::text FROM pg_replication_slots WHERE slot_name = 'cdc_test_shop'"
        assert db.execute(slots).fetchone() == ("pgoutput",)
    else:
        slots = "SELECT failover FROM pg_replication_slots WHERE slot_name = 'cdc_test_shop'"
        assert db.execute(slots).fetchone() == (True,)
