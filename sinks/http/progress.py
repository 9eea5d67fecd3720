"""What is done of a cut, in whatever order its requests were answered.

    in the order of the sources   1  2  3  4  5  6  7  8
    done                          x  x  x     x     x
    the cursors may move          ──────▶│  none passes what is not done, in any partition

Why one line over all partitions and not one for each: what is sent again after a crash is then
everything behind that line, in its order. Nothing of it meets what came later in another partition
and is not sent again, as the create of a key change whose delete is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence

from sinks.changes import Change
from sinks.target import Cursor, Span

__all__ = ["Progress"]

_Place = tuple[str, int]
_Lane = tuple[str, int, str]


class Progress:
    """The changes of one cut. For one thread that takes them up, and any that are done with them.

    Of a record that goes to several tables each has a change; no cursor moves before all of them
    are done, for a further step may have the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: dict[_Place, Span] = {}
        self._reached: dict[_Place, Cursor] = {}
        self._passed: dict[_Lane, int] = {}
        self._open: deque[Change] = deque()
        self._done: set[tuple[_Lane, int]] = set()

    def begin(self, spans: Iterable[Span]) -> None:
        """Take a cut up, or take it up again: what was done of it stays done."""
        self._spans = {(s.partition.topic, s.partition.partition): s for s in spans}
        self._open.clear()

    def end(self) -> None:
        """Forget the cut: its cursors have moved."""
        self._passed.clear()
        self._reached.clear()
        self._done.clear()

    def take(self, change: Change) -> bool:
        """Take `change` up, the next in the order of the sources; tell whether it is to be done."""
        lane = _lane(change)
        with self._lock:
            if change.offset < self._passed.get(lane, 0):
                return False
            self._open.append(change)
            is_done = (lane, change.offset) in self._done
            self._pass()
        return not is_done

    def note(self, changes: Iterable[Change]) -> None:
        """Take note that `changes` are done."""
        with self._lock:
            self._done.update((_lane(change), change.offset) for change in changes)
            self._pass()

    def spans(self) -> Sequence[Span]:
        """Return how far the cursors may move though the cut is not done."""
        return [
            Span(span.partition, span.start, self._reached[place])
            for place, span in self._spans.items()
            if place in self._reached and span.end != span.start
        ]

    def _pass(self) -> None:
        """Move over what is done of the oldest."""
        while self._open and (here := (_lane(self._open[0]), self._open[0].offset)) in self._done:
            change = self._open.popleft()
            self._done.remove(here)
            self._passed[_lane(change)] = change.offset + 1  # a lane's changes come in its order
            place = (change.topic, change.partition)
            span = self._spans.get(place)
            if span is not None and not change.table.part:
                self._reached[place] = change.behind(self._reached.get(place, span.start))


def _lane(change: Change) -> _Lane:
    return (change.topic, change.partition, change.table.part)
