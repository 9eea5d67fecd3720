"""The suite of targets that take changes one by one: effectively once.

    class TestHttp(ChangesContract):
        @pytest.fixture
        def system(self, …): return a `ChangesSystem` whose receiver is empty

What is sent and the cursor are not one transaction: a change can come twice. The suite holds a
target to what makes that harmless: each change comes by a name that is its own, the same whenever
it comes, and in order by row; and no cursor moves over a change that was not taken.
"""

# ruff: noqa: S101 - a suite speaks in asserts

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import pytest

from cdc.errors import Stop
from schemas.change import ABSENT, Cell, Stamp
from schemas.table import TableSchema
from sinks.journal import FACTS, KEY, POSITION, ROW_KEY, position
from sinks.target import Mapped, RowsRefused, Step, Target
from sinks.testing_cursors import ITEMS, PLACE, CursorContract, TargetSystem, barrier, span

__all__ = ["CHANGES", "ChangesContract", "ChangesSystem", "changed", "told"]

CHANGES = TableSchema(ITEMS.table, (*ITEMS.columns, *FACTS, POSITION), KEY, ((ROW_KEY, '["id"]'),))
"""The suite's table as its changes tell of it."""


class ChangesSystem(TargetSystem, Protocol):
    """What the suite needs to know of the receiver, which takes each change once, by its name."""

    def names(self) -> Sequence[str]:
        """Return the names of the changes in the order they came in, also those known already.

        Changes of different rows may come in any order.
        """
        ...

    def refuse(self, text: bytes) -> None:
        """Have the receiver refuse changes whose `name` is `text`, None of them for b""."""
        ...


def changed(offset: int, *cells: Cell, op: str = "u", at: Stamp | None = None) -> Sequence[Cell]:
    """Return the row that tells of the change at `offset` of the suite's partition."""
    stamp = at or Stamp(1, 100, offset)
    unsent = [
        c.name.encode() for c, cell in zip(ITEMS.columns, cells, strict=True) if cell is ABSENT
    ]
    row = [None if cell is ABSENT else cell for cell in cells]
    place = (PLACE.topic.encode(), b"%d" % PLACE.partition, b"%d" % offset)
    facts = (op.encode(), b"2026-01-31 08:00:00+00", b",".join(unsent) or None, *place)
    return [*row, *facts, position(stamp)]


def told(*rows: Sequence[Cell]) -> list[Step]:
    """Return one step that tells of `rows`."""
    return [[Mapped(CHANGES, list(rows), [])]]


class ChangesContract(CursorContract):
    """Promises of a target that takes changes one by one, one test each."""

    tables: Sequence[TableSchema] = (CHANGES,)

    def rows_of(self, *ids: bytes) -> Iterable[Step]:
        """Return what tells of a new row of each of `ids`, each in a step of its own."""
        return [step for i in ids for step in told(changed(int(i), i, b"row " + i, None))]

    def test_a_change_that_is_told_again_has_the_same_name(
        self, target: Target, system: ChangesSystem
    ) -> None:
        """Also when the batch is cut otherwise: a receiver that knows it passes over it."""
        rows = [changed(n, b"1", b"pen %d" % n, None) for n in (1, 2, 3)]
        target.apply(told(rows[0], rows[1]), [span(None, 2)])
        target.place({PLACE: None})
        target.apply(told(rows[0]), [span(None, 1)])
        target.apply(told(rows[1], rows[2]), [span(1, 3)])
        one, two, three = dict.fromkeys(system.names())
        assert list(system.names()) == [one, two, one, two, three]
        assert system.rows(ITEMS.table) == [(b"1", b"pen 3", None)]

    def test_every_change_comes_and_in_order(self, target: Target, system: ChangesSystem) -> None:
        """Those of one row; none is merged into another: a receiver may count them."""
        texts = [b"pen", b"cup", b"jar"]
        target.apply(
            told(*(changed(n, b"1", t, None) for n, t in enumerate(texts))), [span(None, 3)]
        )
        assert len(system.names()) == 3
        assert system.rows(ITEMS.table) == [(b"1", b"jar", None)]

    def test_a_deleted_row_is_gone(self, target: Target, system: ChangesSystem) -> None:
        """Of a delete the key is enough; one of a row that is not there does nothing."""
        gone = [changed(n, b"%d" % n, ABSENT, ABSENT, op="d") for n in (2, 3)]
        rows = [changed(n, b"%d" % n, b"pen", None, op="c") for n in (0, 2)]
        target.apply(
            told(*rows, *(changed(n + 5, *g[:3], op="d") for n, g in enumerate(gone))),
            [span(None, 9)],
        )
        assert self.ids(system) == [b"0"]

    def test_a_value_that_was_not_sent_is_not_told(
        self, target: Target, system: ChangesSystem
    ) -> None:
        """Absent is not NULL (R6)."""
        rows = [changed(1, b"1", b"pen", b"1.50"), changed(2, b"1", ABSENT, b"9.00")]
        target.apply(told(*rows), [span(None, 3)])
        assert system.rows(ITEMS.table) == [(b"1", b"pen", b"9.00")]
        target.apply(told(changed(3, b"1", None, ABSENT)), [span(3, 4)])
        assert system.rows(ITEMS.table) == [(b"1", None, b"9.00")]

    def test_text_arrives_byte_for_byte(self, target: Target, system: ChangesSystem) -> None:
        """Whatever a document would escape."""
        text = "tab\t newline\n back\\slash \\N quote' \" {id} ünïcödé \x01\x7f 🦊".encode()
        rows = [changed(1, b"1", text, None), changed(2, b"2", b"", None)]
        target.apply(told(*rows), [span(None, 3)])
        assert system.rows(ITEMS.table) == [(b"1", text, None), (b"2", b"", None)]

    def test_a_refused_change_is_named_and_no_cursor_moves_over_it(
        self, target: Target, system: ChangesSystem
    ) -> None:
        """Without it the same cut goes on, and what was taken of it is not sent a second time."""
        system.refuse(b"bad")
        texts = [b"pen", b"bad", b"jar"]
        rows = [changed(n, b"%d" % n, text, None) for n, text in enumerate(texts)]
        with pytest.raises(RowsRefused) as caught:
            target.apply(told(*rows), [span(None, 3)])
        assert list(caught.value.rows) == [(ITEMS.table, tuple(rows[1][6:9]))]
        assert target.cursors([PLACE]) == {PLACE: None}
        target.apply(told(rows[0], rows[2]), [span(None, 3)])
        assert self.ids(system) == [b"0", b"2"]
        assert target.cursors([PLACE])[PLACE] == span(None, 3).end
        assert len(system.names()) == 3

    def test_a_rehearsal_sends_nothing(self, target: Target, system: ChangesSystem) -> None:
        """What is sent cannot be taken back."""
        assert not target.rehearse([told(changed(1, b"1", b"pen", None))])
        assert system.names() == []

    def test_one_worker_has_every_partition(self, target: Target) -> None:
        """Nobody waits at a truncation, nobody can be kept away: both are refused by name."""
        with pytest.raises(Stop, match="one worker"):
            target.meet(barrier(span(None, 1)))
        with pytest.raises(Stop, match="one worker"):
            target.reserve()
