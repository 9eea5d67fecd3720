"""The suites targets pass: subclass the one of its guarantee in a target's test module.

    CursorContract             what a cursor is, wherever it is kept (`sinks/testing_cursors.py`)
    ├── TargetContract         exactly once: rows and cursors in one transaction of the target
    └── ChangesContract        effectively once: changes one by one, each with a name of its own
                               (`sinks/testing_changes.py`)
    ProcessContract            what shows beside: a worker that is killed, another sink, `cdc drop`
                               (`sinks/testing_processes.py`)

    class TestPostgres(TargetContract):
        @pytest.fixture
        def system(self, pg_database): return a `TargetSystem` over an empty place

A target that also keeps promises of its own adds tests of its own.
"""

# ruff: noqa: S101 - a suite speaks in asserts

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from cdc.errors import DataError, StateError, TargetUnavailable
from schemas.change import ABSENT, Cell
from sinks.target import Cursor, CursorMoved, Mapped, Span, Step, Target
from sinks.testing_cursors import (
    EMPTIED,
    ITEMS,
    NOTES,
    PLACE,
    SECOND,
    CursorContract,
    TargetSystem,
    barrier,
    cursor,
    span,
    upsert,
)

__all__ = ["CursorContract", "TargetContract", "TargetSystem"]


class TargetContract(CursorContract):
    """Promises of a target that has rows and cursors in one transaction: exactly once."""

    def test_rows_and_cursor_move_together(self, target: Target, system: TargetSystem) -> None:
        """One batch leaves its rows and its end."""
        target.apply(upsert((b"1", b"pen", b"1.50"), (b"2", None, None)), [span(None, 7)])
        assert system.rows(ITEMS.table) == [(b"1", b"pen", b"1.50"), (b"2", None, None)]
        assert target.cursors([PLACE]) == {PLACE: cursor(7)}

    def test_a_known_key_is_updated_and_a_gone_one_deleted(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Upserts and deletes of one step."""
        target.apply(upsert((b"1", b"pen", None), (b"2", b"cup", None)), [span(None, 1)])
        step = [Mapped(ITEMS, [(b"1", b"pencil", b"2.00")], [(b"2",), (b"77",)])]
        target.apply([step], [span(1, 2)])
        assert system.rows(ITEMS.table) == [(b"1", b"pencil", b"2.00")]

    def test_a_column_that_was_not_sent_is_left_alone(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Absent is not NULL (R6)."""
        target.apply(upsert((b"1", b"pen", b"1.50"), (b"2", b"cup", b"3.00")), [span(None, 1)])
        rows = ((b"1", ABSENT, b"9.00"), (b"2", None, ABSENT))
        target.apply(upsert(*rows), [span(1, 2)])
        assert system.rows(ITEMS.table) == [(b"1", b"pen", b"9.00"), (b"2", None, b"3.00")]

    def test_a_partial_update_without_a_row_is_refused(
        self, target: Target, system: TargetSystem
    ) -> None:
        """It is never inserted with NULLs, and the batch is not written (R6)."""
        with pytest.raises(DataError):
            target.apply(upsert((b"1", b"pen", None), (b"2", ABSENT, b"1")), [span(None, 1)])
        assert system.rows(ITEMS.table) == []
        assert target.cursors([PLACE]) == {PLACE: None}

    def test_a_moved_row_takes_what_was_not_sent_from_its_old_one(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Also when another row takes its key in the same step (R6)."""
        target.apply(upsert((b"1", b"pen", b"1.50"), (b"2", b"cup", b"3.00")), [span(None, 1)])
        moves: list[tuple[Sequence[Cell], Sequence[Cell]]] = [
            ((b"1",), (b"3", ABSENT, b"9.00")),
            ((b"2",), (b"1", None, ABSENT)),
        ]
        target.apply([[Mapped(ITEMS, [], [(b"2",)], moves=moves)]], [span(1, 2)])
        assert system.rows(ITEMS.table) == [(b"1", None, b"3.00"), (b"3", b"pen", b"9.00")]
        with pytest.raises(DataError):
            target.apply([[Mapped(ITEMS, [], [], moves=moves[1:])]], [span(2, 3)])

    def test_a_row_may_stay_and_another_take_its_values_in_the_same_step(
        self, target: Target, system: TargetSystem
    ) -> None:
        """A version that ends, while the present one goes on with what was not sent (R6)."""
        target.apply(upsert((b"1", b"pen", b"1.50")), [span(None, 1)])
        moves: list[tuple[Sequence[Cell], Sequence[Cell]]] = [((b"1",), (b"3", ABSENT, b"9.00"))]
        present: list[Sequence[Cell]] = [(b"1", ABSENT, b"5.00")]
        target.apply([[Mapped(ITEMS, present, [], moves=moves)]], [span(1, 2)])
        assert system.rows(ITEMS.table) == [(b"1", b"pen", b"5.00"), (b"3", b"pen", b"9.00")]

    def test_a_truncate_empties_before_the_rows_of_its_step(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Steps keep their order."""
        target.apply(upsert((b"1", b"pen", None)), [span(None, 1)])
        steps = [
            [Mapped(ITEMS, [(b"2", b"cup", None)], [])],
            [Mapped(ITEMS, [(b"3", b"jar", None)], [], truncate=True)],
        ]
        target.apply(steps, [span(1, 2)])
        assert system.rows(ITEMS.table) == [(b"3", b"jar", None)]

    def test_text_arrives_byte_for_byte(self, target: Target, system: TargetSystem) -> None:
        """Whatever a staging format would escape."""
        text = "tab\t newline\n cr\r back\\slash \\N quote' \" ünïcödé \x01\x7f \\. 🦊".encode()
        target.apply(upsert((b"1", text, None), (b"2", b"", None)), [span(None, 1)])
        assert system.rows(ITEMS.table) == [(b"1", text, None), (b"2", b"", None)]

    def test_a_table_without_a_key_keeps_its_duplicates(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Inserts add up, a delete takes one matching row."""
        target.apply([[Mapped(NOTES, [(b"a",), (b"a",), (None,)], [])]], [span(None, 1)])
        target.apply([[Mapped(NOTES, [(b"b",)], [(b"a",), (None,)])]], [span(1, 2)])
        assert system.rows(NOTES.table) == [(b"a",), (b"b",)]

    def test_a_value_the_target_cannot_hold_refuses_the_batch(
        self, target: Target, system: TargetSystem
    ) -> None:
        """And the target works on afterwards."""
        bad = upsert((b"1", b"pen", None), (b"2", b"cup", b"12345678901234.00"))
        with pytest.raises(DataError):
            target.apply(bad, [span(None, 1)])
        assert target.cursors([PLACE]) == {PLACE: None}
        target.apply(upsert((b"1", b"pen", None)), [span(None, 1)])
        assert system.rows(ITEMS.table) == [(b"1", b"pen", None)]

    def test_a_rehearsal_names_the_refused_steps_and_leaves_nothing(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Each step is judged behind those that were taken."""
        steps = [
            *upsert((b"1", b"pen", None)),
            *upsert((b"x", b"bad key", None)),
            *upsert((b"1", ABSENT, b"1.00")),
            *upsert((b"5", ABSENT, b"1.00")),
        ]
        refused = target.rehearse([steps])
        assert sorted(refused) == [1, 3]
        assert system.rows(ITEMS.table) == []
        frames = [(error.__traceback__, error.__cause__) for error in refused.values()]
        assert frames == 2 * [(None, None)], "an error keeps alive what its frames hold (R14)"
        target.apply([], [span(None, 1)])

    def test_a_later_step_wins_over_an_earlier_one(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Steps come one after the other, also where they write to the same row."""
        steps = (step for n in range(100) for step in upsert((b"%d" % (n % 10), b"%d" % n, None)))
        target.apply(steps, [span(None, 1)])
        assert len(system.rows(ITEMS.table)) == 10
        assert (b"9", b"99", None) in system.rows(ITEMS.table)

    def test_a_truncation_waits_until_every_partition_has_come_to_it(
        self, target: Target, system: TargetSystem
    ) -> None:
        """The last one empties the table and moves all cursors; the others are told (R8)."""
        other = system.connect()
        other.open()
        other.prepare(ITEMS)
        target.apply(upsert((b"1", b"pen", None)), [span(None, 7)])
        other.apply(upsert((b"2", b"cup", None)), [span(None, 3, SECOND)])
        assert target.meet(barrier(span(7, 9))) == [1]
        assert len(system.rows(ITEMS.table)) == 2
        assert list(other.meet(barrier(span(3, 4, SECOND)))) == []
        assert list(target.meet(barrier(span(9, 9)))) == []
        assert system.rows(ITEMS.table) == []
        behind = {PLACE: Cursor(10, EMPTIED), SECOND: Cursor(5, EMPTIED)}
        assert target.cursors([PLACE, SECOND]) == behind
        with pytest.raises(CursorMoved):
            other.apply(upsert((b"3", b"late", None)), [span(4, 6, SECOND)])
        other.close()

    def test_a_partition_that_was_placed_elsewhere_no_longer_stands_at_a_truncation(
        self, target: Target, system: TargetSystem
    ) -> None:
        """And one behind it stops the sink: nobody knows which rows were to go."""
        target.apply(upsert((b"1", b"pen", None)), [span(None, 7), span(None, 3, SECOND)])
        assert target.meet(barrier(span(7, 9))) == [1]
        target.place({PLACE: cursor(2)})
        assert target.meet(barrier(span(3, 4, SECOND))) == [0]
        assert len(system.rows(ITEMS.table)) == 1
        target.place({PLACE: Cursor(20, EMPTIED)})
        with pytest.raises(StateError):
            target.meet(barrier(span(4, 4, SECOND)))

    def test_who_reserves_a_sink_keeps_the_others_from_applying_until_it_is_closed(
        self, target: Target, system: TargetSystem
    ) -> None:
        """And applies itself."""
        other = system.connect()
        other.open()
        other.prepare(ITEMS)
        target.reserve()
        with pytest.raises(TargetUnavailable):
            other.apply(upsert((b"1", b"pen", None)), [span(None, 1)])
        target.apply(upsert((b"2", b"cup", None)), [span(None, 1)])
        target.close()
        other.apply(upsert((b"3", b"jar", None)), [span(1, 2)])
        assert [row[0] for row in system.rows(ITEMS.table)] == [b"2", b"3"]
        other.close()

    def test_a_table_that_is_gone_is_not_made_anew(self, system: TargetSystem) -> None:
        """It would be empty, and nobody would know."""
        target = system.connect()
        target.open()
        with pytest.raises(StateError):
            target.prepare(ITEMS, known=True)

    def test_spans_of_a_batch_larger_than_memory_are_read_at_its_end(
        self, target: Target, system: TargetSystem
    ) -> None:
        """And nothing of it is seen before (R14)."""
        spans: list[Span] = []

        def steps() -> Iterator[Step]:
            for number in range(10):
                yield from upsert((b"%d" % number, None, None))
            spans.append(span(None, 7))

        target.apply(steps(), spans)
        assert target.cursors([PLACE]) == {PLACE: cursor(7)}
        assert len(system.rows(ITEMS.table)) == 10
