"""An internal topic of one partition, read from its beginning and then followed.

The reader does no I/O before its first call. `catch_up` reads to where the topic ended when it was
called; `poll` returns what came since and never waits, so that a worker's loop can afford it.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from cdc.brokers import COMPACTED, TopicSettings, ensure_topics, high_watermark, topic_ids
from cdc.errors import KafkaUnavailable
from cdc.kafka import (
    DEADLINE_S,
    KafkaConfig,
    admin_client,
    arrived,
    consumer_client,
    kafka_error,
)

__all__ = ["CompactedTopic", "Entry", "ensure_internal", "reach"]

_ALL = 10_000


class Entry(NamedTuple):
    """One record; `value` is None for a tombstone, `time_ms` is the record's time."""

    offset: int
    key: str
    value: bytes | None
    time_ms: int


def reach(kafka: KafkaConfig, timeout: float = 3.0) -> dict[str, int]:
    """Return the topics there are, and how many partitions each has.

    Raises `errors.CdcError` as `cdc.kafka.kafka_error` maps it, after `timeout` seconds.
    """
    try:
        found = admin_client(kafka).list_topics(timeout=timeout).topics
    except KafkaException as error:
        raise kafka_error(error, f"reaching Kafka at {kafka.bootstrap}") from error
    return {name: len(topic.partitions) for name, topic in found.items()}


def ensure_internal(kafka: KafkaConfig, pipeline: str) -> None:
    """Create the control and status topics where they are missing.

    A broker that is away is found out in 3 s, so that a request to end is not kept waiting.
    Raises `errors.CdcError` as `cdc.kafka.kafka_error` maps it.
    """
    names = [f"{pipeline}.control", f"{pipeline}.status"]
    if set(names) <= reach(kafka).keys():
        return
    one = TopicSettings(1, COMPACTED)
    ensure_topics(kafka, dict.fromkeys(names, one))


class CompactedTopic:
    """A reader of one topic with one partition. Single-threaded."""

    def __init__(self, kafka: KafkaConfig, name: str) -> None:
        self.name = name
        self._kafka = kafka
        self._consumer: Consumer | None = None
        self._next = 0

    def catch_up(self, timeout: float = DEADLINE_S) -> list[Entry]:
        """Return every record up to the present end, in order; none when there is no topic.

        Raises `errors.KafkaUnavailable` when the end is not reached within `timeout` seconds.
        """
        if self.name not in topic_ids(self._kafka, [self.name]):
            return []
        end = high_watermark(self._kafka, self.name, 0)
        deadline = time.monotonic() + timeout
        out: list[Entry] = []
        while self._next < end:
            if time.monotonic() > deadline:
                raise KafkaUnavailable(f"{self.name}: read to offset {self._next} of {end} only")
            out += self._take(0.1)
        return out

    def poll(self, timeout: float = 0.0) -> list[Entry]:
        """Return what has come since the last call. Raises as `kafka_error` maps."""
        return self._take(timeout)

    def close(self) -> None:
        """Let go of the connection; the next call begins anew."""
        consumer, self._consumer, self._next = self._consumer, None, 0
        if consumer is not None:
            consumer.close()

    def _take(self, timeout: float) -> list[Entry]:
        if self._consumer is None:
            self._consumer = consumer_client(self._kafka, fetch_error_backoff_ms=200)
            self._consumer.assign([TopicPartition(self.name, 0, OFFSET_BEGINNING)])
        try:
            messages = arrived(self._consumer, _ALL, timeout)
        except KafkaException as error:
            raise kafka_error(error, f"reading {self.name}") from error
        return [entry for message in messages if (entry := self._entry(message)) is not None]

    def _entry(self, message: Message) -> Entry | None:
        failed = message.error()
        if failed is None:
            self._next = _offset(message) + 1
            key = (message.key() or b"").decode(errors="replace")
            return Entry(self._next - 1, key, message.value(), message.timestamp()[1])
        if failed.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own code
            self._next = max(self._next, _offset(message))
            return None
        if failed.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise kafka_error(failed, f"reading {self.name}")


def _offset(message: Message) -> int:
    offset = message.offset()
    return 0 if offset is None else offset
