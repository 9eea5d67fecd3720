"""Work that goes on at once, as far as its order allows.

    add ─▶ waits for what it shares a lock with ─▶ ready ─▶ under way ─▶ done
           └────── a bounded number, from the oldest to the newest ──────┘

Of two pieces of work that share a lock the later begins when the earlier has ended; of those that
are ready the oldest begins. The newest is never far behind the oldest that has not ended: that
bounds the memory, and how much has ended behind one that fails.

After an error nothing begins any more; what is under way ends, then the error is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import heappop, heappush
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import msgspec

from cdc.errors import Action, CdcError, action_for
from sinks.target import RowsRefused

__all__ = ["Schedule"]

_AHEAD = 16
"""How many times as long as the others one may take before they wait for it."""


class _Piece(msgspec.Struct, eq=False):
    """One piece of work. `before` is how many it waits for, `behind` are those that wait for it."""

    number: int
    work: Callable[[], None]
    locks: AbstractSet[Hashable]
    before: int = 0
    behind: list[_Piece] = []

    def __lt__(self, other: _Piece) -> bool:
        return self.number < other.number


class Schedule:
    """Does work in at most `most` threads, and in no more than `at_once` says at the moment.

    For one thread that adds, inside a `with`: when that is left nothing is under way, whatever
    happened. With `most` 1 everything is done in that thread, and in order, before `add` returns.
    What the work raises is raised by `add` or `drain`: of several errors the one that stops the
    sink, else one that is tried again, else a `RowsRefused` for all the rows.
    """

    def __init__(self, most: int, at_once: Callable[[], int]) -> None:
        self._most = most
        self._at_once = at_once
        self._threads = ThreadPoolExecutor(most, "requests")
        self._count = 0
        self._left: dict[int, _Piece] = {}
        self._newest: dict[Hashable, _Piece] = {}
        self._ready: list[_Piece] = []
        self._under_way: dict[Future[None], _Piece] = {}
        self._ended: SimpleQueue[Future[None]] = SimpleQueue()
        self._errors: list[BaseException] = []

    def close(self) -> None:
        """End the threads, when what they do is done; safe to call twice."""
        self._threads.shutdown(wait=True)

    def __enter__(self) -> Self:
        """Begin, with nothing under way."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do all that was added; after an error only wait for what is under way."""
        try:
            if error is None:
                self.drain()
        finally:
            self._settle()

    def add(
        self, work: Callable[[], None], locks: AbstractSet[Hashable], *, alone: bool = False
    ) -> None:
        """Have `work` done; `alone`: all before it has ended, and it ends before all behind it."""
        if self._most == 1:
            work()
            return
        if alone:
            self.drain()
        while self._left and self._count - next(iter(self._left)) >= _AHEAD * self._most:
            self._wait()
        self._append(_Piece(self._count, work, locks))
        self._look()
        if alone:
            self.drain()

    def drain(self) -> None:
        """Wait until all that was added has ended."""
        while self._left:
            self._wait()

    def _append(self, piece: _Piece) -> None:
        self._count += 1
        self._left[piece.number] = piece
        for lock in piece.locks:
            earlier = self._newest.get(lock)
            if earlier is not None:
                earlier.behind.append(piece)
                piece.before += 1
            self._newest[lock] = piece
        if not piece.before:
            heappush(self._ready, piece)

    def _wait(self) -> None:
        """Wait until a piece has ended, and go on as `_look`."""
        self._take(self._ended.get())
        self._look()

    def _look(self) -> None:
        """Let go of what has ended, and begin what may begin then."""
        while not self._ended.empty():
            self._take(self._ended.get())
        if self._errors:
            raise self._failure()
        while self._ready and len(self._under_way) < self._at_once():
            piece = heappop(self._ready)
            future = self._threads.submit(piece.work)
            self._under_way[future] = piece
            future.add_done_callback(self._ended.put)

    def _take(self, future: Future[None]) -> None:
        """Let go of a piece that has ended, and of those that waited for it alone."""
        piece = self._under_way.pop(future)
        error = future.exception()
        if error is not None:
            self._errors.append(error)
            return
        del self._left[piece.number]
        for lock in piece.locks:
            if self._newest[lock] is piece:
                del self._newest[lock]
        for later in piece.behind:
            later.before -= 1
            if not later.before:
                heappush(self._ready, later)

    def _failure(self) -> BaseException:
        """Return what went wrong, when nothing is under way any more."""
        errors = self._settle()
        worst = min(errors, key=_rank)
        if not isinstance(worst, RowsRefused):
            return worst
        refused = (error.rows for error in errors if isinstance(error, RowsRefused))
        return RowsRefused({row: why for rows in refused for row, why in rows.items()})

    def _settle(self) -> list[BaseException]:
        """Wait for what is under way, forget what has not begun, and return what went wrong."""
        while self._under_way:
            self._take(self._ended.get())
        errors, self._errors = self._errors, []
        self._left.clear()
        self._newest.clear()
        self._ready.clear()
        return errors


def _rank(error: BaseException) -> int:
    """Return how soon `error` is to be told of: what stops the sink before what is tried again."""
    action = action_for(error) if isinstance(error, CdcError) else Action.STOP
    return (Action.STOP, Action.RETRY, Action.DEAD_LETTER).index(action)
