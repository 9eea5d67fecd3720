"""The Postgres source on a real server: what the log says is what leaves, each change once."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from cdc.errors import GapError, StateError
from fix_capture import Capture, table_rows
from schemas.change import Op

Db = psycopg.Connection[Any]


def test_inserts_updates_and_deletes_leave_in_commit_order(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    capture.until_snapshot_done()
    db.execute("INSERT INTO item VALUES (1, 'one'), (2, 'two')")
    db.execute("UPDATE item SET name = NULL WHERE id = 2")
    db.execute("DELETE FROM item WHERE id = 1")
    capture.until_caught_up(db)
    assert [(e.op, e.before, e.after) for e in capture.of("public.item")] == [
        (Op.CREATE, None, (b"1", b"one")),
        (Op.CREATE, None, (b"2", b"two")),
        (Op.UPDATE, None, (b"2", None)),
        (Op.DELETE, (b"1", None), None),
    ]


def test_every_change_has_a_stamp_of_its_own_and_they_grow(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    capture.until_snapshot_done()
    with db.transaction():
        db.execute("INSERT INTO item SELECT i, 'x' FROM generate_series(1, 50) i")
        db.execute("UPDATE item SET name = 'y' WHERE id <= 10")
    db.execute("DELETE FROM item WHERE id > 45")
    capture.until_caught_up(db)
    stamps = [event.stamp for event in capture.of("public.item")]
    assert len(stamps) == 65
    assert stamps == sorted(set(stamps))


def test_what_was_rolled_back_never_leaves(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    capture.until_snapshot_done()
    with db.transaction():
        db.execute("INSERT INTO item VALUES (1)")
        with db.transaction() as inner:
            db.execute("INSERT INTO item VALUES (2)")
            raise psycopg.Rollback(inner)
    with db.transaction() as outer:
        db.execute("INSERT INTO item VALUES (3)")
        raise psycopg.Rollback(outer)
    capture.until_caught_up(db)
    assert [event.after for event in capture.of("public.item")] == [(b"1",)]


def test_a_killed_source_repeats_no_event_and_loses_none(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    capture.until_snapshot_done()
    for start in range(0, 40, 4):
        db.execute(f"INSERT INTO item SELECT {start} + i, 'x' FROM generate_series(0, 3) i")
        if start % 8 == 0:
            capture.step()
        capture.commits = False
        capture.step(0.3)
        capture.kill()
        capture.commits = True
    capture.until_caught_up(db)
    ids = [int(event.after[0]) for event in capture.of("public.item") if event.after]
    assert ids == list(range(40))


def test_a_large_transaction_is_resumed_inside(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    capture.until_snapshot_done()
    db.execute("INSERT INTO item SELECT i, 'x' FROM generate_series(1, 23000) i")
    capture.until(lambda: len(capture.events) >= 4000)
    assert len(capture.events) < 23000
    assert capture.boundary.commit < capture.events[-1].stamp.commit
    capture.kill()
    capture.until_caught_up(db)
    ids = [int(event.after[0]) for event in capture.events if event.after]
    assert ids == list(range(1, 23001))
    assert capture.boundary.commit >= capture.events[-1].stamp.commit


def test_a_commit_whose_end_is_the_next_commit_s_place_hides_nothing(
    capture: Capture, db: Db
) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    capture.until_snapshot_done()
    for number in range(30):
        db.execute("INSERT INTO item VALUES (%s)", (number,))
        db.execute("BEGIN; SELECT txid_current(); COMMIT")
        capture.until(lambda: bool(capture.step(0.05)))
        capture.kill()
    capture.until_caught_up(db)
    assert [event.after for event in capture.events] == [(b"%d" % n,) for n in range(30)]


def test_the_slot_is_never_ahead_of_what_was_committed(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    capture.until_snapshot_done()
    capture.commits = False
    db.execute("INSERT INTO item SELECT i FROM generate_series(1, 1000) i")
    for _ in range(50):
        capture.step(0.1)
        row = db.execute(
            "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots"
            " WHERE slot_name = 'cdc_test_shop'"
        ).fetchone()
        assert row is not None
        assert capture.position is not None
        assert row[0] <= capture.position["confirmed_lsn"]


def test_an_idle_source_lets_the_log_go(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    db.execute("CREATE TABLE other (id int PRIMARY KEY, name text)")
    capture.options["tables"] = ["public.item"]
    capture.until_snapshot_done()
    db.execute("INSERT INTO other SELECT i, repeat('x', 500) FROM generate_series(1, 5000) i")
    target = db.execute("SELECT pg_current_wal_lsn()").fetchone()

    def released() -> bool:
        row = db.execute(
            "SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots"
            " WHERE slot_name = 'cdc_test_shop'",
            target,
        ).fetchone()
        return bool(row and row[0])

    capture.until(released, "confirmed_flush_lsn")
    assert capture.events == []


def test_a_truncation_is_one_event_of_each_table(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    db.execute("CREATE TABLE part (id int PRIMARY KEY, item int REFERENCES item)")
    capture.until_snapshot_done()
    db.execute("TRUNCATE item CASCADE")
    capture.until_caught_up(db)
    assert {(event.table, event.op) for event in capture.events} == {
        ("public.item", Op.TRUNCATE),
        ("public.part", Op.TRUNCATE),
    }


def test_logical_messages_of_others_are_events_and_ours_are_not(capture: Capture, db: Db) -> None:
    capture.until_snapshot_done()
    db.execute("SELECT pg_logical_emit_message(true, 'audit', 'in a transaction')")
    db.execute("SELECT pg_logical_emit_message(false, 'audit', 'outside')")
    db.execute("SELECT pg_logical_emit_message(true, 'tailrace', '{}')")
    capture.until_caught_up(db)
    assert [(event.table, event.message) for event in capture.events] == [
        ("message", ("audit", b"in a transaction")),
        ("message", ("audit", b"outside")),
    ]


def test_a_message_outside_transactions_is_not_repeated(capture: Capture, db: Db) -> None:
    capture.until_snapshot_done()
    for number in range(5):
        db.execute("SELECT pg_logical_emit_message(false, 'audit', %s)", (str(number),))
        capture.until(lambda count=number + 1: len(capture.events) >= count)
        capture.kill()
    capture.until_caught_up(db)
    assert [event.message for event in capture.events] == [
        ("audit", str(number).encode()) for number in range(5)
    ]


def test_prepared_transactions_leave_when_they_are_committed(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    capture.until_snapshot_done()
    for name in ("kept", "dropped"):
        db.execute("BEGIN")
        db.execute("INSERT INTO item VALUES (%s)", (len(name),))
        db.execute(f"PREPARE TRANSACTION '{name}_{db.info.dbname}'")
    capture.until_caught_up(db)
    assert capture.events == []
    db.execute(f"ROLLBACK PREPARED 'dropped_{db.info.dbname}'")
    db.execute(f"COMMIT PREPARED 'kept_{db.info.dbname}'")
    capture.until_caught_up(db)
    assert [event.after for event in capture.events] == [(b"4",)]


def test_a_dropped_slot_is_a_gap_and_not_a_silent_start(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    capture.until_snapshot_done()
    capture.drop_slot(db)
    with pytest.raises(GapError, match="does not exist") as caught:
        capture.open()
    assert "cdc position reset" in caught.value.hint


def test_a_slot_read_by_somebody_else_is_a_gap(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    capture.until_snapshot_done()
    capture.kill()
    db.execute("INSERT INTO item VALUES (1)")
    active = "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'cdc_test_shop' AND active"
    capture.wait_for(lambda: db.execute(active).fetchone() is None)
    db.execute("SELECT pg_replication_slot_advance('cdc_test_shop', pg_current_wal_insert_lsn())")
    with pytest.raises(GapError, match="somebody else"):
        capture.open()


def test_when_needed_begins_anew_after_a_gap(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    db.execute("INSERT INTO item VALUES (1), (2)")
    capture.options["snapshot"] = "when_needed"
    capture.until_snapshot_done()
    first = capture.position
    capture.drop_slot(db)
    db.execute("DELETE FROM item WHERE id = 1; INSERT INTO item VALUES (3)")
    capture.open()
    capture.until(lambda: capture.position != first)
    capture.until_snapshot_done()
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")
    assert first is not None
    assert capture.position is not None
    assert capture.position["incarnation"] > first["incarnation"]


def test_another_server_is_refused(capture: Capture, db: Db) -> None:
    capture.until_streaming()
    capture.kill()
    assert capture.position is not None
    capture.position["system"] = "1"
    with pytest.raises(StateError, match="this is server"):
        capture.open()


def test_a_slot_left_by_a_killed_start_is_made_anew(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    capture.until(lambda: capture.position is not None)
    assert capture.position is not None
    assert capture.position["creating"]
    first = capture.position["incarnation"]
    capture.commits = False
    capture.until(lambda: bool(capture._pending))
    capture.kill()
    capture.commits = True
    db.execute("INSERT INTO item VALUES (1)")
    capture.until_snapshot_done()
    assert capture.position["incarnation"] > first
    assert [event.after for event in capture.events] == [(b"1",)]


def test_a_foreign_slot_of_our_name_is_not_touched(capture: Capture, db: Db) -> None:
    db.execute("SELECT pg_create_logical_replication_slot('cdc_test_shop', 'pgoutput')")
    with pytest.raises(StateError, match="no position is stored") as caught:
        capture.open()
    assert "slot: cdc_test_shop" in caught.value.hint


def test_a_slot_and_publication_made_by_somebody_else_are_used(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    db.execute("CREATE PUBLICATION theirs FOR TABLE item")
    db.execute("SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')")
    db.execute("INSERT INTO item VALUES (7)")
    capture.options.update(slot="theirs", publication="theirs", snapshot="never")
    capture.until_caught_up(db)
    assert [event.after for event in capture.events] == [(b"7",)]


def test_a_first_start_on_a_given_slot_reads_what_is_there(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    db.execute("INSERT INTO item VALUES (1)")
    db.execute("SELECT pg_create_logical_replication_slot('given', 'pgoutput')")
    capture.options.update(slot="given")
    capture.until_snapshot_done()
    assert [event.after for event in capture.events] == [(b"1",)]
    capture.kill()
    db.execute("INSERT INTO item VALUES (2)")
    capture.until_caught_up(db)
    assert [event.after for event in capture.events] == [(b"1",), (b"2",)]


def test_a_start_that_waits_for_an_old_transaction_says_for_whom(
    capture: Capture, db: Db, pg_database: str
) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    with psycopg.connect(pg_database) as other:
        other.execute("INSERT INTO item VALUES (1)")
        pid = other.info.backend_pid

        def said() -> bool:
            source = capture.source
            return source is not None and f"pid {pid}" in source.status().waiting

        capture.until(said, "the pid")
        other.commit()
    capture.until_snapshot_done()
    assert [event.after for event in capture.events] == [(b"1",)]
