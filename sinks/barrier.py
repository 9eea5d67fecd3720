"""The truncations at which partitions of this worker stand (R8), and what they wait for.

With several workers nobody knows alone when a truncation's turn has come. A gated lane hands out
nothing behind it; here its worker asks the target, again and again, whether all partitions of
the table have come as far. Nothing is remembered: lanes come and go with the group's assignment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from schemas.change import Stamp
from sinks.checkpoint import Lane
from sinks.decode import Event
from sinks.target import Barrier

__all__ = ["Barriers"]

_ASK_S = 0.1


class Barriers:
    """Asks `meet` of the target; `partitions` counts those of a topic."""

    def __init__(
        self, meet: Callable[[Barrier], Sequence[int]], partitions: Callable[[str], int]
    ) -> None:
        self._meet = meet
        self._partitions = partitions
        self._asked = 0.0
        self._stood = 0
        self.waiting = ""

    def due(self, lanes: Iterable[Lane]) -> list[Lane]:
        """Return the lanes that stand at a truncation, when it is time to ask for them."""
        standing = [lane for lane in lanes if lane.gate is not None]
        new, self._stood = len(standing) != self._stood, len(standing)
        if not standing:
            self.waiting = ""
        now = time.monotonic()
        if not standing or (now - self._asked < _ASK_S and not new):
            return []
        self._asked = now
        return standing

    def ask(self, standing: Sequence[Lane]) -> list[Event]:
        """Let go on whoever may; return the truncations that were passed.

        Nothing may be on its way to the target. Raises as `sinks.target.Target.meet`.
        """
        groups: dict[tuple[str, Stamp | None], list[Lane]] = {}
        for lane in standing:
            stamp = lane.gate.stamp if lane.gate is not None else None
            groups.setdefault((lane.partition.topic, stamp), []).append(lane)
        passed, waiting = [], []
        for (topic, _), lanes in groups.items():
            barrier = self._barrier(topic, lanes)
            missing = self._meet(barrier)
            for lane, span in zip(lanes, barrier.spans, strict=True):
                if missing:
                    lane.cursor = span.end
                else:
                    passed.append(lane.go_on(barrier.behind(span.end)))
            if missing:
                names = ", ".join(map(str, missing))
                waiting.append(f"{topic}[{names}], to come to the truncation of the table")
        self.waiting = "; ".join(waiting)
        return passed

    def _barrier(self, topic: str, lanes: Sequence[Lane]) -> Barrier:
        event = lanes[0].gate
        if event is None or event.schema is None or event.stamp is None:
            raise ValueError(f"no lane of {topic} stands at a truncation")
        spans = [lane.stand() for lane in lanes]
        return Barrier(event.schema, event.stamp, event.snapshot, spans, self._partitions(topic))
