"""One topic into several tables, whatever the target is: each change once in each of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import duckdb as engine
import pytest

from cdc.errors import TargetUnavailable
from cdc.publish import Publisher
from fix_files import Files
from fix_http import Receiver
from fix_pipeline import Pipeline, wait_until
from fix_sink import Running, changes, commit, delete, insert, piece, update
from sinks.files.store import Store
from sinks.targets import duckdb, files, http, kafka, sqlite

PARTS: list[dict[str, Any]] = [
    {"to": "items"},
    {"to": "seen", "where": "name != 'hidden'", "fields": {"id": "id", "label": "name"}},
]
Run = Callable[..., Running]
ENDS = "SELECT id, name FROM items ORDER BY id", "SELECT id, label FROM seen ORDER BY id"
ITEMS, SEEN = [(1, "two"), (3, "hidden")], [(1, "two")]


@pytest.fixture
def run(pipeline: Pipeline, publisher: Publisher, run_into: Run) -> Run:
    """Publish a few changes, and start a sink for them."""
    first = changes(1, insert(b"1", b"one"), insert(b"2", b"two"), insert(b"3", b"three"))
    second = changes(2, update(b"1", b"two"), delete(b"2", None), update(b"3", b"hidden"))
    commit(publisher, piece(1, first), piece(2, second))
    return partial(run_into, tables={pipeline.topic(): PARTS})


def finish(running: Running) -> None:
    """Wait until all changes were applied, and stop."""

    def done() -> bool:
        running.check()
        return bool(running.told.batches) and running.told.last.lag_rows == 0

    wait_until(done, "every change is applied")
    running.stop()


def test_a_sqlite_file_has_both_tables(run: Run, tmp_path: Path) -> None:
    finish(run(sqlite, path=str(tmp_path / "a.db")))
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert [connection.execute(end).fetchall() for end in ENDS] == [ITEMS, SEEN]


def test_a_duckdb_file_has_both_tables(run: Run, tmp_path: Path) -> None:
    finish(run(duckdb, path=str(tmp_path / "a.duckdb")))
    with closing(engine.connect(str(tmp_path / "a.duckdb"))) as connection:
        assert [connection.execute(end).fetchall() for end in ENDS] == [ITEMS, SEEN]


def test_each_table_is_a_topic_of_kafka(run: Run, pipeline: Pipeline) -> None:
    finish(run(kafka, topic=f"{pipeline.name}-{{table}}"))
    kept: dict[tuple[str, bytes | None], bytes | None] = {}
    for table in ("items", "seen"):
        for record in pipeline.read(f"{pipeline.name}-{table}"):
            kept[table, record.key()] = record.value()
    rows = [(table, *json.loads(row).values()) for (table, _), row in kept.items() if row]
    assert sorted(rows) == [("items", 1, "two"), ("items", 3, "hidden"), ("seen", 1, "two")]


def test_files_of_a_range_appear_for_every_table_or_are_written_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, written = Store.put, list[str]()

    def fail_once(store: Store, path: str, content: bytes) -> None:
        written.append(path)
        if len(written) == 2:
            raise TargetUnavailable("the disk is away")
        put(store, path, content)

    monkeypatch.setattr(Store, "put", fail_once)
    running = run(files, path=str(tmp_path), format="jsonl", every=0)
    finish(running)
    rows = Files(str(tmp_path)).rows()
    told = {name: [row["cdc_op"] for row in rows if name in row] for name in ("name", "label")}
    assert told == {"name": ["c", "c", "c", "u", "d", "u"], "label": ["c", "c", "c", "u", "d", "d"]}
    assert "retrying" in running.told.states


def test_an_endpoint_is_sent_each_change_for_each_table_under_a_key_of_its_own(
    run: Run, receiver: Receiver
) -> None:
    receiver.judge = lambda _: (500, {}, b"") if len(receiver.asked) == 4 else None
    running = run(http, url=receiver.url)
    finish(running)
    asked = [(one.method, one.path.removeprefix("/api/"), one.key) for one in receiver.asked]
    by_key = {key: (method, path) for method, path, key in asked}
    assert len(by_key) == len(set(asked)) == 12
    assert [key.rpartition(":")[2] for key in by_key] == ["items", "seen"] * 6
    deleted = [path for method, path in by_key.values() if method == "DELETE"]
    assert deleted == ["items/2", "seen/2", "seen/3"]
    assert "retrying" in running.told.states
