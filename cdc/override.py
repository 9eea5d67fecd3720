"""Writing a source's state in its place: what `cdc position set` and `reset` do, and `cdc drop`.

One transaction under the source's own transactional id, so that a worker which still runs is
fenced and can never write behind it.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from confluent_kafka import KafkaException

from cdc.errors import KafkaUnavailable
from cdc.kafka import DEADLINE_S, KafkaConfig, kafka_error, producer_client
from cdc.positions import VERSION, PositionsTopic, Stored

__all__ = ["overwrite"]


def overwrite(kafka: KafkaConfig, pipeline: str, source: str, state: Stored) -> None:
    """Store `state`; what is None in it is forgotten (tombstones).

    Raises `errors.CdcError` as `cdc.kafka.kafka_error` maps it; then nothing was written.
    """
    topic = PositionsTopic(kafka, pipeline)
    partition = topic.partition(source)
    producer = producer_client(
        kafka, transactional_id=f"{pipeline}.source.{source}", transaction_timeout_ms=15_000
    )
    try:
        producer.init_transactions(DEADLINE_S)
        producer.begin_transaction()
        for key, value in _records(source, state):
            producer.produce(topic.name, value, key, partition)
        producer.commit_transaction(DEADLINE_S)
    except KafkaException as error:
        raise kafka_error(error, f"writing the position of {source}") from error
    except BufferError as error:
        raise KafkaUnavailable(f"writing the position of {source}: {error}") from error


def _records(source: str, state: Stored) -> list[tuple[str, bytes | None]]:
    position: bytes | None = None
    if state.position is not None:
        boundary = state.boundary or (0, 0)
        value: dict[str, Any] = {
            "version": VERSION,
            "position": state.position,
            "boundary": [boundary[0], boundary[1]],
            "ts_ms": time.time_ns() // 1_000_000,
        }
        position = msgspec.json.encode(value)
    progress: dict[str, Any] = state.progress
    rest = [
        (f"{source}/{key}", None if value is None else msgspec.json.encode(value))
        for key, value in progress.items()
    ]
    return [*rest, (source, position)]
