"""Tables without a usable key: read whole in one snapshot, by a stream that waits."""

from __future__ import annotations

from typing import Any

import psycopg

from fix_capture import Capture, table_rows
from schemas.change import Op

Db = psycopg.Connection[Any]
LOG = "CREATE TABLE log (line text); ALTER TABLE log REPLICA IDENTITY FULL"


def replayed_bag(capture: Capture, table: str) -> list[Any]:
    """What a consumer of a table without a key holds after all events."""
    bag: list[Any] = []
    for event in capture.of(table):
        if event.op is Op.TRUNCATE:
            bag.clear()
        if event.before is not None:
            bag.remove(event.before[0])
        if event.after is not None:
            bag.append(event.after[0])
    return sorted(bag)


def test_a_table_without_a_key_is_read_in_one_snapshot(
    capture: Capture, db: Db, pg_database: str
) -> None:
    db.execute(LOG)
    db.execute("INSERT INTO log SELECT 'l' || i FROM generate_series(1, 3000) i")
    capture.options["chunk_rows"] = 500
    capture.until(lambda: len(capture.events) >= 1000)
    db.execute("INSERT INTO log VALUES ('during')")
    db.execute("DELETE FROM log WHERE line = 'l1'")
    capture.until_snapshot_done()
    capture.until_caught_up(db)
    lines = replayed_bag(capture, "public.log")
    assert lines == sorted(row[0] for row in table_rows(db, "SELECT * FROM log"))
    capture.until(lambda: not any(key.startswith("seen/") for key in capture.progress))


def test_a_change_delivered_before_the_table_is_read_is_there_once(
    capture: Capture, db: Db
) -> None:
    db.execute("CREATE TABLE a_first (id int PRIMARY KEY)")
    db.execute("INSERT INTO a_first SELECT generate_series(1, 2000)")
    db.execute(LOG)
    capture.options["chunk_rows"] = 100
    capture.until(lambda: len(capture.of("public.a_first")) >= 200)
    assert not capture.of("public.log")
    db.execute("INSERT INTO log VALUES ('once')")
    capture.until_snapshot_done()
    capture.until_caught_up(db)
    assert replayed_bag(capture, "public.log") == [b"once"]


def test_a_killed_read_of_a_table_without_a_key_begins_again(capture: Capture, db: Db) -> None:
    db.execute(LOG)
    db.execute("INSERT INTO log SELECT 'l' || i FROM generate_series(1, 3000) i")
    capture.options["chunk_rows"] = 500
    capture.until(lambda: len(capture.events) >= 1500)
    capture.kill()
    db.execute("DELETE FROM log WHERE line < 'l2'")
    capture.until_snapshot_done()
    capture.until_caught_up(db)
    lines = replayed_bag(capture, "public.log")
    assert lines == sorted(row[0] for row in table_rows(db, "SELECT * FROM log"))
    stamps = [event.stamp for event in capture.events]
    assert stamps == sorted(set(stamps))


def test_a_part_of_a_table_without_a_key_is_not_read_again(capture: Capture, db: Db) -> None:
    db.execute(LOG)
    capture.until_snapshot_done()
    source = capture.source
    assert source is not None
    source.command("backfill", {"table": "public.log", "where": "line = 'x'"})
    capture.until(lambda: "has no key" in source.status().waiting, "the refusal")


def test_a_backfill_of_a_table_without_a_key_begins_with_its_truncation(
    capture: Capture, db: Db
) -> None:
    db.execute(LOG)
    db.execute("INSERT INTO log VALUES ('a'), ('a'), ('b')")
    capture.until_snapshot_done()
    source = capture.source
    assert source is not None
    source.command("backfill", {"table": "public.log"})
    capture.until(lambda: len(capture.events) == 7)
    assert [event.op for event in capture.events[3:]] == [Op.TRUNCATE] + [Op.READ] * 3
    stamps = [event.stamp for event in capture.events]
    assert stamps == sorted(set(stamps))
