"""The next chunk is read while the last one leaves: no row is too old, no table stays locked."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from cdc.postgres.chunks import ChunkReader, Limits, Slice
from fix_capture import Capture, table_rows

Db = psycopg.Connection[Any]


def fill(db: Db, count: int) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    db.execute("INSERT INTO item SELECT i, 'old' FROM generate_series(1, %s) i", (count,))


def after_each_read_ahead(monkeypatch: pytest.MonkeyPatch, db: Db, *statements: str) -> list[str]:
    """Run one statement after each chunk that was read ahead; those that ran."""
    ahead, ran = ChunkReader.ahead, []

    def then_change(
        self: ChunkReader, what: Slice, after: tuple[str, ...] | None, limits: Limits
    ) -> None:
        ahead(self, what, after, limits)
        if after is not None and self._reading is not None and len(ran) < len(statements):
            self._reading.future.result()
            db.execute("SET lock_timeout = '5s'")
            db.execute(statements[len(ran)])
            ran.append(statements[len(ran)])

    monkeypatch.setattr(ChunkReader, "ahead", then_change)
    return ran


def test_what_changes_after_a_chunk_was_read_ahead_stands(
    capture: Capture, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(db, 9)
    ran = after_each_read_ahead(
        monkeypatch,
        db,
        "UPDATE item SET name = 'new' WHERE id IN (3, 5)",
        "DELETE FROM item WHERE id IN (4, 6, 8)",
        "UPDATE item SET id = 70 WHERE id = 7",
    )
    capture.options["chunk_rows"] = 2
    capture.until_snapshot_done()
    assert len(ran) == 3
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


@pytest.mark.parametrize(
    "statement",
    ["TRUNCATE item", "ALTER TABLE item ADD COLUMN more int DEFAULT 7"],
    ids=["emptied", "another shape"],
)
def test_a_chunk_read_ahead_of_a_change_to_the_whole_table_is_read_again(
    capture: Capture, db: Db, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """Nor does the statement wait: the table is not locked between two chunks."""
    fill(db, 9)
    ran = after_each_read_ahead(monkeypatch, db, statement)
    capture.options["chunk_rows"] = 2
    capture.until_snapshot_done()
    assert ran == [statement]
    db.execute("INSERT INTO item (id, name) VALUES (100, 'last')")
    rows = table_rows(db, "SELECT * FROM item")
    capture.until(lambda: capture.model.rows("public.item") == rows, "all rows as they are")


def test_a_read_that_waits_for_a_lock_is_given_up_at_once(
    capture: Capture, db: Db, pg_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(db, 9)
    readers: list[ChunkReader] = []
    ahead = ChunkReader.ahead

    def locked(self: ChunkReader, *asked: Any) -> None:
        db.execute("BEGIN; LOCK TABLE item")
        ahead(self, *asked)
        readers.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(ChunkReader, "ahead", locked)
    capture.options["chunk_rows"] = 2
    with pytest.raises(KeyboardInterrupt):
        capture.until_snapshot_done()
    reading = readers[0]._reading
    assert reading is not None
    assert not reading.future.done()
    readers[0].close()
    assert isinstance(reading.future.exception(), psycopg.OperationalError)
    db.execute("ROLLBACK")
