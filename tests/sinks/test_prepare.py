"""Tables are prepared before rows reach them, also those that are found in the meantime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.table import TableId, TableSchema
from sinks.applier import Applier, Cut


class SlowTarget:
    """While it prepares its first table, the reading thread finds a second one."""

    def __init__(self, tables: list[tuple[TableSchema, bool]]) -> None:
        self._tables = tables
        self.prepared: list[str] = []

    def prepare(self, schema: TableSchema, *, known: bool) -> None:
        if not self.prepared:
            self._tables.append((table("second"), known))
        self.prepared.append(schema.table.name)

    def apply(self, steps: Any, spans: Any) -> None:
        assert not list(steps)
        assert not spans


def table(name: str) -> TableSchema:
    return TableSchema(TableId("public", name), (), ())


class NoLetters:
    """Nothing is put aside."""

    def sift(self, events: Sequence[Any]) -> Sequence[Any]:
        return events


def test_a_table_found_while_another_is_prepared_is_prepared_for_the_next_cut() -> None:
    tables = [(table("first"), False)]
    target: Any = SlowTarget(tables)
    letters: Any = NoLetters()
    applier = Applier(target, letters, tables, lambda _events: True)
    applier.apply(Cut([], [], 0))
    applier.apply(Cut([], [], 0))
    assert target.prepared == ["first", "second"]
