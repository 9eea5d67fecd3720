"""Lag and loss told apart, against sides that change between two looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from cdc.errors import TargetUnavailable
from cdc.verify.compare import Pair, differing
from cdc.verify.readable import Piece, Row
from cdc.verify.settle import Settled, settle

KEY = (b"1",)


class Side:
    """A table whose rows are another list at each read; the last stays. `log` moves by `pace`."""

    engine = "told"

    def __init__(self, *states: list[Row], pace: int = 1) -> None:
        self._states, self._pace = list(states), pace
        self.log = 0

    def open(self) -> None: ...

    def close(self) -> None: ...

    def types(self) -> Sequence[str]:
        return ()

    def rows(self, _piece: Piece) -> Iterator[Row]:
        return iter(self._states.pop(0) if len(self._states) > 1 else self._states[0])

    def find(self, keys: Sequence[Row]) -> Iterator[Row]:
        return (row for row in self.rows(Piece()) if row[:1] in keys)

    def estimate(self) -> int:
        return 0

    def pieces(self, _rows: int) -> Iterator[Piece]:
        return iter([Piece()])

    def here(self) -> int:
        self.log += self._pace
        return self.log

    def has_passed(self, _position: dict[str, Any], _here: Any) -> bool:
        return True

    def condition(self, _keys: Sequence[Row]) -> str:
        return ""


def row(value: int) -> list[Row]:
    return [(b"1", b"%d" % value)]


def told(ours: Side, theirs: Side, passed: Callable[[Any], None] = lambda _: None) -> Settled:
    return settle(Pair(ours, theirs, 1), ours, [KEY], passed)


def counts(settled: Settled) -> tuple[int, int, int]:
    return len(settled.lost), settled.late, settled.moving


def test_a_row_that_arrived_when_the_sink_had_come_so_far_was_late() -> None:
    assert counts(told(Side(row(2)), Side(row(2)))) == (0, 1, 0)


def test_a_row_that_stays_different_while_the_log_stands_still_is_lost() -> None:
    settled = told(Side(row(2), pace=0), Side(row(1)))
    assert counts(settled) == (1, 0, 0)
    assert (settled.lost[0].kind, settled.lost[0].ours) == ("different", (b"1", b"2"))


def test_a_row_is_lost_after_three_looks_where_the_log_moves() -> None:
    ours, looks = Side(row(2)), []
    assert counts(told(ours, Side(row(1)), looks.append)) == (1, 0, 0)
    assert len(looks) == 3


def test_a_row_that_was_written_back_between_two_looks_is_not_lost() -> None:
    assert counts(told(Side(row(2)), Side(row(1), row(1), row(2)))) == (0, 1, 0)


def test_a_row_that_changes_at_every_look_is_neither_late_nor_lost() -> None:
    states = [row(number) for number in range(20)]
    assert counts(told(Side(*states), Side(row(-1)))) == (0, 0, 1)


@pytest.mark.parametrize(
    ("ours", "theirs", "kind"), [([], row(1), "extra"), (row(1), [], "missing")]
)
def test_a_row_on_one_side_alone_is_named_so(ours: list[Row], theirs: list[Row], kind: str) -> None:
    assert [lost.kind for lost in told(Side(ours, pace=0), Side(theirs)).lost] == [kind]


def test_nothing_is_said_of_rows_when_the_sink_does_not_come() -> None:
    def away(_here: Any) -> None:
        raise TargetUnavailable("it stands still")

    with pytest.raises(TargetUnavailable):
        told(Side(row(2)), Side(row(1)), away)


def test_equal_values_in_other_texts_are_equal() -> None:
    def form(text: bytes) -> bytes:
        return text.lstrip(b"0")

    pair = Pair(Side([(b"01", b"002")]), Side([(b"1", b"2")]), 1, forms=[form, form])
    [found] = differing(pair, [Piece()])
    assert (found.ours, found.theirs, found.keys) == (1, 1, [])


def test_a_side_that_fails_ends_the_comparison() -> None:
    class Broken(Side):
        def rows(self, _piece: Piece) -> Iterator[Row]:
            raise TargetUnavailable("it is gone")

    with pytest.raises(TargetUnavailable):
        list(differing(Pair(Side(row(1)), Broken(row(1)), 1), [Piece()] * 10))
