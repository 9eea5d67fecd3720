"""Values the log leaves out are filled in where whoever follows could not have them (R6)."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from cdc.postgres.chunks import ChunkReader, Snapshot
from fix_capture import Capture, table_rows
from schemas.change import ABSENT

Db = psycopg.Connection[Any]


def fill(db: Db, rows: int) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, body text, n int)")
    db.execute("ALTER TABLE item ALTER body SET STORAGE external")
    body = "repeat(md5(i::text), 100)"
    db.execute(f"INSERT INTO item SELECT i, {body}, 0 FROM generate_series(1, {rows}) i")


def test_an_update_of_a_row_not_yet_read_is_whole(capture: Capture, db: Db) -> None:
    fill(db, 20)
    capture.options["chunk_rows"] = 5
    capture.until(lambda: len(capture.events) >= 5)
    db.execute("UPDATE item SET n = 1 WHERE id IN (3, 20)")
    capture.until_snapshot_done()
    update = next(event for event in capture.events if not event.snapshot)
    assert update.after is not None
    assert ABSENT not in update.after
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_an_update_that_keeps_back_a_row_of_its_chunk_is_whole(
    capture: Capture, db: Db, pg_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update is under way when the chunk is read, and has committed before its mark."""
    fill(db, 5)
    read = ChunkReader.read
    with psycopg.connect(pg_database) as other:

        def read_meanwhile(self: ChunkReader, *arguments: Any) -> Any:
            other.execute("UPDATE item SET n = 1 WHERE id = 4")
            chunk = read(self, *arguments)
            other.commit()
            return chunk

        monkeypatch.setattr(ChunkReader, "read", read_meanwhile)
        capture.until_snapshot_done()
    assert [event.snapshot for event in capture.events] == [False, True, True, True, True]
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_a_row_is_read_again_only_once_its_transaction_is_visible(
    capture: Capture, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log delivers a commit before snapshots see it: the row would still be the old one."""
    fill(db, 1)
    capture.until_snapshot_done()
    asked: list[bool] = []
    sees = Snapshot.sees

    def sees_late(self: Snapshot, xid: int) -> bool:
        asked.append(sees(self, xid))
        return len(asked) > 2 and asked[-1]

    monkeypatch.setattr(Snapshot, "sees", sees_late)
    db.execute("UPDATE item SET id = 2")
    capture.until_caught_up(db)
    assert len(asked) == 3
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")
