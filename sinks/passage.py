"""Has the sink applied everything up to a place of the source's log?

place ─▶ the source's committed position has passed it ─▶ everything up to it is in Kafka
      ─▶ the topics end here, open transactions included ─▶ the target's cursors are there
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cdc.errors import SourceUnavailable, TargetUnavailable
from cdc.positions import PositionsTopic
from sinks.target import Target, TopicPartition
from sinks.topics import Topics

__all__ = ["Passage"]

_POLL_S = 0.1


class Passage:
    """Waits, at most `patience` seconds, for one source and the open `target` of one sink."""

    def __init__(
        self,
        positions: PositionsTopic,
        source: str,
        topics: Topics,
        target: Target,
        patience: float,
    ) -> None:
        self._positions, self._source = positions, source
        self._topics, self._target = topics, target
        self._patience = patience

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Return the partitions of a topic, none before its first record."""
        return self._topics.describe([topic]).get(topic, [])

    def wait(self, here: Any, passed: Callable[[dict[str, Any], Any], bool], topic: str) -> None:
        """Return once the sink has applied what of `topic` was committed up to `here`.

        Raises `errors.SourceUnavailable` or `errors.TargetUnavailable`: who has not come there.
        """
        deadline = time.monotonic() + self._patience
        while not passed(self._positions.read(self._source).position or {}, here):
            if time.monotonic() > deadline:
                raise SourceUnavailable(
                    f"source {self._source} has not read its log to where the rows were seen, in "
                    f"{self._patience:.0f} s",
                    hint="So nobody can tell what is late and what is lost: does `cdc status` "
                    "show it streaming? A longer --wait helps where it is only behind.",
                )
            time.sleep(_POLL_S)
        ends = self._topics.ends(self.partitions(topic))
        while behind := self._behind(ends):
            if time.monotonic() > deadline:
                raise TargetUnavailable(
                    f"the sink has not applied {behind} in {self._patience:.0f} s",
                    hint="So nobody can tell what is late and what is lost: does `cdc status` "
                    "show it at work? A longer --wait helps where it is only behind.",
                )
            time.sleep(_POLL_S)

    def _behind(self, ends: dict[TopicPartition, int]) -> str:
        """Return what is still to be applied; empty when nothing is."""
        cursors = self._target.cursors(list(ends)) if ends else {}
        for partition, end in ends.items():
            cursor = cursors[partition]
            if end > (cursor.offset if cursor is not None else 0):
                return f"{partition.topic}[{partition.partition}] up to offset {end}"
        return ""
