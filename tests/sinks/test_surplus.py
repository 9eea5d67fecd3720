"""Deleting surplus rows beside a sink that moves its cursors meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import pytest

from cdc.errors import StateError, TargetUnavailable
from fix_pipeline import ITEMS
from schemas.table import TableSchema
from sinks.surplus import remove
from sinks.target import Cursor, CursorMoved, Span, Step, Target, TopicPartition

PLACE = TopicPartition("t", "id", 0)


class Moving:
    """A target whose sink applies something `moves` times, each time just before a delete."""

    def __init__(self, moves: int = 0, offset: int | None = 5) -> None:
        self.moves, self.offset = moves, offset
        self.deleted: list[Sequence[Any]] = []

    def prepare(self, schema: TableSchema, *, known: bool = False) -> None:
        assert (schema, known) == (ITEMS, True)

    def cursors(
        self, _partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Cursor | None]:
        return {PLACE: None if self.offset is None else Cursor(self.offset)}

    def apply(self, steps: Iterable[Step], spans: Sequence[Span]) -> None:
        if self.moves and self.offset is not None:
            self.moves, self.offset = self.moves - 1, self.offset + 1
        [span] = spans
        assert span.start == span.end
        if span.end != Cursor(self.offset or 0):
            raise CursorMoved("elsewhere", {})
        [[mapped]] = list(steps)
        self.deleted += mapped.deletes


def surplus_of(target: Moving, looks: list[list[Any]]) -> int:
    return remove(cast("Target", target), ITEMS, [PLACE], lambda: looks.pop(0))


def test_rows_are_deleted_where_the_cursor_stays() -> None:
    target = Moving()
    assert surplus_of(target, [[(b"1",)]]) == 1
    assert target.deleted == [(b"1",)]


def test_the_source_is_looked_at_again_when_the_sink_moved() -> None:
    target = Moving(moves=1)
    assert surplus_of(target, [[(b"1",), (b"2",)], [(b"2",)]]) == 1
    assert target.deleted == [(b"2",)]


def test_nothing_is_deleted_that_the_source_has_by_now() -> None:
    target = Moving(moves=1)
    assert surplus_of(target, [[(b"1",)], []]) == 0
    assert target.deleted == []


def test_a_sink_that_never_began_is_left_alone() -> None:
    with pytest.raises(StateError, match="no cursor"):
        surplus_of(Moving(offset=None), [[(b"1",)]])


def test_a_sink_that_never_stands_still_is_given_up() -> None:
    with pytest.raises(TargetUnavailable, match="at each of 100 attempts"):
        surplus_of(Moving(moves=1000), [[(b"1",)]] * 200)
