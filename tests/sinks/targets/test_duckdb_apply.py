"""What holds inside one transaction of DuckDB, whatever happens to the process and to the file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cdc.connector import Finding
from cdc.errors import DataError, PreflightFailed, StateError, TargetUnavailable
from fix_duckdb import CONTEXT, DuckFile
from schemas.change import ABSENT
from sinks.duckdb import files, preflight
from sinks.target import Mapped, Step
from sinks.targets import duckdb
from sinks.testing import ITEMS, PLACE, span, upsert

COUNT = "SELECT count(*) FROM shop.shop.items"
ONE, TWO = (b"1", b"pen", b"1.50"), (b"2", b"cup", None)
HOLDER = """
import sys, duckdb
with duckdb.connect(sys.argv[1]):
    print("here", flush=True)
    sys.stdin.read()
"""
FULL = """
import resource, sys
from pathlib import Path
from cdc.connector import Context
from cdc.errors import TargetUnavailable
from sinks.targets.duckdb import Config, create
from sinks.testing import ITEMS, span, upsert

config = Config.model_validate({"path": Path(sys.argv[1]), "tables": ["shop.*"]})
target = create(Context("shop", "lake"), config)
target.open()
target.prepare(ITEMS)
resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, resource.RLIM_INFINITY))
rows = [(b"%d" % n, b"%d" % n * 1000, None) for n in range(1000)]
try:
    target.apply(upsert(*rows), [span(None, 1)])
except TargetUnavailable as error:
    print(error, error.hint)
"""


def ran(code: str, *arguments: str, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "CDC_FAILPOINTS": failpoint, "PYTHONPATH": "."},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


@contextmanager
def held(file: DuckFile) -> Iterator[int]:
    """Have the file in another process; its id."""
    command = [sys.executable, "-c", HOLDER, str(file.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"here\n"
        yield holder.pid


def test_spans_of_a_batch_larger_than_memory_are_read_at_its_end(duckdb_file: DuckFile) -> None:
    target = duckdb_file.open()
    spans = [span(None, 1)][:0]

    def steps() -> Iterator[Step]:
        target.prepare(ITEMS)  # a table that is met on the way
        for number in range(5):
            yield from upsert((b"%d" % number, None, None))
        spans.append(span(None, 7))

    target.apply(steps(), spans)
    assert target.cursors([PLACE]) == {PLACE: span(None, 7).end}
    assert duckdb_file.query(COUNT) == [(5,)]


def test_a_step_that_a_constraint_refuses_leaves_nothing_and_is_named(
    duckdb_file: DuckFile,
) -> None:
    duckdb_file.query(
        "CREATE SCHEMA shop.shop",
        "CREATE TABLE shop.shop.items (id BIGINT PRIMARY KEY, name VARCHAR UNIQUE, "
        "price DECIMAL(12,2) CHECK (price < 100))",
    )
    target = duckdb_file.open(ITEMS)
    steps = [
        *upsert(ONE),
        *upsert((b"2", b"dear", b"100.00")),
        *upsert((b"3", b"pen", None)),
        *upsert((b"4", ABSENT, b"1.00")),
        *upsert((b"5", b"jar", None)),
    ]
    assert sorted(target.rehearse([steps])) == [1, 2, 3]
    with pytest.raises(DataError, match="CHECK"):
        target.apply(steps, [span(None, 1)])
    assert duckdb_file.rows(ITEMS.table) == []
    target.apply([steps[0], steps[4]], [span(None, 1)])
    handed = Mapped(ITEMS, [(b"5", b"free", None), (b"6", b"pen", None)], [(b"1",)])
    target.apply([[handed]], [span(1, 2)])
    assert [row[1] for row in duckdb_file.rows(ITEMS.table)] == [b"free", b"pen"]


# The file


def test_the_file_is_free_and_whole_between_batches(duckdb_file: DuckFile) -> None:
    target = duckdb_file.open(ITEMS)
    target.apply(upsert(ONE), [span(None, 1)])
    copy = duckdb_file.path.read_bytes()
    with held(duckdb_file):
        assert sorted(duckdb_file.path.parent.iterdir()) == [duckdb_file.path]
    target.apply(upsert(TWO), [span(1, 2)])
    duckdb_file.path.with_name("copy.duckdb").write_bytes(copy)
    with closing(DuckFile(duckdb_file.path.with_name("copy.duckdb")).open(ITEMS)) as other:
        assert other.cursors([PLACE]) == {PLACE: span(None, 1).end}


def test_a_file_that_another_process_has_is_waited_for_and_its_holder_is_named(
    duckdb_file: DuckFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BUSY_S", 0.05)
    monkeypatch.setattr(preflight, "_WAIT_S", 0.05)
    target = duckdb_file.open(ITEMS)
    with held(duckdb_file) as holder:
        with pytest.raises(TargetUnavailable, match=rf"another process.*PID {holder}") as caught:
            target.apply(upsert(ONE), [span(None, 1)])
        assert found(duckdb_file)["file"].level == "warn"
    assert "Close it there" in caught.value.hint
    target.apply(upsert(ONE), [span(None, 1)])


def test_a_disk_that_takes_no_more_leaves_the_batch_undone(duckdb_file: DuckFile) -> None:
    done = ran(FULL, str(duckdb_file.path))
    assert "could not be written" in done.stdout, done.stderr
    assert f"df {duckdb_file.path.parent}" in done.stdout
    assert duckdb_file.query(COUNT) == [(0,)]
    target = duckdb_file.open(ITEMS)
    assert target.cursors([PLACE]) == {PLACE: None}
    target.apply(upsert(ONE), [span(None, 1)])


def test_a_batch_larger_than_the_memory_says_which_option_to_raise(tmp_path: Path) -> None:
    small = DuckFile(tmp_path / "shop.duckdb", memory_limit="4MB")
    rows = [(b"%d" % n, b"%d" % n * 2000, None) for n in range(2000)]
    with closing(small.open(ITEMS)) as target, pytest.raises(TargetUnavailable) as caught:
        target.apply(upsert(*rows), [span(None, 1)])
    assert "memory_limit" in caught.value.hint


def test_a_file_that_is_no_database_stops_the_sink_and_is_left_as_it_is(
    duckdb_file: DuckFile,
) -> None:
    text = b"minutes of the meeting, not a database" * 100
    duckdb_file.path.write_bytes(text)
    with pytest.raises(StateError, match="no DuckDB file"):
        duckdb_file.connect().open()
    assert duckdb_file.path.read_bytes() == text


def test_a_missing_folder_stops_the_sink_with_the_command_that_makes_it(tmp_path: Path) -> None:
    file = DuckFile(tmp_path / "not" / "there" / "shop.duckdb")
    with pytest.raises(PreflightFailed) as caught:
        file.connect().open()
    subprocess.run(caught.value.hint.split(), check=True)
    with closing(file.open(ITEMS)) as target:
        target.apply(upsert(ONE), [span(None, 1)])


def test_a_place_that_is_no_file_stops_the_sink(tmp_path: Path) -> None:
    with pytest.raises(PreflightFailed, match="cannot be opened"):
        DuckFile(tmp_path).connect().open()


def test_a_file_taken_away_under_the_sink_is_not_written_to(duckdb_file: DuckFile) -> None:
    target = duckdb_file.open(ITEMS)
    target.apply(upsert(ONE), [span(None, 1)])
    duckdb_file.path.rename(duckdb_file.path.with_name("away.duckdb"))
    with pytest.raises(TargetUnavailable, match="moved or removed"):
        target.apply(upsert(TWO), [span(1, 2)])
    assert not duckdb_file.path.exists()
    target.open()
    assert target.cursors([PLACE]) == {PLACE: None}


def test_a_table_dropped_under_the_sink_stops_it(duckdb_file: DuckFile) -> None:
    target = duckdb_file.open(ITEMS)
    duckdb_file.query("DROP TABLE shop.shop.items")
    with pytest.raises(StateError, match="changed under the sink"):
        target.apply(upsert(ONE), [span(None, 1)])


# Commands


def found(file: DuckFile) -> dict[str, Finding]:
    return {finding.subject: finding for finding in duckdb.check(CONTEXT, file.config)}


def test_a_check_of_a_place_where_nothing_is_finds_nothing_wrong(tmp_path: Path) -> None:
    tables = {"shop.items": {"to": "crm.items"}}
    file = DuckFile(tmp_path / "shop.duckdb", tables=tables)
    findings = found(file)
    assert {finding.level for finding in findings.values()} == {"ok"}
    assert list(findings) == ["version", "folder", "disk", "file", "crm.items"]
    assert not file.path.exists()
    frozen = found(DuckFile(tmp_path / "shop.duckdb", tables=tables, schema_changes="frozen"))
    assert frozen["crm.items"].level == "fail"


def test_a_check_names_what_would_go_wrong(tmp_path: Path) -> None:
    tables = {"shop.items": {"to": "items"}}
    file = DuckFile(tmp_path / "shop.duckdb", tables=tables, buffer_bytes=10**18)
    file.query("CREATE VIEW items AS SELECT 1 AS id")
    assert found(file)["items"].level == "fail"
    assert "buffer_bytes" in found(file)["disk"].repair
    file.path.write_bytes(b"no database " * 1000)
    assert "no DuckDB file" in found(file)["file"].message
    absent = DuckFile(tmp_path / "no" / "shop.duckdb")
    assert found(absent)["folder"].repair == f"mkdir -p {tmp_path / 'no'}"
