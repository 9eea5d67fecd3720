"""Our events beside Debezium's: equal one by one, after the normalisations that have a name here.

`NORMALISED` is the whole list. A rule applies to one cell or one event and says why the two may
differ there; a difference without a rule fails the comparison. Each rule counts how often it was
used, so that the list cannot outlive its reason unnoticed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from differential.events import UNAVAILABLE, Event, Row
from differential.render import ours, theirs

NORMALISED: dict[str, str] = {}
"""Name → why we differ."""

MOST = 20


class Cell(NamedTuple):
    """One column of one side: ours as PostgreSQL text, theirs as JSON; `absent`: we sent none."""

    side: str
    column: str
    absent: bool
    mine: str | None
    other: object
    event: Event


Rule = Callable[[Cell], bool]
_RULES: dict[str, Rule] = {}


def rule(name: str, why: str) -> Callable[[Rule], Rule]:
    """Register a normalisation under its name."""

    def keep(function: Rule) -> Rule:
        NORMALISED[name], _RULES[name] = why, function
        return function

    return keep


@rule("absent", "what the log does not carry we list as absent; Debezium writes null or a text")
def _absent(cell: Cell) -> bool:
    return cell.absent and cell.other in (None, UNAVAILABLE, [UNAVAILABLE])


@rule("filled", "we fill an unchanged large value, from the old row or by reading it again")
def _filled(cell: Cell) -> bool:
    return not cell.absent and cell.other == UNAVAILABLE


@rule("infinity", "an infinite date is infinite with us; Debezium sends the number of a far day")
def _infinity(cell: Cell) -> bool:
    return (cell.mine or "").endswith("infinity") and isinstance(cell.other, int)


@rule("overflow", "the last years of a timestamp are exact with us; Debezium's 64 bits run over")
def _overflow(cell: Cell) -> bool:
    if cell.absent or cell.mine is None or cell.column != "at" or not isinstance(cell.other, int):
        return False
    exact = ours(cell.column, cell.mine) or ""
    return exact.lstrip("-").isdigit() and abs(int(exact)) >= 1 << 63


@rule("nan", "NaN is written as PostgreSQL writes it; Debezium writes NAN")
def _nan(cell: Cell) -> bool:
    return cell.mine == "NaN" and cell.other == "NAN"


NORMALISED["tombstone"] = (
    "a tombstone without a key removes nothing; Debezium writes one all the same"
)


class Comparison:
    """Counts of one comparison. `different` is empty when all is equal."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.used: Counter[str] = Counter()
        self.columns: Counter[str] = Counter()
        self.different: list[str] = []
        self.unequal = 0

    def table(self, name: str, mine: Sequence[Event], others: Sequence[Event]) -> None:
        """Compare what came of one table, event by event, to the first that cannot be matched."""
        known = [e for e in others if e.op != "tombstone" or e.key is not None]
        self.used["tombstone"] += len(others) - len(known)
        for place, (one, other) in enumerate(zip_longest(mine, known)):
            if one is None or other is None:
                self._differ(f"{name}: {len(mine)} events of ours, {len(known)} of theirs")
                return
            self.events[one.op] += 1
            found = list(self._event(one, other))
            for text in found:
                self._differ(f"{name} event {place} ({one.op} in {one.txid}): {text[:300]}")
            if one.op != other.op:
                return

    def _differ(self, text: str) -> None:
        self.unequal += 1
        if len(self.different) < MOST:
            self.different.append(text)

    def _event(self, one: Event, other: Event) -> Iterator[str]:
        for part in ("op", "key", "txid"):
            if getattr(one, part) != getattr(other, part):
                yield f"{part} {getattr(one, part)!r} is not {getattr(other, part)!r}"
        for side in ("before", "after"):
            yield from self._row(side, one, other)

    def _row(self, side: str, one: Event, other: Event) -> Iterator[str]:
        mine: Row | None = getattr(one, side)
        row: Row | None = getattr(other, side)
        if mine is None or row is None:
            if mine is not row:
                yield f"{side} {mine!r} is not {row!r}"
            return
        for column, value in row.items():
            cell = Cell(side, column, column not in mine, mine.get(column), value, one)
            if not self._equal(cell):
                self.columns[f"{side}.{column}"] += 1
                yield f"{side}.{column} {cell.mine!r} is not {value!r}"

    def _equal(self, cell: Cell) -> bool:
        for name, applies in _RULES.items():
            if applies(cell):
                self.used[name] += 1
                return True
        try:
            return not cell.absent and ours(cell.column, cell.mine) == theirs(
                cell.column, cell.other
            )
        except (ValueError, TypeError, OverflowError, AssertionError):
            return False
