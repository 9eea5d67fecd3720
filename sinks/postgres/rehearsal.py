"""Which steps PostgreSQL refuses: each is tried behind a savepoint, and all is rolled back.

    the steps of one source transaction, in order ─▶ SET CONSTRAINTS ALL IMMEDIATE ─▶ the next
         └─ one refused: it is to blame                  └─ refused: who is to blame?

A deferred constraint is asked at the end of a transaction, and then names one of many rows. What
the source had at the end of each of its transactions must hold there, no sooner; where it does not,
the steps of that transaction are taken once more, one by one, with every constraint asked at once:

    refused ─▶ again behind the others, as long as that helps   a line before its order
            ─▶ a few of them together                           rows that point to one another
            ─▶ one of them in its place, without the others     a line that is deleted again
            ─▶ to blame
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import psycopg

from cdc.errors import DataError
from sinks.refusals import bare
from sinks.target import RowsRefused, Step

__all__ = ["Rehearsal"]

_TOGETHER = 16
"""Steps among which those that only hold together, or in their place, are looked for."""

_Numbered = tuple[int, Step]
_Refused = dict[int, DataError]


class Rehearsal:
    """One rehearsal, in a transaction of `connection` that its owner rolls back.

    `take` carries a step out; `errors` makes `errors.DataError` of what refuses it. `name` knows,
    of some steps that were refused, which of their rows are.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        errors: Callable[[], AbstractContextManager[None]],
        take: Callable[[int, Step], None],
        name: Callable[[int, Step], RowsRefused | None],
    ) -> None:
        self._connection = connection
        self._errors = errors
        self._take = take
        self._name = name

    def refused(self, transactions: Iterable[Sequence[Step]]) -> _Refused:
        """Return which steps are to blame and why, by their place among all of them."""
        refused: _Refused = {}
        first = 0
        for steps in transactions:
            refused |= self._of_one(list(enumerate(steps, first)))
            first += len(steps)
        return refused

    def _of_one(self, steps: Sequence[_Numbered]) -> _Refused:
        """Take the steps of one source transaction but for those to blame; return these."""
        refused: _Refused = {}
        error = self._why_not(lambda: refused.update(self._in_order(steps)))
        if error is None:
            return refused
        with self._connection.transaction(force_rollback=True):
            blamed = self._circles(*self._alone(steps))
        for number in list(blamed)[:_TOGETHER] if len(blamed) > 1 else ():
            if self._holds(_without(steps, blamed.keys() - {number})):
                del blamed[number]
        left = _without(steps, blamed)
        if self._why_not(lambda: blamed.update(self._in_order(left))) is None:
            return blamed
        return dict.fromkeys((number for number, _ in steps), error)

    def _holds(self, steps: Sequence[_Numbered]) -> bool:
        """Tell whether steps hold in their order; nothing is left of them."""
        with self._connection.transaction(force_rollback=True):
            error = self._why_not(lambda: self._in_order(steps))
        return error is None

    def _in_order(self, steps: Sequence[_Numbered]) -> _Refused:
        """Take what can be taken; return the rest. Raises what a deferred constraint refuses."""
        refused: _Refused = {}
        for number, step in steps:
            error = self._why_not(partial(self._take, number, step))
            if error is not None:
                refused[number] = self._named(number, step) or error
        self._settle()
        return refused

    def _named(self, number: int, step: Step) -> RowsRefused | None:
        """Name the rows of a refused step to blame, where that can be found; nothing is left."""
        try:
            with self._connection.transaction(force_rollback=True):
                return self._name(number, step)
        except psycopg.OperationalError:
            raise
        except (DataError, psycopg.DatabaseError):
            return None

    def _alone(self, steps: Sequence[_Numbered]) -> tuple[Sequence[_Numbered], _Refused]:
        """Take the steps that hold by themselves, sooner or later; return the others, and why."""
        refused: _Refused = {}
        waiting, before = steps, len(steps) + 1
        while len(waiting) < before:
            before = len(waiting)
            waiting = [step for step in waiting if self._is_refused(step, refused)]
        return waiting, refused

    def _is_refused(self, step: _Numbered, refused: _Refused) -> bool:
        def taken() -> None:
            self._take(*step)
            self._settle()

        error = self._why_not(taken)
        if error is not None:
            refused[step[0]] = error
        return error is not None

    def _circles(self, steps: Sequence[_Numbered], refused: _Refused) -> _Refused:
        """Take the steps that hold together with those next to them; return the others."""
        waiting, blamed = list(steps), _Refused()
        while waiting:
            some = waiting[:_TOGETHER]
            taken: list[_Numbered] = []
            error = self._why_not(partial(self._together, some, taken))
            if error is None:
                del waiting[: len(taken)]
                continue
            # Whoever was refused in these words when alone is why the others do not hold.
            words = [str(refused[number]) for number, _ in some]
            number, _ = waiting.pop(words.index(str(error)) if str(error) in words else 0)
            blamed[number] = refused[number]
        return blamed

    def _together(self, steps: Sequence[_Numbered], taken: list[_Numbered]) -> None:
        """Take steps until all that are `taken` hold. Raises what is said when none is left."""
        error = None
        for step in steps:
            self._take(*step)
            taken.append(step)
            error = self._why_not(self._settle)
            if error is None:
                return
        if error is not None:
            raise error

    def _settle(self) -> None:
        self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def _why_not(self, deed: Callable[[], object]) -> DataError | None:
        """Do something behind a savepoint; return what refused it, which has left nothing then."""
        try:
            with self._errors(), self._connection.transaction():
                deed()
        except DataError as error:
            return bare(error)
        return None


def _without(steps: Sequence[_Numbered], numbers: Container[int]) -> Sequence[_Numbered]:
    return [step for step in steps if step[0] not in numbers]
