"""What a cursor is, wherever it is kept: the suite that every target passes, and its vocabulary.

Subclass one of those built on it: `sinks/testing.py` says which.
"""

# ruff: noqa: S101 - a suite speaks in asserts

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec
import pytest

from cdc.errors import TopicChanged
from schemas.change import Cell, Stamp
from schemas.table import Column, TableId, TableSchema, Type
from sinks.target import Barrier, Cursor, CursorMoved, Mapped, Span, Step, Target, TopicPartition

__all__ = [
    "EMPTIED",
    "ITEMS",
    "NOTES",
    "PLACE",
    "SECOND",
    "CursorContract",
    "TargetSystem",
    "barrier",
    "cursor",
    "span",
    "upsert",
]

PLACE = TopicPartition("shop.public.items", "topic-1", 0)
SECOND = TopicPartition("shop.public.items", "topic-1", 1)
EMPTIED = Stamp(1, 500, 2)
ITEMS = TableSchema(
    TableId("shop", "items"),
    (
        Column("id", Type("int64")),
        Column("name", Type("string")),
        Column("price", Type("decimal", "", 12, 2)),
    ),
    ("id",),
)
NOTES = TableSchema(TableId("shop", "notes"), (Column("text", Type("string")),))


class TargetSystem(Protocol):
    """What the suite needs to know of the system behind the target."""

    def connect(self) -> Target:
        """Return a target on the same place, not yet open."""
        ...

    def rows(self, table: TableId) -> Sequence[tuple[bytes | None, ...]]:
        """Return the committed rows as text, sorted."""
        ...


def span(start: int | None, end: int, partition: TopicPartition = PLACE) -> Span:
    """Return a span between two offsets; stamps follow the offsets."""
    first = None if start is None else cursor(start)
    return Span(partition, first, cursor(end))


def cursor(offset: int) -> Cursor:
    """Return the cursor at an offset, with the stamp that follows it."""
    return Cursor(offset, Stamp(1, offset * 10, 3, 1))


def barrier(*spans: Span) -> Barrier:
    """Return a truncation of the suite's table, which has two partitions, with `spans` at it."""
    return Barrier(ITEMS, EMPTIED, snapshot=False, spans=spans, partitions=2)


def upsert(*rows: Sequence[Cell], schema: TableSchema = ITEMS) -> list[list[Mapped]]:
    """Return one step that writes `rows`."""
    return [[Mapped(schema, list(rows), [])]]


class CursorContract:
    """Promises of `sinks.target.Target` about cursors, one test each."""

    tables: Sequence[TableSchema] = (ITEMS, NOTES)

    def rows_of(self, *ids: bytes) -> Iterable[Step]:
        """Return what writes a row of each of `ids`, each in a step of its own."""
        return [step for i in ids for step in upsert((i, b"row " + i, None))]

    def ids(self, system: TargetSystem) -> list[bytes | None]:
        """Return the ids of the rows there are."""
        return [row[0] for row in system.rows(ITEMS.table)]

    def opened(self, system: TargetSystem) -> Target:
        """Return another target, ready for the suite's tables."""
        target = system.connect()
        target.open()
        for schema in self.tables:
            target.prepare(schema)
        return target

    @pytest.fixture
    def target(self, system: TargetSystem) -> Target:
        """Open a target prepared for the suite's tables."""
        return self.opened(system)

    def test_nothing_was_applied_before_the_first_batch(self, target: Target) -> None:
        """A partition never seen has no cursor."""
        assert target.cursors([PLACE]) == {PLACE: None}

    def test_a_batch_that_was_applied_is_not_applied_again(
        self, target: Target, system: TargetSystem
    ) -> None:
        """The cursor is no longer where the span starts: nothing is written."""
        target.apply(self.rows_of(b"1"), [span(None, 7)])
        with pytest.raises(CursorMoved):
            target.apply(self.rows_of(b"9"), [span(None, 7)])
        with pytest.raises(CursorMoved):
            target.apply(self.rows_of(b"9"), [span(3, 7)])
        assert self.ids(system) == [b"1"]

    def test_of_two_workers_at_the_same_place_one_writes(
        self, target: Target, system: TargetSystem
    ) -> None:
        """The second is told so, and can go on from the stored cursor."""
        other = self.opened(system)
        target.apply(self.rows_of(b"1"), [span(None, 7)])
        with pytest.raises(CursorMoved):
            other.apply(self.rows_of(b"9"), [span(None, 8)])
        assert other.cursors([PLACE]) == {PLACE: cursor(7)}
        other.apply(self.rows_of(b"2"), [span(7, 8)])
        assert self.ids(system) == [b"1", b"2"]
        other.close()

    def test_one_moved_cursor_holds_back_the_whole_batch(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Spans of several partitions move all or none."""
        target.apply([], [span(None, 3), span(None, 5, SECOND)])
        with pytest.raises(CursorMoved):
            target.apply(self.rows_of(b"1"), [span(3, 4), span(4, 6, SECOND)])
        assert target.cursors([PLACE, SECOND]) == {PLACE: cursor(3), SECOND: cursor(5)}
        assert self.ids(system) == []

    def test_a_cursor_that_stays_where_it_is_is_compared_all_the_same(
        self, target: Target, system: TargetSystem
    ) -> None:
        """A replayed dead letter is applied so: nothing else may come in between."""
        target.apply(self.rows_of(b"1"), [span(None, 3)])
        target.apply(self.rows_of(b"2"), [span(3, 3), span(None, 1, SECOND)])
        assert target.cursors([PLACE, SECOND]) == {PLACE: cursor(3), SECOND: cursor(1)}
        with pytest.raises(CursorMoved):
            target.apply(self.rows_of(b"3"), [span(2, 2)])
        assert self.ids(system) == [b"1", b"2"]

    def test_an_operator_may_put_a_cursor_anywhere(self, target: Target) -> None:
        """Rewinding moves the cursor alone, forgetting it begins anew."""
        target.apply([], [span(None, 7)])
        target.place({PLACE: Cursor(3, None)})
        assert target.cursors([PLACE]) == {PLACE: Cursor(3, None)}
        with pytest.raises(CursorMoved):
            target.apply([], [span(7, 8)])
        target.place({PLACE: None})
        assert target.cursors([PLACE]) == {PLACE: None}

    def test_steps_may_be_read_only_once(self, target: Target, system: TargetSystem) -> None:
        """They come lazily when a transaction is larger than memory (R14)."""
        steps = (step for n in range(10, 30) for step in self.rows_of(b"%d" % n))
        target.apply(steps, [span(None, 1)])
        assert self.ids(system) == [b"%d" % n for n in range(10, 30)]

    def test_a_closed_target_can_be_closed_again_and_opened(self, target: Target) -> None:
        """The worker closes after every error and begins anew."""
        target.close()
        target.close()
        target.open()
        for schema in self.tables:
            target.prepare(schema)
        target.apply(self.rows_of(b"1"), [span(None, 1)])
        assert target.cursors([PLACE]) == {PLACE: cursor(1)}

    def test_a_topic_that_was_made_anew_is_not_gone_on_with(self, target: Target) -> None:
        """Its offsets say nothing of the records there are."""
        target.apply([], [span(None, 7)])
        with pytest.raises(TopicChanged, match="recreated"):
            target.cursors([msgspec.structs.replace(PLACE, topic_id="topic-2")])
