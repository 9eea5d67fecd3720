"""A truncation of a table with several partitions, when several workers share them (R8)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import yaml

from cdc.errors import TargetUnavailable
from cdc.publish import Publisher
from fix_pipeline import ITEMS, item_batch, wait_until
from fix_sink import AUDIT, Sink, both_apply, changes, commit, insert, piece
from schemas.change import Change, Op
from schemas.table import TableId, TableSchema
from sinks.targets import postgres

MakeSink = Callable[..., Sink]
MakePublisher = Callable[..., Publisher]
COUNT = "SELECT count(*) FROM items"
EMPTY = Change(Op.TRUNCATE)
OTHERS = TableSchema(TableId("public", "others"), ITEMS.columns, ("id",))


def audited(sink: Sink) -> None:
    with psycopg.connect(sink.url, autocommit=True) as connection:
        connection.execute(AUDIT)


def inserts(sink: Sink) -> int:
    [(count,)] = sink.query("SELECT count(*) FROM audit WHERE op = 'INSERT'")
    return int(count)


def test_rows_before_a_truncation_go_and_rows_behind_it_stay(
    make_publisher: MakePublisher, make_sink: MakeSink
) -> None:
    publisher = make_publisher(partitions={"public.items": 4})
    workers = [make_sink(workers=2) for _ in range(2)]
    audited(workers[0])
    commit(publisher, item_batch(1, list(range(100))))
    for worker in workers:
        worker.start()
    workers[0].wait_for(COUNT, [(100,)])
    for number in range(2, 30, 3):
        commit(publisher, item_batch(number, list(range(number * 100, number * 100 + 50))))
        commit(publisher, piece(number + 1, changes(number + 1, EMPTY)))
        commit(publisher, item_batch(number + 2, list(range(20))))
    # After each round the table is as at the end: first all must have come.
    workers[0].wait_for("SELECT count(*) FROM audit WHERE op = 'INSERT'", [(100 + 10 * 70,)])
    workers[0].wait_for("SELECT id FROM items ORDER BY id", [(n,) for n in range(20)])
    assert [worker.failed for worker in workers] == [None, None]


def test_truncations_in_a_row_and_of_several_tables_are_passed_one_by_one(
    make_publisher: MakePublisher, make_sink: MakeSink
) -> None:
    publisher = make_publisher(partitions={"public.*": 3})
    commit(publisher, item_batch(1, list(range(30))), item_batch(2, list(range(30)), OTHERS))
    workers = [make_sink(workers=2).start() for _ in range(2)]
    both = "SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM others)"
    workers[0].wait_for(both, [(30, 30)])
    twice = changes(3, EMPTY, EMPTY)
    other = changes(3, EMPTY, schema=OTHERS, first=2)
    again = changes(3, EMPTY, first=3)
    behind = changes(3, insert(b"7", b"seven"), first=4)
    commit(publisher, piece(3, twice, other, again, behind))
    workers[0].wait_for(both, [(1, 0)])
    assert [worker.failed for worker in workers] == [None, None]


def test_a_partition_that_lags_holds_the_truncation_and_is_named(
    make_publisher: MakePublisher, make_sink: MakeSink
) -> None:
    publisher = make_publisher(partitions={"public.items": 2})
    workers = [make_sink(workers=2) for _ in range(2)]
    audited(workers[0])
    for worker in workers:
        worker.start()
    last = both_apply(publisher, workers)
    workers[0].wait_for(COUNT, [(last * 10,)])
    topic = workers[0].pipeline.topic()
    with psycopg.connect(workers[0].url) as holder:
        holder.execute("INSERT INTO items VALUES (-1, 'in the way')")
        commit(publisher, piece(last + 1, changes(last + 1, insert(b"-1", b"late"))))
        commit(publisher, piece(last + 2, changes(last + 2, EMPTY, insert(b"5", b"behind"))))

        def named() -> bool:
            return any(f"{topic}[" in worker.told.last.waiting for worker in workers)

        wait_until(named, "a worker waits and names the partition")
        assert "waiting" in {worker.told.last.state for worker in workers}
        assert workers[0].query(COUNT) == [(last * 10,)]
        holder.rollback()
    workers[0].wait_for("SELECT id, name FROM items", [(5, "behind")])
    wait_until(lambda: not any(w.told.last.waiting for w in workers), "nothing is waited for")


def test_a_worker_killed_while_it_truncates_has_truncated_nothing(
    make_publisher: MakePublisher, make_sink: MakeSink, tmp_path: Path
) -> None:
    publisher = make_publisher(partitions={"public.items": 4})
    sink = make_sink(workers=2)
    audited(sink)
    commit(publisher, item_batch(1, list(range(50))))
    commit(publisher, piece(2, changes(2, EMPTY)), item_batch(3, list(range(40, 60))))
    killed = subprocess.run(
        [sys.executable, "-m", "cdc", "sink", "mirror", "--worker", "0"],
        env={
            **os.environ,
            "CDC_CONFIG": str(written(sink, tmp_path)),
            "CDC_FAILPOINTS": "sink.before_release=kill",
        },
        timeout=60,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tailrace/%/sink/%'"
    sink.wait_for(gone, [(0,)])
    assert sink.query(COUNT) == [(50,)]
    other = make_sink(workers=2)
    sink.start()
    other.start()
    sink.wait_for("SELECT id FROM items ORDER BY id", [(n,) for n in range(40, 60)])
    assert inserts(sink) == 70


def written(sink: Sink, folder: Path) -> Path:
    kafka = sink.pipeline.kafka
    mirror = {"type": "postgres", "url": sink.url, "tables": [f"{sink.pipeline.source}.*"]}
    pipeline = {
        "pipeline": sink.pipeline.name,
        "kafka": {"bootstrap": kafka.bootstrap, "registry": kafka.registry.url},
        "sinks": {"mirror": {**mirror, "workers": 2}},
    }
    path = folder / "tailrace.yaml"
    path.write_text(yaml.safe_dump(pipeline))
    return path


def test_a_release_that_fails_half_way_is_done_again(
    make_publisher: MakePublisher, make_sink: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = make_publisher(partitions={"public.items": 2})
    workers = [make_sink(workers=2) for _ in range(2)]
    passed: list[str] = []

    def fail_once(name: str) -> None:
        passed.append(name)
        if name == "sink.before_release" and passed.count(name) == 1:
            raise TargetUnavailable("the connection is lost")

    monkeypatch.setattr(postgres, "failpoint", fail_once)
    commit(publisher, item_batch(1, list(range(20))), piece(2, changes(2, EMPTY)))
    commit(publisher, item_batch(3, [5]))
    for worker in workers:
        worker.start()
    workers[0].wait_for("SELECT id FROM items", [(5,)])
    assert passed.count("sink.before_release") == 2
