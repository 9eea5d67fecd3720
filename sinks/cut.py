"""Source-consistent cuts (R12): which held events may be applied together.

    1  P        the newest committed boundary of a source, from the positions topic
    2  topics   listed after 1: whatever has records ≤ P exists by then
    3  ends     high watermarks, open transactions included: everything ≤ P lies below them
                (`Topics.ends`: less the marker of a commit where nothing is open)
    4  read     committed records up to the ends, or in a partition to a newer transaction
    5  cut      everything ≤ P, one target transaction; the rest is held

Transaction markers reach partitions at different moments, so step 3 must not ask for the end of
what is committed. When memory is full before step 4 is done, the cut is the newest transaction
that every partition is known to hold completely: the one before the oldest last-seen.

Steps 2 and 3 ask the broker, and ends that take in an open transaction wait for its commit. A
position also tells the stamp each of its topics ends with (`cdc.positions.Tails`): while none is
missed, reading up to those does as well, and nothing is asked. What never comes as a row of the
log, or after a gap, is settled by a look at the ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec
from confluent_kafka import Message

from cdc.positions import Stored, decode_position
from schemas.change import Stamp
from sinks.checkpoint import BEFORE_ALL, Lane, Limit
from sinks.target import TopicPartition

__all__ = ["Cuts", "Goal"]

_PATIENCE_S = 0.2
_TAILS_S = 0.05
EVERYTHING: Limit = (1 << 63, 0)


class Goal(msgspec.Struct):
    """What one source's next cut waits for: the boundary (exclusive), and the ends or tails."""

    limit: Limit
    since: float
    ends: dict[TopicPartition, int] = {}
    tails: dict[str, Stamp] = {}

    def is_met(self, lane: Lane) -> bool:
        """Tell whether everything before the boundary is here."""
        if lane.place >= self.limit:
            return True
        tail = self.tails.get(lane.partition.topic)
        if tail is not None:
            return lane.newest is not None and lane.newest >= tail
        return lane.next >= self.ends.get(lane.partition, 0)


class _Trail(msgspec.Struct):
    """The tails of a source's positions since it was last aimed at; `whole` if none is missing."""

    number: int = -1
    whole: bool = False
    tails: dict[str, Stamp] = {}

    def add(self, stored: Stored) -> None:
        """Take the next position; with one missed, or one that does not tell, no longer whole."""
        tails = stored.tails
        if stored.number != self.number + 1 or tails is None or None in tails.values():
            self.whole = False
        self.number = stored.number
        self.tails |= {topic: stamp for topic, stamp in (tails or {}).items() if stamp is not None}

    def begin(self) -> dict[str, Stamp]:
        """Return the tails and collect anew: what they lead to is aimed at."""
        taken, self.tails, self.whole = self.tails, {}, True
        return taken


class Cuts:
    """The boundaries of the sources and what is waited for. Does no I/O."""

    def __init__(self) -> None:
        self._boundaries: dict[str, Stamp] = {}
        self._moved: set[str] = set()
        self._trails: dict[str, _Trail] = {}
        self.goals: dict[str, Goal] = {}

    def take_position(self, message: Message) -> None:
        """Learn from a record of the positions topic. Raises `errors.StateError`."""
        key, value = message.key(), message.value()
        if not isinstance(key, bytes) or b"/" in key or not isinstance(value, bytes):
            return
        source = key.decode()
        stored = decode_position(value, f"{message.topic()} key {source}")
        if stored.boundary is not None:
            self._boundaries[source] = stored.boundary
            self._moved.add(source)
            self._trails.setdefault(source, _Trail()).add(stored)

    @property
    def known(self) -> set[str]:
        """The sources whose boundary is known."""
        return set(self._boundaries)

    def news(self) -> set[str]:
        """Return the sources that have committed since they were aimed at, and are not now.

        Not only a new boundary counts: snapshot rows are committed behind an unchanged one.
        """
        return self._moved - self.goals.keys()

    def aim(self, sources: Iterable[str], ends: dict[TopicPartition, int]) -> None:
        """Make goals of the boundaries; `ends` were read after the boundaries."""
        now = time.monotonic()
        for source in sources:
            self._moved.discard(source)
            self.goals[source] = Goal(_behind(self._boundaries[source]), now, ends)
            self._trails[source].begin()

    def follow(self, is_new: Callable[[str], bool]) -> bool:
        """Make goals of boundaries whose tails are known; tell whether to ask for ends.

        `is_new` tells whether a topic is to be read and is not yet.
        """
        now = time.monotonic()
        for source in self.news():
            trail = self._trails[source]
            if not trail.whole or any(map(is_new, trail.tails)):
                return True
            self._moved.discard(source)
            self.goals[source] = Goal(_behind(self._boundaries[source]), now, {}, trail.begin())
        late = [name for name, g in self.goals.items() if g.tails and now - g.since > _TAILS_S]
        for source in late:
            del self.goals[source]
            self._moved.add(source)
        return bool(late)

    def ready(self, lanes: Iterable[Lane], *, full: bool) -> dict[str, Limit]:
        """Return source → limit of what may be applied now, for sources that have any.

        `full` says that no more can be held. A source whose positions are unknown is foreign:
        what carries no stamp goes by offset alone.
        """
        by_source: dict[str, list[Lane]] = {}
        for lane in lanes:
            by_source.setdefault(lane.source, []).append(lane)
        out = {source: self._limit(source, mine, full=full) for source, mine in by_source.items()}
        for source in self.goals.keys() - by_source.keys():
            del self.goals[source]
            self._trails[source].whole = False
        return out

    def _limit(self, source: str, lanes: list[Lane], *, full: bool) -> Limit:
        goal = self.goals.get(source)
        if goal is None:
            return BEFORE_ALL
        behind = [lane for lane in lanes if not goal.is_met(lane)]
        if not behind:
            del self.goals[source]
            return goal.limit
        if full or time.monotonic() - goal.since > _PATIENCE_S:
            return min(goal.limit, *(lane.place for lane in behind))
        return BEFORE_ALL

    def blockers(self, lanes: Iterable[Lane]) -> list[Lane]:
        """Return the partitions that hold back a cut the most: they must be read on."""
        behind = [
            lane
            for lane in lanes
            if lane.source in self.goals and not self.goals[lane.source].is_met(lane)
        ]
        oldest = min((lane.place for lane in behind), default=BEFORE_ALL)
        return [lane for lane in behind if lane.place == oldest]


def _behind(boundary: Stamp) -> Limit:
    return (boundary.incarnation, boundary.commit + 1)
