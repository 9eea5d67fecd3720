"""What targets have in common that keep no cursors themselves: one worker owns those in Kafka.

The owner of the transactional id has every partition, so there is nobody to wait for at a
truncation, and nobody to hold off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cdc.connector import Context
from cdc.errors import Stop
from cdc.kafka import KafkaConfig
from sinks.kafka.cursors import CursorTopic
from sinks.target import Barrier, Cursor, TopicPartition

__all__ = ["SoleTarget", "forget"]


class SoleTarget:
    """The part of a `sinks.target.Target` that its cursors in `kafka` decide."""

    takes_lines = False

    def __init__(self, context: Context, kafka: KafkaConfig) -> None:
        self._name = context.name
        self._cursors = CursorTopic(kafka, context)

    def cursors(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Cursor | None]:
        """Return what is stored; see `sinks.stored.cursor_of` for what it raises."""
        return self._cursors.read(partitions)

    def place(self, cursors: Mapping[TopicPartition, Cursor | None]) -> None:
        """Put cursors where an operator wants them; what was written or sent stays as it is."""
        self._cursors.place(cursors)

    def meet(self, barrier: Barrier) -> Sequence[int]:
        """Refuse: one worker has every partition, and waits for nobody."""
        raise self._alone(f"wait at a truncation of {barrier.schema.table}")

    def reserve(self) -> None:
        """Refuse: there are no others to keep away."""
        raise self._alone("be reserved")

    def _alone(self, doing: str) -> Stop:
        return Stop(f"sink {self._name} has one worker, and so no cause to {doing}")


def forget(context: Context, kafka: KafkaConfig, *, dry_run: bool) -> Iterator[str]:
    """Forget the cursors of a sink, and say so first."""
    cursors = CursorTopic(kafka, context)
    yield f"cursors of sink {context.name} in {cursors.name}"
    if not dry_run:
        try:
            cursors.open()
            cursors.forget()
        finally:
            cursors.close()
