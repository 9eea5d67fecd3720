"""What is asked of the brokers: topics made and described, and where a partition ends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.cimpl import NewTopic

from cdc.admission import forget_admissions
from cdc.errors import KafkaUnavailable
from cdc.kafka import DEADLINE_S, KafkaConfig, admin_client, consumer_client, kafka_error

__all__ = [
    "COMPACTED",
    "TopicSettings",
    "ensure_topic",
    "ensure_topics",
    "high_watermark",
    "topic_ids",
]


class TopicSettings(msgspec.Struct, frozen=True):
    """What a topic is created with; an existing topic is left as it is."""

    partitions: int = 1
    config: Mapping[str, str] = {}


COMPACTED: Mapping[str, str] = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 * 1024 * 1024),
    "min.cleanable.dirty.ratio": "0.1",
}
"""Internal topics: small segments, so that compaction happens (measured: 1 GiB never does)."""


def ensure_topics(kafka: KafkaConfig, wanted: Mapping[str, TopicSettings]) -> list[str]:
    """Create the topics that are missing and return their names.

    Where all of them exist, no right to create any is needed.

    Raises `errors.CdcError` as `kafka_error` maps it, naming the topic.
    """
    there = topic_ids(kafka, wanted)
    admin = admin_client(kafka)
    limit = str(kafka.max_message_bytes)
    new = [
        NewTopic(
            name,
            num_partitions=settings.partitions,
            replication_factor=kafka.replication_factor,
            config={"max.message.bytes": limit, **settings.config},
        )
        for name, settings in wanted.items()
        if name not in there
    ]
    if not new:
        return []
    created = []
    for name, future in admin.create_topics(new, request_timeout=DEADLINE_S).items():
        try:
            future.result(DEADLINE_S)
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise kafka_error(error, f"creating topic {name}") from error
        except TimeoutError as error:
            raise KafkaUnavailable(f"creating topic {name}: no answer") from error
    return created


def ensure_topic(kafka: KafkaConfig, topic: str, settings: TopicSettings) -> tuple[str, int]:
    """Create `topic` if it is missing; return its id and partitions once the broker shows it."""
    ensure_topics(kafka, {topic: settings})
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        found = topic_ids(kafka, [topic])
        if topic in found:
            return found[topic]
        time.sleep(0.05)
    raise KafkaUnavailable(f"topic {topic} does not appear after its creation")


def topic_ids(kafka: KafkaConfig, topics: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Return (topic id, number of partitions) of those of `topics` that exist (KIP-516)."""
    names = list(topics)
    if not names:
        return {}
    admin = admin_client(kafka)
    found: dict[str, tuple[str, int]] = {}
    futures = admin.describe_topics(TopicCollection(names), request_timeout=DEADLINE_S)
    for name, future in futures.items():
        try:
            topic = future.result(DEADLINE_S)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            raise kafka_error(error, f"describing topic {name}") from error
        except TimeoutError as error:
            forget_admissions()
            raise KafkaUnavailable(f"describing topic {name}: no answer") from error
        found[name] = (str(topic.topic_id), len(topic.partitions))
    return found


_SETTLING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
"""What a broker says of a partition it was just given (measured for about 100 ms)."""


def high_watermark(kafka: KafkaConfig, topic: str, partition: int) -> int:
    """Return the offset behind the last record, open transactions included."""
    consumer = consumer_client(kafka, isolation_level="read_uncommitted")
    place = TopicPartition(topic, partition)
    deadline = time.monotonic() + DEADLINE_S
    try:
        while True:
            try:
                marks = consumer.get_watermark_offsets(place, timeout=DEADLINE_S, cached=False)
                return int(marks[1])
            except KafkaException as error:
                if error.args[0].code() not in _SETTLING or time.monotonic() > deadline:
                    raise kafka_error(error, f"reading the end of {topic}[{partition}]") from error
            time.sleep(0.05)
    finally:
        consumer.close()
