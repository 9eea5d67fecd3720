"""Files keep the contract of cursors, which lie in their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from fix_files import Files
from schemas.table import TableId
from sinks.target import Cursor, CursorMoved, Step, Target
from sinks.targets.files import FilesTarget
from sinks.testing_changes import CHANGES, changed, told
from sinks.testing_cursors import PLACE, CursorContract, TargetSystem, span


class Journal:
    """A store, as the suite looks at it: each change is a row of its own."""

    def __init__(self, store: Files) -> None:
        self._store = store

    def connect(self) -> FilesTarget:
        return self._store.connect()

    def rows(self, table: TableId) -> Sequence[tuple[bytes | None, ...]]:
        assert table == CHANGES.table
        return sorted((str(row["id"]).encode(),) for row in self._store.rows())


class TestFiles(CursorContract):
    """The suite, on a store of its own each time."""

    tables = (CHANGES,)

    @pytest.fixture
    def system(self, store: Files) -> Journal:
        return Journal(store)

    def rows_of(self, *ids: bytes) -> Iterable[Step]:
        return [step for i in ids for step in told(changed(int(i), i, b"row " + i, None))]

    def test_of_two_workers_at_the_same_place_one_writes(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Names are read once, when a worker begins: who began before is not told."""
        target.apply(self.rows_of(b"1"), [span(None, 7)])
        other = self.opened(system)
        with pytest.raises(CursorMoved):
            other.apply(self.rows_of(b"9"), [span(None, 8)])
        other.apply(self.rows_of(b"2"), [span(7, 8)])
        assert self.ids(system) == [b"1", b"2"]

    def test_an_operator_may_put_a_cursor_anywhere(self, target: Target) -> None:
        """A file is not cut: inside of a range the cursor goes to where it begins."""
        target.apply([], [span(None, 4)])
        target.place({PLACE: None})
        assert target.cursors([PLACE]) == {PLACE: None}
        target.apply([], [span(None, 4)])
        target.apply(self.rows_of(b"5"), [span(4, 7)])
        target.place({PLACE: Cursor(6, None)})
        assert target.cursors([PLACE]) == {PLACE: Cursor(0)}
        with pytest.raises(CursorMoved):
            target.apply([], [span(7, 8)])
        target.place({PLACE: Cursor(9, None)})
        assert target.cursors([PLACE]) == {PLACE: Cursor(9)}
