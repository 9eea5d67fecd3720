"""`max_retained_wal`: who looks at what the slot keeps, and what is done when it is too much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from cdc.connector import Context
from cdc.errors import CdcError, GapError, KafkaUnavailable
from cdc.postgres.retention import Retention
from cdc.source import SourceStatus
from cdc.sources.postgres import Config, create
from cdc.worker import Command, SourceJob, run_source
from fix_capture import Capture

Db = psycopg.Connection[Any]
MIB = 1 << 20
LIMIT = 8 * MIB


def write_log(db: Db, mebibytes: int) -> None:
    query = "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1048576))"
    for _ in range(mebibytes):
        db.execute(query)


def slots(db: Db) -> list[Any]:
    return db.execute("SELECT slot_name FROM pg_replication_slots").fetchall()


def said(capture: Capture) -> str:
    assert capture.source is not None
    return capture.source.status().waiting


def bounded(capture: Capture, policy: str) -> None:
    capture.options.update(max_retained_wal=LIMIT, max_retained_wal_policy=policy)


def test_what_the_slot_keeps_is_said_when_it_nears_the_bound(capture: Capture, db: Db) -> None:
    bounded(capture, "warn")
    capture.until_streaming()
    capture.commits = False
    write_log(db, 7)
    capture.until(lambda: "max_retained_wal is 8 MiB" in said(capture))
    write_log(db, 7)
    capture.until(lambda: "keeps 14 MiB" in said(capture))
    assert slots(db)


def test_snapshots_pause_until_the_stream_has_caught_up(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    db.execute("INSERT INTO item SELECT generate_series(1, 100)")
    bounded(capture, "pause")
    capture.options["snapshot"] = "never"
    capture.until_streaming()
    capture.commits = False
    write_log(db, 12)
    capture.until(lambda: "keeps 12 MiB" in said(capture))
    assert capture.source is not None
    capture.source.command("backfill", {"table": "public.item"})
    capture.until(lambda: "snapshots wait: " in said(capture))
    assert not capture.of("public.item")
    capture.commits = True

    def read() -> bool:
        db.execute("SELECT pg_log_standby_snapshot()")
        return len(capture.of("public.item")) == 100

    capture.until(read, "the table to be read")


def test_a_slot_over_the_bound_is_dropped_and_the_source_stops(capture: Capture, db: Db) -> None:
    bounded(capture, "drop")
    capture.until_streaming()
    capture.commits = False
    write_log(db, 12)
    with pytest.raises(GapError, match="dropped to save the server's disk") as caught:
        capture.until(lambda: False)
    assert "cdc position reset" in caught.value.hint
    assert slots(db) == []


def test_a_source_that_is_not_open_drops_its_slot_too(capture: Capture, db: Db) -> None:
    bounded(capture, "drop")
    capture.until_streaming()
    capture.kill()
    write_log(db, 12)
    watching: Any = create(capture.context(), capture.config())
    with pytest.raises(GapError, match="max_retained_wal is 8 MiB"):
        capture.wait_for(lambda: watching.watch().retained_bytes == -1)
    assert slots(db) == []


def test_after_a_drop_a_source_that_may_begins_anew(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    db.execute("INSERT INTO item VALUES (1)")
    bounded(capture, "drop")
    capture.options["snapshot"] = "when_needed"
    capture.until_snapshot_done()
    capture.kill()
    write_log(db, 12)
    watching: Any = create(capture.context(), capture.config())
    capture.wait_for(lambda: watching.watch() and slots(db) == [])
    db.execute("INSERT INTO item VALUES (2)")
    capture.until_snapshot_done()
    capture.until(lambda: capture.model.rows("public.item") == [(b"1",), (b"2",)])


def test_a_source_without_a_bound_is_not_even_asked() -> None:
    config = Config.model_validate({"url": "postgresql://nobody@127.0.0.1:1/nothing"})
    source: Any = create(Context("test", "shop"), config)
    assert source.watch() == SourceStatus()


class Fake:
    """A source that nobody can open, with a slot that grows by 1 each time it is watched."""

    looks = 0

    def watch(self) -> SourceStatus:
        Fake.looks += 1
        if Fake.looks == 2:
            raise GapError("the slot was dropped")
        return SourceStatus(waiting="the slot keeps more and more", retained_bytes=Fake.looks)

    def close(self) -> None:
        """Nothing is open."""


class Away:
    """A publisher whose broker is away, and all that a worker reports and asks."""

    def __init__(self, commands: Sequence[Command] = ()) -> None:
        self.commands = list(commands)
        self.seen: list[SourceStatus] = []

    def acquire(self, _claim: object) -> None:
        raise KafkaUnavailable("the broker is away")

    def poll(self) -> list[Command]:
        commands, self.commands = self.commands, []
        return commands

    def rewind(self) -> None:
        """Nothing was delivered."""

    def beat(self, status: SourceStatus, _error: CdcError | None) -> None:
        self.seen.append(status)

    def close(self) -> None:
        """Nothing is open."""


def test_a_worker_whose_broker_is_away_still_watches_the_slot() -> None:
    Fake.looks, away = 0, Away()
    anything: Any = away
    fake: Any = Fake
    job = SourceJob(fake, lambda: anything, anything, anything, lambda: False, lambda _: 0.05)
    with pytest.raises(GapError, match="dropped"):
        run_source(job)
    assert {status.state for status in away.seen} == {"acquiring", "retrying"}
    assert away.seen[1].retained_bytes == 1


@pytest.mark.parametrize(
    ("sizes", "said", "over"),
    [
        ([0], False, False),
        ([6 * MIB], False, False),
        ([7 * MIB], True, False),
        ([9 * MIB], True, True),
        ([9 * MIB, 7 * MIB], True, True),
        ([9 * MIB, 6 * MIB], False, False),
    ],
)
def test_too_much_ends_only_well_below_the_bound(
    sizes: list[int],
    said: bool,  # noqa: FBT001 - a row of the table above
    over: bool,  # noqa: FBT001 - the same
) -> None:
    settings: Any = type("S", (), {"slot": "s", "max_retained_wal": LIMIT})
    settings.max_retained_wal_policy = "pause"
    retention = Retention(settings)
    nothing: Any = None
    for size in sizes:
        retention.weigh(nothing, size)
    assert (bool(retention.said), retention.over, retention.pauses) == (said, over, over)
