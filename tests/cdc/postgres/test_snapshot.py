"""Snapshots beside the stream: complete, never stale, resumable, also under concurrent writers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from cdc.postgres.chunks import ChunkReader
from fix_capture import Capture, table_rows
from fix_stack import NEWEST, a_postgres
from schemas.change import Op

Db = psycopg.Connection[Any]


@contextmanager
def busy(url: str, count: int, keys: int) -> Iterator[None]:
    """Writers that insert, update, delete and move keys of `item` until the block ends."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def write(seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - a workload
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                while not stop.is_set():
                    _write(connection, rng, keys)
        except BaseException as error:  # noqa: BLE001 - reported when the block ends
            failures.append(error)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(count)]
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert failures == []


def _write(connection: Db, rng: random.Random, keys: int) -> None:
    key = rng.randrange(keys)
    name = f"v{rng.randrange(1_000_000)}"
    insert = "INSERT INTO item VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
    kind = rng.random()
    if kind < 0.5:
        connection.execute("UPDATE item SET name = %s WHERE id = %s", (name, key))
    elif kind < 0.7:
        connection.execute("DELETE FROM item WHERE id = %s", (key,))
    elif kind < 0.9:
        connection.execute(insert, (key, name))
    else:
        with connection.transaction():
            connection.execute("DELETE FROM item WHERE id = %s", (key,))
            connection.execute(insert, ((key * 7919 + 1) % keys, name))


def fill(db: Db, rows: int) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    db.execute("INSERT INTO item SELECT i, 'old' FROM generate_series(0, %s - 1) i", (rows,))
    db.execute("ANALYZE item")


def test_a_first_start_reads_what_is_there(capture: Capture, db: Db) -> None:
    fill(db, 5000)
    capture.options["chunk_rows"] = 700
    capture.until_snapshot_done()
    assert [event.op for event in capture.events] == [Op.READ] * 5000
    assert all(event.snapshot for event in capture.events)
    stamps = [event.stamp for event in capture.events]
    assert stamps == sorted(set(stamps))
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_a_chunk_is_bounded_in_bytes(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    db.execute("INSERT INTO item SELECT i, repeat('x', 10000) FROM generate_series(1, 300) i")
    capture.options.update(chunk_bytes=100_000)
    capture.until_snapshot_done()
    commits = {event.stamp.commit for event in capture.events}
    assert len(capture.events) == 300
    assert len(commits) >= 25


def test_progress_is_counted(capture: Capture, db: Db) -> None:
    fill(db, 3000)
    capture.options["chunk_rows"] = 500
    capture.until(lambda: len(capture.events) >= 1000)
    assert capture.source is not None
    done, estimated = capture.source.status().snapshots["public.item"]
    assert 1000 <= done < 3000
    assert estimated == 3000


def test_a_kill_resumes_at_the_chunk(capture: Capture, db: Db) -> None:
    fill(db, 5000)
    capture.options["chunk_rows"] = 500
    capture.until(lambda: len(capture.events) >= 2000)
    capture.commits = False
    for _ in range(6):
        capture.step()
    capture.kill()
    capture.commits = True
    capture.until_snapshot_done()
    assert [int(event.after[0]) for event in capture.events if event.after] == list(range(5000))


@pytest.mark.parametrize("seed", range(3))
def test_a_snapshot_under_writers_and_kills_ends_equal(
    capture: Capture, db: Db, pg_database: str, seed: int
) -> None:
    fill(db, 3000)
    capture.options["chunk_rows"] = 150
    rng = random.Random(seed)  # noqa: S311 - a workload
    with busy(pg_database, 4, 3000):
        capture.until_streaming()
        while any(key.startswith("chunk/") for key in capture.progress):
            capture.step()
            if rng.random() < 0.03:
                capture.commits = False
                capture.step()
                capture.step()
                capture.kill()
                capture.commits = True
    capture.until_caught_up(db)
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")
    streamed = [event.stamp for event in capture.streamed("public.item")]
    assert streamed == sorted(set(streamed))


def test_a_backfill_under_writers_ends_equal(capture: Capture, db: Db, pg_database: str) -> None:
    fill(db, 2000)
    capture.options.update(chunk_rows=200, snapshot="never")
    capture.until_streaming()
    with busy(pg_database, 4, 2000):
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            capture.step()
        assert capture.source is not None
        capture.source.command("backfill", {"table": "public.item"})
        capture.until(lambda: any(event.snapshot for event in capture.events))
        capture.until_snapshot_done()
    capture.until_caught_up(db)
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_a_part_asked_for_in_the_middle_does_not_take_the_place_of_the_whole(
    capture: Capture, db: Db
) -> None:
    fill(db, 1000)
    capture.options.update(chunk_rows=100)
    capture.until_streaming()
    assert capture.source is not None
    for where in ("id = 3", "id = 700", "id = 3"):
        capture.source.command("backfill", {"table": "public.item", "where": where})
    capture.until_snapshot_done()
    capture.until_caught_up(db)
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_a_backfill_asked_for_before_there_is_a_slot_is_not_forgotten(
    capture: Capture, db: Db
) -> None:
    fill(db, 50)
    capture.options["snapshot"] = "never"
    capture.open().command("backfill", {"table": "public.item"})
    capture.until_streaming()
    capture.until_snapshot_done()
    capture.until_caught_up(db)
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_a_backfill_can_be_a_part_of_a_table(capture: Capture, db: Db) -> None:
    fill(db, 100)
    capture.options["snapshot"] = "never"
    capture.until_streaming()
    assert capture.source is not None
    capture.source.command("backfill", {"table": "public.item", "where": "id % 10 = 3"})
    capture.until(lambda: len(capture.events) == 10)
    assert {int(event.after[0]) % 10 for event in capture.events if event.after} == {3}


@pytest.mark.parametrize("where", ["no such column = 1", "id / 0 = 1", "id = 1) --"])
def test_a_condition_that_is_no_sql_is_refused_and_the_stream_goes_on(
    capture: Capture, db: Db, where: str
) -> None:
    fill(db, 100)
    capture.options["snapshot"] = "never"
    capture.until_streaming()
    source = capture.source
    assert source is not None
    source.command("backfill", {"table": "public.item", "where": where})
    capture.until(lambda: "refused" in source.status().waiting, "the refusal")
    db.execute("INSERT INTO item VALUES (1000, 'x')")
    capture.until_caught_up(db)
    assert [event.after for event in capture.events] == [(b"1000", b"x")]


def test_a_truncation_spoils_the_chunk_that_was_read_before_it(capture: Capture, db: Db) -> None:
    fill(db, 1000)
    capture.options["chunk_rows"] = 300
    capture.until(lambda: len(capture.events) >= 300)
    db.execute("TRUNCATE item; INSERT INTO item VALUES (5, 'new')")
    capture.until_snapshot_done()
    capture.until_caught_up(db)
    assert capture.model.rows("public.item") == [(b"5", b"new")]


def test_a_chunk_in_flight_knows_what_it_did_not_see_however_much_is_delivered(
    capture: Capture, db: Db, pg_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is delivered is forgotten once all see it; the chunk was read before that."""
    fill(db, 5)
    monkeypatch.setattr("cdc.snapshot._CROWD", 0)
    monkeypatch.setattr("cdc.postgres.session._PULL_ROWS", 1)
    read = ChunkReader.read
    with psycopg.connect(pg_database) as other:

        def read_meanwhile(self: ChunkReader, *arguments: Any) -> Any:
            other.execute("UPDATE item SET name = 'new' WHERE id = 3")
            chunk = read(self, *arguments)
            other.commit()
            return chunk

        monkeypatch.setattr(ChunkReader, "read", read_meanwhile)
        capture.until_snapshot_done()
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_keys_of_several_columns_are_read_in_the_order_of_their_index(
    capture: Capture, db: Db
) -> None:
    db.execute('CREATE TABLE "odd item" (a text, "B c" char(5), n int, PRIMARY KEY ("B c", a))')
    db.execute(
        "INSERT INTO \"odd item\" SELECT 'k' || i % 37, 'c' || i / 37, i"
        " FROM generate_series(0, 999) i"
    )
    capture.options["chunk_rows"] = 77
    capture.until_snapshot_done()
    assert capture.model.rows("public.odd item") == table_rows(db, 'SELECT * FROM "odd item"')
    assert capture.events[0].schema.key == ("a", "B c")


@contextmanager
def half_committed(url: str, statement: str) -> Iterator[None]:
    """Hold a transaction where the log delivers it and no snapshot sees it until the block ends.

    A commit that waits for a synchronous standby is in the log, and still running for others.
    """
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("SET synchronous_commit = local")
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        admin.execute("SELECT pg_reload_conf()")

        def commit() -> None:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(statement)

        writer = threading.Thread(target=commit)
        waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        wanted = "SELECT current_setting('synchronous_standby_names')"
        until_true(lambda: admin.execute(wanted).fetchone() == ("nobody",))
        writer.start()
        try:
            until_true(lambda: admin.execute(waits).fetchone() is not None)
            yield
        finally:
            admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            admin.execute("SELECT pg_reload_conf()")
            writer.join()


def until_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def own_server() -> Iterator[str]:
    """A database on a server of its own, whose settings a test may change."""
    with a_postgres(NEWEST) as server:
        yield server.create_database("shop")


def test_a_change_delivered_before_snapshots_see_it_is_not_undone(own_server: str) -> None:
    with (
        Capture(own_server, chunk_rows=100) as capture,
        psycopg.connect(own_server, autocommit=True) as db,
    ):
        db.execute("SET synchronous_commit = local")
        fill(db, 1000)
        capture.until(lambda: len(capture.events) >= 200)
        with half_committed(own_server, "UPDATE item SET name = 'new' WHERE id = 777"):
            capture.until(lambda: bool(capture.streamed("public.item")), "the update")
            capture.until_snapshot_done()
        capture.until_caught_up(db)
        assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_a_restart_waits_until_what_was_delivered_before_it_is_visible(own_server: str) -> None:
    with (
        Capture(own_server, chunk_rows=100) as capture,
        psycopg.connect(own_server, autocommit=True) as db,
    ):
        db.execute("SET synchronous_commit = local")
        fill(db, 1000)
        capture.until(lambda: len(capture.events) >= 200)
        with half_committed(own_server, "UPDATE item SET name = 'new' WHERE id = 777"):
            capture.until(lambda: bool(capture.streamed("public.item")), "the update")
            capture.kill()
            source = capture.open()
            capture.until(lambda: "visible" in source.status().waiting, "the wait")
        capture.until_snapshot_done()
        assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_a_backfill_waits_until_what_was_delivered_is_visible(own_server: str) -> None:
    with (
        Capture(own_server, snapshot="never") as capture,
        psycopg.connect(own_server, autocommit=True) as db,
    ):
        db.execute("SET synchronous_commit = local")
        fill(db, 1000)
        capture.until_streaming()
        with half_committed(own_server, "UPDATE item SET name = 'new' WHERE id = 777"):
            capture.until(lambda: bool(capture.streamed("public.item")), "the update")
            source = capture.source
            assert source is not None
            source.command("backfill", {"table": "public.item"})
            capture.until(lambda: "visible" in source.status().waiting, "the wait")
        capture.until_snapshot_done()
        assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_a_locked_table_is_waited_for_visibly(capture: Capture, db: Db, pg_database: str) -> None:
    fill(db, 10)
    capture.options["snapshot"] = "never"
    capture.until_streaming()
    with psycopg.connect(pg_database) as other:
        db.execute("ALTER TABLE item ALTER name SET DEFAULT 'x'")
        other.execute("LOCK TABLE item IN ACCESS EXCLUSIVE MODE")
        assert capture.source is not None
        source = capture.source
        source.command("backfill", {"table": "public.item"})
        capture.until(lambda: "locked" in source.status().waiting, "the lock")
    capture.until_snapshot_done()
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_never_reads_nothing_of_what_was_there(capture: Capture, db: Db) -> None:
    fill(db, 10)
    capture.options["snapshot"] = "never"
    capture.until_streaming()
    db.execute("INSERT INTO item VALUES (77, 'x')")
    capture.until_caught_up(db)
    assert [event.after for event in capture.events] == [(b"77", b"x")]


def test_only_reads_what_is_there_and_lets_go_of_the_slot(capture: Capture, db: Db) -> None:
    fill(db, 500)
    capture.options.update(snapshot="only", chunk_rows=200)

    def done() -> bool:
        return capture.source is not None and capture.source.status().state == "done"

    capture.until(done, "the end")
    slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
    assert db.execute(slots).fetchone() == (0,)
    db.execute("INSERT INTO item VALUES (1000, 'later')")
    capture.kill()
    capture.open()
    capture.step()
    assert done()
    assert len(capture.events) == 500
