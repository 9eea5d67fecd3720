"""Transactions the server streams before they commit: spilled, cleaned of savepoints, bounded."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from fix_capture import Capture
from schemas.change import Op

Db = psycopg.Connection[Any]


@pytest.fixture
def db(pg_database: str) -> Iterator[Db]:
    """A database whose transactions are streamed as soon as they are larger than 64 kB."""
    with psycopg.connect(pg_database, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET logical_decoding_work_mem = 64')
        yield connection


def ids(capture: Capture) -> list[int]:
    return [int(event.after[0]) for event in capture.events if event.after]


@pytest.mark.parametrize("memory", [0, 50_000, 32 << 20])
def test_a_streamed_transaction_leaves_whole_at_its_commit(
    capture: Capture, db: Db, memory: int
) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    capture.options["memory"] = memory
    capture.until_snapshot_done()
    with db.transaction():
        db.execute("INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(1, 5000) i")
        for _ in range(15):
            capture.step()
        assert capture.events == []
        db.execute("UPDATE item SET name = 'y' WHERE id = 1")
    capture.until_caught_up(db)
    assert ids(capture) == [*range(1, 5001), 1]
    assert [event.stamp.ordinal for event in capture.events] == list(range(1, 5002))


def test_what_a_savepoint_rolled_back_is_left_out_of_rows_and_ordinals(
    capture: Capture, db: Db
) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    capture.until_snapshot_done()
    insert = "INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(%s::int, %s) i"
    with db.transaction():
        db.execute(insert, (1, 2000))
        with db.transaction() as inner:
            db.execute(insert, (2001, 4000))
            with db.transaction():
                db.execute(insert, (4001, 6000))
            raise psycopg.Rollback(inner)
        db.execute(insert, (6001, 8000))
    capture.until_caught_up(db)
    assert ids(capture) == [*range(1, 2001), *range(6001, 8001)]
    assert [event.stamp.ordinal for event in capture.events] == list(range(1, 4001))


def test_stamps_are_the_same_whether_a_transaction_was_streamed_or_not(
    pg_database: str, db: Db
) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    streamed, plain = Capture(pg_database), Capture(pg_database)
    plain.name = "plain"
    streamed.until_snapshot_done()
    db.execute(f'ALTER DATABASE "{db.info.dbname}" SET logical_decoding_work_mem = 65536')
    plain.until_snapshot_done()
    insert = "INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(%s::int, %s) i"
    with db.transaction():
        db.execute(insert, (1, 1500))
        with db.transaction() as inner:
            db.execute(insert, (9001, 9500))
            raise psycopg.Rollback(inner)
        db.execute("DELETE FROM item WHERE id < 100")
    for capture in (streamed, plain):
        capture.until_caught_up(db)
        capture.kill()
    places = [
        [(e.op, e.stamp.commit, e.stamp.ordinal) for e in c.events] for c in (streamed, plain)
    ]
    assert places[0] == places[1]
    assert len(places[0]) == 1599


def test_a_streamed_transaction_that_rolls_back_leaves_nothing(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    capture.until_snapshot_done()
    with db.transaction() as outer:
        db.execute("INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(1, 5000) i")
        for _ in range(10):
            capture.step()
        raise psycopg.Rollback(outer)
    db.execute("INSERT INTO item VALUES (0, '')")
    capture.until_caught_up(db)
    assert ids(capture) == [0]


def test_the_end_of_a_transaction_that_was_aborted_before_it_was_streamed_is_passed_over(
    capture: Capture, db: Db
) -> None:
    """PostgreSQL 18 skips what it finds aborted, and tells of the end of its savepoints."""
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    capture.until_snapshot_done()
    capture.kill()
    insert = "INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(%s::int, %s) i"
    with db.transaction() as outer, db.transaction():
        db.execute(insert, (1, 100))
        with db.transaction():
            db.execute(insert, (201, 4000))
        raise psycopg.Rollback(outer)
    db.execute("INSERT INTO item VALUES (0, '')")
    capture.until_caught_up(db)
    assert ids(capture) == [0]


def test_two_streamed_transactions_leave_in_commit_order(
    capture: Capture, db: Db, pg_database: str
) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    capture.until_snapshot_done()
    insert = "INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(%s::int, %s) i"
    with psycopg.connect(pg_database) as first, psycopg.connect(pg_database) as second:
        for start in (0, 1000, 2000):
            first.execute(insert, (start, start + 999))
            second.execute(insert, (10_000 + start, 10_999 + start))
            capture.step()
        second.commit()
        first.commit()
    capture.until_caught_up(db)
    assert ids(capture) == [*range(10_000, 13_000), *range(3000)]


def test_a_streamed_transaction_is_resumed_inside(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    capture.until_snapshot_done()
    db.execute("INSERT INTO item SELECT i, repeat('x', 50) FROM generate_series(1, 20000) i")
    capture.until(lambda: len(capture.events) >= 4000)
    assert len(capture.events) < 20000
    capture.kill()
    capture.until_caught_up(db)
    assert ids(capture) == list(range(1, 20001))


def test_a_new_shape_inside_a_streamed_transaction_belongs_to_it(
    capture: Capture, db: Db, pg_database: str
) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    db.execute("CREATE TABLE other (id int PRIMARY KEY)")
    capture.until_snapshot_done()
    fill = "INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(%s::int, %s) i"
    with psycopg.connect(pg_database) as big:
        big.execute(fill, (1, 1000))
        big.execute("ALTER TABLE item ADD COLUMN more int DEFAULT 7")
        big.execute(fill, (1001, 2000))
        capture.step()
        db.execute("INSERT INTO other VALUES (1)")
        capture.until(lambda: len(capture.events) == 1)
        big.commit()
    db.execute("INSERT INTO item VALUES (3000, 'z', 8)")
    capture.until_caught_up(db)
    streamed = capture.streamed("public.item")
    widths = [len(event.after or ()) for event in streamed]
    assert widths == [2] * 1000 + [3] * 1001


def test_a_truncation_in_a_streamed_transaction_keeps_its_place(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    capture.until_snapshot_done()
    insert = "INSERT INTO item SELECT i, repeat('x', 100) FROM generate_series(%s::int, %s) i"
    with db.transaction():
        db.execute(insert, (1, 2000))
        db.execute("TRUNCATE item")
        db.execute(insert, (1, 10))
        db.execute("SELECT pg_logical_emit_message(true, 'audit', 'inside')")
    capture.until_caught_up(db)
    ops = [event.op for event in capture.events]
    assert ops == [Op.CREATE] * 2000 + [Op.TRUNCATE] + [Op.CREATE] * 10 + [Op.MESSAGE]


def test_a_transaction_larger_than_memory_passes_through(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    capture.options["memory"] = 1 << 20
    capture.until_snapshot_done()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    db.execute("INSERT INTO item SELECT i, repeat('x', 1000) FROM generate_series(1, 150000) i")
    count = 0
    while count < 150_000:
        capture.step()
        count += len(capture.events)
        capture.events.clear()
        capture.model.tables.clear()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 60 * 1024, f"{grown} kB for 150 MB of rows"
