"""Which supervisor runs which worker: one consumer group over the positions topic.

The group's only use is its assignment; no record is fetched. A seat (one worker) belongs to
partition crc32(seat) % n, so the seats spread over the supervisors of all machines. This is
placement only: who owns a source is decided by its transactional id.

Classic protocol, session 6 s, heartbeat 2 s, no static membership: a supervisor that was killed
is replaced in 5 s (measured; 44 s with the defaults). Cooperative, so that a newcomer takes over
some seats and the others go on undisturbed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from cdc.brokers import topic_ids
from cdc.kafka import KafkaConfig, consumer_client, kafka_error
from cdc.positions import PositionsTopic, partition_for

__all__ = ["Placement"]

_PASSING = frozenset(
    {
        KafkaError._PARTITION_EOF,  # noqa: SLF001 - librdkafka's own codes begin so
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._NO_OFFSET,  # noqa: SLF001
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
    }
)
_log = structlog.get_logger(__name__)


class Placement:
    """One member of the group. Single-threaded; `poll` must be called again within 5 minutes."""

    def __init__(
        self, kafka: KafkaConfig, pipeline: str, revoked: Callable[[Sequence[int]], None]
    ) -> None:
        self._kafka = kafka
        self._topic = PositionsTopic(kafka, pipeline)
        self._group = f"{pipeline}.supervisors"
        self._revoked = revoked
        self._consumer: Consumer | None = None
        self._partitions = 0
        self._assigned: set[int] | None = None

    def join(self) -> None:
        """Create the positions topic where it is missing and join the group. Does not wait.

        Raises `errors.CdcError` as `cdc.kafka.kafka_error` maps it.
        """
        self._topic.partition("")
        self._partitions = topic_ids(self._kafka, [self._topic.name])[self._topic.name][1]
        self._consumer = consumer_client(
            self._kafka,
            group_id=self._group,
            group_protocol="classic",
            partition_assignment_strategy="cooperative-sticky",
            session_timeout_ms=6000,
            heartbeat_interval_ms=2000,
            enable_partition_eof=False,
        )
        self._consumer.subscribe(
            [self._topic.name],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def poll(self, timeout: float) -> None:
        """Keep the membership alive and carry out reassignments, for `timeout` seconds."""
        if self._consumer is None:
            return
        try:
            message = self._consumer.poll(timeout)
        except KafkaException as error:
            raise kafka_error(error, "placing workers") from error
        failed = message.error() if message is not None else None
        if failed is not None and failed.code() not in _PASSING and not failed.retriable():
            raise kafka_error(failed, "placing workers")

    def seats(self, all_seats: Sequence[str]) -> list[str] | None:
        """Return those of `all_seats` that are to be run here; None before the first assignment."""
        if self._assigned is None:
            return None
        return [s for s in all_seats if partition_for(s, self._partitions) in self._assigned]

    def holds(self, seat: str, partitions: Sequence[int]) -> bool:
        """Tell whether `seat` belongs to one of `partitions`."""
        return partition_for(seat, self._partitions) in partitions

    def leave(self) -> None:
        """Leave the group, so that others take over at once."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()
        self._assigned = None

    def _on_assign(self, consumer: Any, places: list[TopicPartition]) -> None:
        consumer.incremental_assign(places)
        consumer.pause(places)
        self._assigned = (self._assigned or set()) | {place.partition for place in places}
        _log.info("assigned", partitions=sorted(self._assigned))

    def _on_revoke(self, consumer: Any, places: list[TopicPartition]) -> None:
        gone = [place.partition for place in places]
        self._revoked(gone)
        self._assigned = (self._assigned or set()) - set(gone)
        consumer.incremental_unassign(places)

    def _on_lost(self, consumer: Any, places: list[TopicPartition]) -> None:
        """Keep the workers: a new owner fences them, and often the seats come back to us."""
        _log.warning("the broker took our seats; waiting for the next assignment")
        consumer.incremental_unassign(places)
        self._assigned = None
