"""Dead letters: records the target can never take, kept whole in `<pipeline>.dead`.

Value, key and headers are the original bytes; what we know is added as `cdc.*` headers, so that
a letter can be read, repaired and sent back to its topic with any Kafka tool. A letter is durable
before the cursor passes its record: a crash in between writes it a second time (`cdc.topic`,
`cdc.partition` and `cdc.offset` tell), it is never lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc.brokers import TopicSettings, ensure_topics
from cdc.connector import Context
from cdc.errors import CdcError, KafkaUnavailable
from cdc.kafka import DEADLINE_S, KafkaConfig, producer_client
from cdc.kafka import kafka_error as named
from sinks.decode import Event

__all__ = ["SETTINGS", "DeadLetters"]

_log = structlog.get_logger(__name__)

SETTINGS = TopicSettings(1, {"cleanup.policy": "delete", "retention.ms": "-1"})
"""The one internal topic that is not compacted: every letter counts."""


class DeadLetters:
    """Writes the letters of one sink; connects at the first."""

    def __init__(self, kafka: KafkaConfig, context: Context) -> None:
        self._kafka = kafka
        self._context = context
        self.topic = f"{context.pipeline}.dead"
        self._producer: Producer | None = None

    def write(self, events: Sequence[Event]) -> None:
        """Store `events` with their errors and wait until the broker has them.

        Raises as `cdc.kafka.kafka_error` maps; nothing may be applied then.
        """
        producer = self._connected()
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failed.append(error)

        try:
            for event in events:
                message = event.message
                headers = [*(message.headers() or []), *self._facts(event)]
                producer.produce(
                    self.topic,
                    message.value(),
                    message.key(),
                    headers=headers,
                    on_delivery=delivered,
                )
            left = producer.flush(DEADLINE_S)
        except KafkaException as error:
            raise named(error, f"writing to {self.topic}") from error
        except BufferError as error:
            raise KafkaUnavailable(f"writing to {self.topic}: {error}") from error
        if left:
            raise KafkaUnavailable(f"writing to {self.topic}: no answer in {DEADLINE_S:.0f} s")
        if failed:
            raise named(failed[0], f"writing to {self.topic}")
        self._tell(events)

    def _tell(self, events: Sequence[Event]) -> None:
        """Say it in the log as well: a letter nobody hears of is a loss."""
        for first in events[:1]:
            _log.warning(
                "dead letters",
                topic=self.topic,
                records=len(events),
                first_topic=first.message.topic(),
                first_offset=first.message.offset(),
                first_reason=str(first.error),
            )

    def _connected(self) -> Producer:
        if self._producer is None:
            ensure_topics(self._kafka, {self.topic: SETTINGS})
            self._producer = producer_client(self._kafka, acks="all", enable_idempotence=True)
        return self._producer

    def _facts(self, event: Event) -> list[tuple[str, bytes]]:
        message, error = event.message, event.error or CdcError("refused")
        facts: dict[str, Any] = {
            "pipeline": self._context.pipeline,
            "sink": self._context.name,
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp": message.timestamp()[1],
            "table": event.schema.table if event.schema else "",
            "error": type(error).__name__,
            "reason": error,
            "hint": error.hint,
            "at": time.time_ns() // 1_000_000,
        }
        return [(f"cdc.{name}", str(value).encode()) for name, value in facts.items()]

    def close(self) -> None:
        """Let go of the producer."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(0)
            self._producer = None
