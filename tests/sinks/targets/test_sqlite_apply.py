"""What holds inside one transaction of SQLite, whatever happens to the process and to the file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cdc.connector import Finding
from cdc.errors import DataError, PreflightFailed, StateError, TargetUnavailable
from fix_sqlite import CONTEXT, File, writes
from schemas.table import Column, TableId, TableSchema, Type
from sinks.sqlite import files, preflight
from sinks.target import Mapped, Step
from sinks.targets import sqlite
from sinks.testing import ITEMS, PLACE, span, upsert

AUDIT = (
    'CREATE TABLE "shop.items" (id INTEGER PRIMARY KEY, name TEXT, price TEXT)',
    "CREATE TABLE audit (op TEXT, id INTEGER)",
    """CREATE TRIGGER noted AFTER INSERT ON "shop.items"
       BEGIN INSERT INTO audit VALUES ('+', NEW.id); END""",
    """CREATE TRIGGER again AFTER UPDATE ON "shop.items"
       BEGIN INSERT INTO audit VALUES ('=', NEW.id); END""",
)
COUNT = 'SELECT count(*) FROM "shop.items"'
ONE, TWO = (b"1", b"pen", b"1.50"), (b"2", b"cup", None)


def test_what_is_committed_is_synced_and_readers_are_not_held_up(sqlite_file: File) -> None:
    target = sqlite_file.open(ITEMS)
    connection = target._connection
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    def steps() -> Iterator[Step]:
        yield from upsert(ONE)
        assert sqlite_file.rows(ITEMS.table) == []

    target.apply(steps(), [span(None, 1)])
    assert sqlite_file.rows(ITEMS.table) == [ONE]


# Constraints

ID = Column("id", Type("int64"))
PARENTS = TableSchema(TableId("public", "parents"), (ID, Column("name", Type("string"))), ("id",))
CHILDREN = TableSchema(TableId("public", "children"), (ID, Column("of", Type("int64"))), ("id",))
FAMILY = (
    "CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT UNIQUE)",
    'CREATE TABLE children (id INTEGER PRIMARY KEY, "of" INTEGER REFERENCES parents)',
)


def test_foreign_keys_are_judged_at_the_end_of_the_transaction(sqlite_file: File) -> None:
    sqlite_file.query(*FAMILY)
    target = sqlite_file.open(CHILDREN, PARENTS)
    child, parent = writes(CHILDREN, (b"1", b"7")), writes(PARENTS, (b"7", b"ann"))
    target.apply([[child], [parent]], [span(None, 1)])
    gone = [Mapped(PARENTS, [], [(b"7",)]), Mapped(CHILDREN, [], [(b"1",)])]
    target.apply([gone, [child, parent]], [span(1, 2)])
    emptied = Mapped(PARENTS, [(b"7", b"bob")], [], truncate=True)
    target.apply([[emptied]], [span(2, 3)])
    assert sqlite_file.rows(PARENTS.table) == [(b"7", b"bob")]
    assert sqlite_file.rows(CHILDREN.table) == [(b"1", b"7")]


def test_a_row_that_points_nowhere_refuses_the_batch(sqlite_file: File) -> None:
    sqlite_file.query(*FAMILY)
    target = sqlite_file.open(CHILDREN, PARENTS)
    with pytest.raises(DataError, match="FOREIGN KEY"):
        target.apply([[writes(CHILDREN, (b"1", b"8"))]], [span(None, 1)])
    assert target.cursors([PLACE]) == {PLACE: None}
    target.apply([[writes(PARENTS, (b"8", None))]], [span(None, 1)])


def test_a_rehearsal_finds_the_row_that_points_nowhere_and_no_other(sqlite_file: File) -> None:
    sqlite_file.query(*FAMILY)
    target = sqlite_file.open(CHILDREN, PARENTS)
    steps = [
        [writes(CHILDREN, (b"1", b"7"))],
        [writes(CHILDREN, (b"2", b"8"))],
        [writes(PARENTS, (b"7", b"ann"))],
        [writes(PARENTS, (b"9", b"ann"))],
    ]
    refused = target.rehearse([steps])
    assert sorted(refused) == [1, 3]
    assert "FOREIGN KEY" in str(refused[1])
    assert "UNIQUE" in str(refused[3])
    assert sqlite_file.rows(PARENTS.table) == []


def test_a_unique_value_is_handed_over_inside_a_step(sqlite_file: File) -> None:
    sqlite_file.query(*FAMILY)
    target = sqlite_file.open(PARENTS)
    target.apply([[writes(PARENTS, (b"1", b"ann"), (b"2", b"bob"))]], [span(None, 1)])
    handed = Mapped(PARENTS, [(b"2", b"free"), (b"3", b"ann"), (b"4", b"bob")], [(b"1",)])
    target.apply([[handed]], [span(1, 2)])
    named = "SELECT name FROM parents ORDER BY id"
    assert sqlite_file.query(named) == [("free",), ("ann",), ("bob",)]


def test_a_refusal_of_a_trigger_is_a_refusal_of_the_row(sqlite_file: File) -> None:
    sqlite_file.query(
        AUDIT[0],
        "CREATE TRIGGER no BEFORE INSERT ON \"shop.items\" WHEN NEW.name = 'cup' "
        "BEGIN SELECT RAISE(ABORT, 'no cups here'); END",
    )
    target = sqlite_file.open(ITEMS)
    assert "no cups here" in str(target.rehearse([[*upsert(ONE), *upsert(TWO)]])[1])


# The file


def test_a_locked_file_is_waited_for_and_its_holder_can_be_found(
    sqlite_file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BUSY_S", 0.05)
    target = sqlite_file.open(ITEMS)
    with closing(sqlite3.connect(sqlite_file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TargetUnavailable, match="locked") as caught:
            target.apply(upsert(ONE), [span(None, 1)])
        other.execute("ROLLBACK")
    assert f"fuser {sqlite_file.path}" in caught.value.hint
    target.apply(upsert(ONE), [span(None, 1)])


def test_a_full_disk_takes_nothing_and_the_same_batch_later(sqlite_file: File) -> None:
    target = sqlite_file.open(ITEMS)
    connection = target._connection
    assert connection is not None
    [(pages,)] = connection.execute("PRAGMA page_count").fetchall()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    rows = [(b"%d" % n, b"x" * 1000, None) for n in range(50)]
    with pytest.raises(TargetUnavailable, match="no room") as caught:
        target.apply(upsert(*rows), [span(None, 1)])
    assert f"df {sqlite_file.path.parent}" in caught.value.hint
    assert target.cursors([PLACE]) == {PLACE: None}
    connection.execute("PRAGMA max_page_count = 1000")
    target.apply(upsert(*rows), [span(None, 1)])


def test_a_file_that_is_no_database_stops_the_sink_and_is_left_as_it_is(sqlite_file: File) -> None:
    text = b"minutes of the meeting, not a database" * 100
    sqlite_file.path.write_bytes(text)
    with pytest.raises(StateError, match="no SQLite database"):
        sqlite_file.connect().open()
    assert sqlite_file.path.read_bytes() == text


def test_a_missing_folder_stops_the_sink_with_the_command_that_makes_it(tmp_path: Path) -> None:
    file = File(tmp_path / "not" / "there" / "shop.db")
    with pytest.raises(PreflightFailed) as caught:
        file.connect().open()
    subprocess.run(caught.value.hint.split(), check=True)
    with closing(file.open(ITEMS)) as target:
        target.apply(upsert(ONE), [span(None, 1)])


def test_a_place_that_is_no_file_stops_the_sink(tmp_path: Path) -> None:
    with pytest.raises(PreflightFailed, match="cannot be written"):
        File(tmp_path).connect().open()


def test_a_place_without_a_write_ahead_log_stops_the_sink() -> None:
    with pytest.raises(PreflightFailed, match="journal mode is memory"):
        files.connect(Path(":memory:"))


def test_a_file_taken_away_under_the_sink_is_not_written_to(sqlite_file: File) -> None:
    target = sqlite_file.open(ITEMS)
    target.apply(upsert(ONE), [span(None, 1)])
    sqlite_file.path.rename(sqlite_file.path.with_name("away.db"))
    with pytest.raises(TargetUnavailable, match="moved or removed"):
        target.apply(upsert(TWO), [span(1, 2)])
    target.open()
    assert target.cursors([PLACE]) == {PLACE: None}


def test_a_cursor_of_a_newer_version_is_refused(sqlite_file: File) -> None:
    target = sqlite_file.open()
    target.apply([], [span(None, 5)])
    sqlite_file.query("UPDATE tailrace_cursors SET version = 99")
    with pytest.raises(StateError, match="newer version"):
        target.cursors([PLACE])


# Commands


def found(file: File) -> dict[str, Finding]:
    return {finding.subject: finding for finding in sqlite.check(CONTEXT, file.config)}


def test_a_check_of_a_place_where_nothing_is_finds_nothing_wrong(tmp_path: Path) -> None:
    tables = {"shop.items": {"to": "crm.items"}}
    file = File(tmp_path / "shop.db", tables=tables)
    findings = found(file)
    assert {finding.level for finding in findings.values()} == {"ok"}
    assert list(findings) == ["version", "folder", "disk", "file", "crm.items"]
    assert not file.path.exists()
    frozen = found(File(tmp_path / "shop.db", tables=tables, schema_changes="frozen"))
    assert frozen["crm.items"].level == "fail"


def test_a_check_names_what_would_go_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_WAIT_S", 0.05)
    file = File(tmp_path / "shop.db", tables={"shop.items": {"to": "items"}}, buffer_bytes=10**18)
    file.query("CREATE VIEW items AS SELECT 1 AS id")
    assert found(file)["items"].level == "fail"
    assert "buffer_bytes" in found(file)["disk"].repair
    with closing(sqlite3.connect(file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "locked" in found(file)["file"].message
    monkeypatch.setattr(os, "access", lambda _path, _right: False)
    assert "chmod u+w" in found(file)["folder"].repair
    file.path.write_bytes(b"no database " * 1000)
    assert "no SQLite database" in found(file)["file"].message
    absent = File(tmp_path / "no" / "shop.db")
    assert found(absent)["folder"].repair == f"mkdir -p {tmp_path / 'no'}"
