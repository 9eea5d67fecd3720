"""Files keep the contract of cursors, which lie in their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from fix_files import Files
from schemas.table import TableId
from sinks.target import Step
from sinks.targets.files import FilesTarget
from sinks.testing_changes import CHANGES, changed, told
from sinks.testing_cursors import CursorContract


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
