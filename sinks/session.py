"""One life of a sink worker: from the cursors the target holds until stopped or an error.

The loop's three stages are here: look (which topics, which boundary), cut, submit. At most one
cut is with the target while the next is read; the cursors it will leave are the start of the next.
A source transaction that does not fit into memory is not held: it goes to the target's staging
piece by piece while it is read, and its cursors are known when it has ended (R14).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from cdc.brokers import topic_ids
from cdc.errors import KafkaUnavailable, TopicChanged
from cdc.positions import PositionsTopic
from sinks.applier import Applied, Applier, Cut, summed
from sinks.barrier import Barriers
from sinks.checkpoint import Lane, Limit
from sinks.consume import Intake
from sinks.cut import EVERYTHING, Cuts
from sinks.deadletter import DeadLetters
from sinks.decode import Event
from sinks.job import SinkJob
from sinks.routes import Routes
from sinks.target import Span, TopicPartition
from sinks.topics import Topics

__all__ = ["Session"]

_WAIT_S = 0.1
_LOOK_S = 1.0
_IDLE_CURSOR_S = 10.0
_TOGETHER = 1.5
"""Times `buffer_bytes`: what is held, and the cut that is with the target meanwhile."""


class Session:
    """Owns the clients of one life; `close` lets go of all of them.

    `progressed` tells whether anything was applied, or all there is had been before.
    """

    def __init__(self, job: SinkJob) -> None:
        self._job = job
        self._target = job.target()
        self._routes = Routes(job.selection, job.schemas, self, lines=self._target.takes_lines)
        self._topics = Topics(job.kafka, job.selection.takes)
        group = f"{job.context.pipeline}.sink.{job.context.name}"
        self._intake = Intake(job.kafka, group, self._routes)
        self._cuts = Cuts()
        self._letters = DeadLetters(job.kafka, job.context, job.on_poison)
        tables = self._routes.tables
        screen = self._routes.screen
        self._applier = Applier(self._target, self._letters, tables, self._may_judge, screen)
        self._alone = job.workers == 1
        self._known: dict[str, list[TopicPartition]] = {}
        self._barriers = Barriers(self._applier.meet, lambda topic: len(self._known[topic]))
        self._thread = ThreadPoolExecutor(1, "apply")
        self._pending: Future[Applied] | None = None
        self._pending_bytes = 0
        self._ends: dict[TopicPartition, int] = {}
        self._has_positions = self._aimed = self.progressed = False
        self._looked = self._moved = 0.0
        self._dropped = 0

    def open(self, *, reserve: bool = False) -> None:
        """Connect to the target and begin to read at its cursors.

        `reserve` keeps the other workers of the sink from applying until `close`.
        """
        if self._job.lookups is not None:
            self._job.lookups.open()
        self._target.open()
        if reserve:
            self._target.reserve()
        self._moved = time.monotonic()
        self._look()

    def close(self) -> None:
        """Let go of everything; what was submitted ends first, one way or the other."""
        self._thread.shutdown(wait=True)
        pending, self._pending = self._pending, None
        if pending is not None and pending.exception() is None:
            self._tell(pending.result())
        self._tell_broken()
        self._intake.close()
        if self._job.lookups is not None:
            self._job.lookups.close()
        self._letters.close()
        self._target.close()

    def step(self) -> None:
        """Read what there is, and hand over what can be applied."""
        if self._intake.bytes + self._pending_bytes >= _TOGETHER * self._job.buffer_bytes:
            self._settle()
        self._fill()
        self._tell_broken()
        if self._cuts.follow(self._is_new) or time.monotonic() - self._looked >= _LOOK_S:
            self._look()
        if self._pending is not None and self._pending.done():
            self._settle()
        full = self._intake.bytes >= self._job.buffer_bytes
        taken = self._cut(full=full)
        if not self._alone:
            self._stand()
        elif taken:
            self._intake.hold_back(())
        elif full:
            self._make_room()
        self.progressed = self.progressed or self._is_done()

    def _fill(self) -> None:
        if self._job.lookups is not None:
            self._job.lookups.follow()
        self._intake.fill(_WAIT_S, self._job.buffer_bytes - self._intake.bytes)

    def _is_done(self) -> bool:
        """Tell whether everything was applied that lay in the topics."""
        return bool(self._lanes) and self._pending is None and self.lag_rows() == 0

    def _tell(self, applied: Applied) -> None:
        """Report what is in the target now."""
        self.progressed = True
        self._job.reporter.applied(applied)

    def _tell_broken(self) -> None:
        """Report the rows that broke a rule, of both threads."""
        broken = self._routes.tally.drain()
        if broken:
            self._job.reporter.invalid(broken)

    def has_caught_up(self) -> bool:
        """Tell whether all was handed over that lay before the boundaries met at the start."""
        return self._aimed and not self._cuts.goals

    def drain(self) -> None:
        """Wait for the cut that is with the target."""
        self._settle()

    # Look

    def _look(self) -> None:
        """Find new topics, then, for boundaries known before, how far to read (R12)."""
        sources = self._cuts.news()
        names = self._topics.names()
        self._refuse_growth(names)
        found = self._topics.describe(name for name in names if name not in self._known)
        self._known |= found
        if found and self._alone:
            self._intake.add(self.gained([p for group in found.values() for p in _places(group)]))
        elif found:
            self._intake.subscribe(sorted(self._known), self)
        if not self._has_positions and self._alone:
            self._begin_positions()
        self._ends = self._topics.ends(p for group in self._known.values() for p in group)
        self._cuts.aim(sources, self._ends)
        self._aimed = self._aimed or bool(sources)
        self._looked = time.monotonic()

    def _is_new(self, topic: str) -> bool:
        return topic not in self._known and self._job.selection.takes(topic)

    def _refuse_growth(self, names: Mapping[str, int]) -> None:
        for name, partitions in self._known.items():
            if names.get(name, len(partitions)) != len(partitions):
                raise TopicChanged(
                    f"topic {name} had {len(partitions)} partitions and has {names[name]}",
                    hint="Keys have moved between partitions, so their order is lost. Write the "
                    "table into a new topic with a new snapshot.",
                )

    def gained(self, places: Sequence[tuple[str, int]]) -> list[Lane]:
        """Return lanes that begin at the target's cursors."""
        self._settle()
        self._letters.open()
        missing = {topic for topic, _ in places} - self._known.keys()
        self._known |= self._topics.describe(missing)
        partitions = [self._known[topic][number] for topic, number in places]
        cursors = self._target.cursors(partitions)
        stamped = {p.topic for p, cursor in cursors.items() if cursor and cursor.stamp}
        self._routes.applied |= stamped
        self._routes.begun |= {p.topic for p, cursor in cursors.items() if cursor}
        return [Lane(p, cursors[p], gated=self._is_shared(p.topic)) for p in partitions]

    def _is_shared(self, topic: str) -> bool:
        return not self._alone and len(self._known[topic]) > 1

    def partitions(self, topic: str) -> int:
        """Return how many partitions `topic` has."""
        return len(self._known.get(topic, ()))

    def writers(self, topic: str) -> int:
        """Return how many workers may write the table of `topic` at once."""
        return 1 if self._alone else min(self._job.workers, self.partitions(topic))

    def losing(self) -> None:
        """Wait for what is with the target: the next owner begins behind it."""
        self._settle()

    def _begin_positions(self) -> None:
        name = PositionsTopic(self._job.kafka, self._job.context.pipeline).name
        found = topic_ids(self._job.kafka, [name])
        if found:
            self._intake.add_other(name, found[name][1], self._cuts.take_position)
            self._has_positions = True

    def _may_judge(self, events: Sequence[Event]) -> bool:
        """Tell whether every partition, ours too, has come as far as `events` (R4).

        The ends are asked for now: what was committed before `events` lies below them, while
        ends of a moment ago say nothing of it.
        """
        if self._alone:
            return True
        mine = {lane.partition: lane.cursor for lane in self._lanes}
        partitions = [p for group in self._known.values() for p in group]
        others = [p for p in partitions if p not in mine]
        newest = max((e.stamp for e in events if e.stamp is not None), default=None)
        ends = self._topics.ends(partitions)
        for partition, cursor in {**self._target.cursors(others), **mine}.items():
            offset, stamp = (0, None) if cursor is None else (cursor.offset, cursor.stamp)
            passed = stamp is not None and newest is not None and stamp >= newest
            if not passed and offset < ends.get(partition, 0):
                return False
        return True

    @property
    def _lanes(self) -> list[Lane]:
        return list(self._intake.lanes.values())

    # Cut and submit

    def _cut(self, *, full: bool) -> bool:
        """Submit what may be applied; tell whether there was anything."""
        lanes = self._lanes
        limits = self._cuts.ready(lanes, full=full) if self._alone else {}
        held = self._intake.bytes
        partitions = [
            lane.take(limits.get(lane.source, EVERYTHING), but_last=self._hesitates(lane))
            for lane in lanes
        ]
        filled = any(partitions)
        if not filled and time.monotonic() - self._moved < _IDLE_CURSOR_S:
            return False
        self._submit(partitions, held - self._intake.bytes)
        return filled

    def _submit(self, partitions: Sequence[list[Event]], size: int) -> None:
        """Hand over what was taken, partition by partition, and move the cursors behind it.

        `size` is what it weighs.
        """
        spans = [span for lane in self._lanes if (span := lane.span()) is not None]
        if spans:
            self._settle()
            cut = Cut(partitions, spans, self._newly_dropped())
            self._pending = self._thread.submit(self._applier.apply, cut)
            self._pending_bytes = size
            self._follow(spans)

    def _hesitates(self, lane: Lane) -> bool:
        """Tell whether to read once more, where no boundary keeps the records of a change."""
        return lane.awaits_create() or (not self._alone and lane.hesitates())

    def _stand(self) -> None:
        """Pass the truncations that every partition has come to; read on in the others (R8)."""
        standing = self._barriers.due(self._lanes)
        if standing:
            self._settle()
            started = time.monotonic()
            passed = self._barriers.ask(standing)
            if passed:
                self._tell(summed(passed, 0, 0, time.monotonic() - started))
        self._intake.hold_back([lane for lane in self._lanes if lane.gate is not None])

    def _follow(self, spans: Sequence[Span]) -> None:
        self._moved = time.monotonic()
        for span in spans:
            place = (span.partition.topic, span.partition.partition)
            self._intake.lanes[place].cursor = span.end

    def _settle(self) -> None:
        """Wait for the cut that is with the target, and report it."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            applied = pending.result()
        finally:
            self._pending_bytes = 0
            del pending  # it holds its error, whose traceback would hold this frame and the cut
        self._tell(applied)

    def _newly_dropped(self) -> int:
        total = sum(lane.dropped for lane in self._lanes)
        new, self._dropped = total - self._dropped, total
        return new

    # Memory

    def _make_room(self) -> None:
        """Stop reading all but what a cut waits for; stream what is larger than memory.

        Rows that a snapshot read need no transaction of their own: they are applied as they come,
        so that one that is refused is told from the others.
        """
        lanes = self._lanes
        blockers = self._cuts.blockers(lanes)
        self._intake.hold_back([lane for lane in lanes if lane not in blockers])
        if sum(lane.bytes for lane in blockers) < self._job.buffer_bytes:
            return
        held = self._intake.bytes
        copied = [lane.take_copied() if lane in blockers else [] for lane in lanes]
        if any(copied):
            self._submit(copied, held - self._intake.bytes)
        else:
            incarnation, commit = blockers[0].place
            self._stream(blockers[0].source, (incarnation, commit + 1))

    def _stream(self, source: str, limit: Limit) -> None:
        """Apply everything before `limit`, whose end is not read yet, in one transaction."""
        self._settle()
        self._intake.hold_back(())
        lanes = [lane for lane in self._lanes if lane.source == source]
        spans: list[Span] = []
        applied = self._applier.stream(self._pieces(lanes, limit, spans), spans)
        self._follow(spans)
        self._tell(applied)
        self._intake.hold_back(())

    def _pieces(
        self, lanes: Sequence[Lane], limit: Limit, spans: list[Span]
    ) -> Iterator[list[list[Event]]]:
        """Yield events piece by piece; at the end `spans` is filled."""
        goal = self._cuts.goals[lanes[0].source]
        while True:
            whole = all(lane.place >= limit or goal.is_met(lane) for lane in lanes)
            yield [lane.take(limit, but_last=not whole and lane.ends_open()) for lane in lanes]
            if whole:
                break
            if self._job.stop():
                raise KafkaUnavailable("stopped before the end of a large transaction was read")
            self._fill()
            if self._intake.bytes >= self._job.buffer_bytes:
                self._intake.hold_back([lane for lane in lanes if lane.place >= limit])
        spans.extend(span for lane in lanes if (span := lane.span()) is not None)

    # Status

    def lag_rows(self) -> int:
        """Return how many records are in the topics and not yet in the target, about."""
        lanes = self._lanes
        ahead = sum(max(0, self._ends.get(lane.partition, 0) - lane.next) for lane in lanes)
        return ahead + sum(len(lane.events) for lane in lanes)

    def lag_seconds(self) -> float:
        """Return the age of the oldest change that is read and not yet applied."""
        heads = [lane.events[0].ts_ms for lane in self._lanes if lane.events]
        oldest = min((head for head in heads if head), default=0)
        return max(0.0, time.time() - oldest / 1000) if oldest else 0.0

    def waiting(self) -> str:
        """Name what is waited for before anything can be applied; empty when nothing is."""
        if not self._known:
            return "a topic that matches `tables`"
        if not self._alone:
            return self._barriers.waiting
        unknown = {lane.source for lane in self._lanes if lane.events} - self._cuts.known
        return f"the first position of {', '.join(sorted(unknown))}" if unknown else ""


def _places(partitions: Sequence[TopicPartition]) -> list[tuple[str, int]]:
    return [(partition.topic, partition.partition) for partition in partitions]
