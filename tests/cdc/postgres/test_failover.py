"""A server that was promoted, restarted or cut off: accepted when history allows it, by proof."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from cdc.errors import GapError, SourceUnavailable
from cdc.local import LocalPostgres
from cdc.postgres import slot
from cdc.postgres.catalog import Catalog
from fix_capture import Capture
from fix_stack import NEWEST


@pytest.fixture
def server() -> Iterator[LocalPostgres]:
    with LocalPostgres(NEWEST) as started:
        yield started


@pytest.fixture
def url(server: LocalPostgres) -> str:
    made = server.create_database("shop")
    execute(made, "CREATE TABLE item (id int PRIMARY KEY)")
    return made


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def insert(url: str, number: int) -> None:
    execute(url, f"INSERT INTO item VALUES ({number})")


def promote(server: LocalPostgres, url: str) -> None:
    """Let the server recover from its own log and begin a new timeline, as a promotion does."""
    execute(url, "ALTER SYSTEM SET restore_command = 'false'")
    (server.data / "recovery.signal").touch()
    server.server.restart()
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
            continue
        connection.execute("CHECKPOINT")


def test_a_timeline_that_forked_behind_us_is_followed(server: LocalPostgres, url: str) -> None:
    with Capture(url) as capture:
        capture.until_snapshot_done()
        insert(url, 1)
        capture.until(lambda: len(capture.events) == 1)
        capture.kill()
        insert(url, 2)
        promote(server, url)
        insert(url, 3)
        capture.until(lambda: len(capture.events) == 3)
        assert [event.after for event in capture.events] == [(b"1",), (b"2",), (b"3",)]
        assert capture.position is not None
        assert capture.position["timeline"] == 2


def test_a_timeline_that_forked_before_us_is_a_gap(server: LocalPostgres, url: str) -> None:
    with Capture(url) as capture:
        capture.until_snapshot_done()
        capture.kill()
        assert capture.position is not None
        capture.position["confirmed_lsn"] += 1 << 30
        promote(server, url)
        with pytest.raises(GapError, match="timeline 2, which forked at") as caught:
            capture.open()
        assert "cdc position reset" in caught.value.hint


def test_a_server_killed_under_us_is_unavailable_and_then_loses_nothing(
    server: LocalPostgres, url: str
) -> None:
    with Capture(url) as capture:
        capture.until_snapshot_done()
        insert(url, 1)
        capture.until(lambda: len(capture.events) == 1)
        server.server.kill()
        with pytest.raises(SourceUnavailable):
            capture.until(lambda: False)
        capture.kill()
        server.server.restart()
        insert(url, 2)
        capture.until(lambda: len(capture.events) == 2)
        assert [event.after for event in capture.events] == [(b"1",), (b"2",)]


def test_log_that_was_removed_is_a_gap(server: LocalPostgres, url: str) -> None:
    with Capture(url) as capture:
        capture.until_snapshot_done()
        capture.kill()
        execute(url, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
        with psycopg.connect(url, autocommit=True) as connection:
            lost = "SELECT wal_status = 'lost' FROM pg_replication_slots"
            while connection.execute(lost).fetchone() != (True,):
                connection.execute("SELECT pg_switch_wal()")
                connection.execute("CREATE TABLE IF NOT EXISTS other (id int)")
                connection.execute("INSERT INTO other SELECT generate_series(1, 100000)")
                connection.execute("CHECKPOINT")
        with pytest.raises(GapError, match="was removed"):
            capture.open()


def test_a_slot_still_held_by_a_former_owner_is_taken_over(url: str) -> None:
    with Capture(url) as former, Capture(url) as successor:
        former.until_snapshot_done()
        successor.position, successor.progress = former.position, former.progress
        insert(url, 1)
        successor.until(lambda: len(successor.events) == 1)
        with pytest.raises(SourceUnavailable):
            former.until(lambda: False)


def test_a_worker_that_stood_still_does_not_drop_the_slot_of_its_successor(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may stand still between any two statements, and begin anew where another one has."""
    with Capture(url) as former, Capture(url) as successor:
        former.until_streaming()
        former.kill()
        assert former.position is not None
        former.position["creating"] = True
        successor.position = dict(former.position)
        former.commits = False
        former.until(former.step, "the announcement")
        frees = slot.free_slot

        def overtaken(catalog: Catalog, name: str, *, at: int | None = None) -> None:
            frees(catalog, name, at=at)
            monkeypatch.setattr(slot, "free_slot", frees)
            successor.until_snapshot_done()

        monkeypatch.setattr(slot, "free_slot", overtaken)
        with pytest.raises(SourceUnavailable, match="by another worker"):
            former.commit()
        former.kill()
        insert(url, 1)
        successor.until(lambda: len(successor.events) == 1)
