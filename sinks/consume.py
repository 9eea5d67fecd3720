"""Kafka → held events: one consumer over the data partitions and the positions topic.

Only committed records are seen. How far a partition was read is its next offset; transaction
markers move it too, without a record, and the end-of-partition event tells (librdkafka's own
`position` would stay before them). An offset is never reset: a cursor below the log's start, or a
topic made anew, is a stop.

Back-pressure is not calling `fill`: the client then stops fetching at its own small queue. A
partition is paused only when others must go on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Place

from cdc.errors import TopicChanged
from cdc.kafka import KafkaConfig, arrived, consumer_client, kafka_error
from sinks.checkpoint import Lane
from sinks.decode import SKIP, Event

__all__ = ["Intake", "Members", "Reader", "consumer_settings"]

_AT_LEAST, _AT_MOST, _USUAL_BYTES = 500, 10_000, 1200
_LOST = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001 - librdkafka's own codes begin so
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError.UNKNOWN_TOPIC_ID,
    }
)


class Reader(Protocol):
    """What turns a record into an event: `sinks.routes.Routes`."""

    def read(self, message: Message, value: bytes) -> Event:
        """Return what `message` does to the target."""
        ...

    def bury(self, message: Message) -> Event | None:
        """Return what a tombstone does to the target, None for nothing."""
        ...


class Members(Protocol):
    """Who decides what a change in the group's assignment means: the session."""

    def gained(self, places: Sequence[tuple[str, int]]) -> list[Lane]:
        """Return the lanes of partitions that are ours now, at the target's cursors."""
        ...

    def losing(self) -> None:
        """Bring to an end what is with the target, before partitions go to another worker."""
        ...


def consumer_settings(group: str) -> dict[str, str | float | bool]:
    """Return what a sink's consumer adds: little held in the client, and no delay (R14)."""
    return {
        "group_id": group,
        "queued_max_messages_kbytes": 512,
        "fetch_message_max_bytes": 256 * 1024,
        "fetch_max_bytes": 1024 * 1024,
        "fetch_wait_max_ms": 100,
        "fetch_queue_backoff_ms": 5,
        "partition_assignment_strategy": "cooperative-sticky",
        "session_timeout_ms": 6000,
        "heartbeat_interval_ms": 500,
    }


class Intake:
    """The partitions a worker reads. Single-threaded."""

    def __init__(self, kafka: KafkaConfig, group: str, reader: Reader) -> None:
        self._consumer: Consumer = consumer_client(kafka, **consumer_settings(group))
        self._reader = reader
        self._others: dict[str, Callable[[Message], None]] = {}
        self.lanes: dict[tuple[str, int], Lane] = {}

    @property
    def bytes(self) -> int:
        """What all held events weigh."""
        return sum(lane.bytes for lane in self.lanes.values())

    def add(self, lanes: Iterable[Lane]) -> None:
        """Begin to read partitions from their cursors."""
        places = []
        for lane in lanes:
            topic, number = lane.partition.topic, lane.partition.partition
            self.lanes[topic, number] = lane
            offset = OFFSET_BEGINNING if lane.cursor is None else lane.cursor.offset
            places.append(Place(topic, number, offset))
        if places:
            self._call(lambda: self._consumer.incremental_assign(places))

    def subscribe(self, topics: Sequence[str], members: Members) -> None:
        """Share the partitions of `topics` with the other workers of the group.

        `members` hears, inside `fill`, which partitions come and which are to go.
        """

        def gained(_consumer: Consumer, places: list[Place]) -> None:
            self.add(members.gained([(place.topic, place.partition) for place in places]))

        def lost(_consumer: Consumer, places: list[Place]) -> None:
            members.losing()
            for place in places:
                self.lanes.pop((place.topic, place.partition), None)
            self._call(lambda: self._consumer.incremental_unassign(places))

        self._call(
            lambda: self._consumer.subscribe(
                list(topics), on_assign=gained, on_revoke=lost, on_lost=lost
            )
        )

    def add_other(self, topic: str, partitions: int, take: Callable[[Message], None]) -> None:
        """Read another topic from its beginning and hand its records to `take`."""
        self._others[topic] = take
        places = [Place(topic, number, OFFSET_BEGINNING) for number in range(partitions)]
        self._call(lambda: self._consumer.incremental_assign(places))

    def fill(self, timeout: float, room: int) -> int:
        """Wait up to `timeout` seconds for a record, take what there is, return how many.

        About `room` bytes are taken, and a few hundred records at least.
        """
        wanted = min(_AT_MOST, max(_AT_LEAST, room // _USUAL_BYTES))
        try:
            messages = arrived(self._consumer, wanted, timeout)
        except KafkaException as error:
            raise kafka_error(error, "reading records") from error
        for message in messages:
            self._take(message)
        return len(messages)

    def _take(self, message: Message) -> None:
        failed = message.error()
        if failed is not None:
            self._meet(message, failed)
            return
        lane = self.lanes.get((message.topic(), message.partition()))  # type: ignore[arg-type]
        if lane is None:
            other = self._others.get(message.topic() or "")
            if other is not None:
                other(message)
            return
        lane.next = message.offset() + 1  # type: ignore[operator]
        value = message.value()
        if value is None:
            event = self._reader.bury(message)
            if event is None:
                return
        else:
            event = self._reader.read(message, value)
        if event.kind == SKIP:
            lane.pass_over(event)
        else:
            lane.admit(event)

    def _meet(self, message: Message, failed: KafkaError) -> None:
        topic, number, offset = message.topic() or "", message.partition() or 0, message.offset()
        lane = self.lanes.get((topic, number))
        if failed.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            if lane is not None:
                lane.next = max(lane.next, offset or 0)
        elif failed.code() in _LOST:
            raise TopicChanged(
                f"{topic}[{number}] cannot be read on from its cursor: {failed.str()}",
                hint="The topic was deleted, made anew, or its retention is shorter than the sink "
                "was away. Decide where to go on with `cdc sink rewind`, and take a new snapshot.",
            )
        else:
            raise kafka_error(failed, f"reading {topic}[{number}]")

    def hold_back(self, lanes: Collection[Lane]) -> None:
        """Read on in all partitions but these."""
        self._pause([lane for lane in lanes if not lane.paused])
        others = [lane for lane in self.lanes.values() if lane.paused and lane not in lanes]
        for lane in others:
            lane.paused = False
        if others:
            self._call(lambda: self._consumer.resume(_places(others)))

    def _pause(self, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            lane.paused = True
        if lanes:
            self._call(lambda: self._consumer.pause(_places(lanes)))

    def close(self) -> None:
        """Leave; nothing is committed to Kafka, the cursors are in the target."""
        self._consumer.close()

    def _call(self, method: Callable[[], object]) -> None:
        try:
            method()
        except KafkaException as error:
            raise kafka_error(error, "assigning partitions") from error


def _places(lanes: Iterable[Lane]) -> list[Place]:
    return [Place(lane.partition.topic, lane.partition.partition) for lane in lanes]
