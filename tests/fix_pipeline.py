"""A pipeline of a test's own on the session's Kafka: unique names, clients, and what they read."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition

from cdc.brokers import high_watermark, topic_ids
from cdc.columns import ColumnRule
from cdc.connector import Context
from cdc.kafka import KafkaConfig, arrived, assign, consumer_client
from cdc.publish import PublishConfig, Publisher, Written
from cdc.quarantine import OnUndecodable
from cdc.source import Batch
from schemas.change import Change, Op, Origin, Rows, Stamp
from schemas.plan import SourceName
from schemas.registry import Registry
from schemas.table import Column, TableId, TableSchema, Type

ITEMS = TableSchema(
    TableId("public", "items"),
    (Column("id", Type("int64")), Column("name", Type("string"))),
    ("id",),
)


class At(msgspec.Struct, frozen=True):
    """A position that is just a number."""

    number: int

    def encode(self) -> dict[str, Any]:
        return {"version": 1, "number": self.number}

    def covers(self, other: At) -> bool:
        return self.number >= other.number


def item_rows(commit: int, ids: list[int], schema: TableSchema = ITEMS) -> Rows:
    changes = [Change(Op.CREATE, None, (b"%d" % i, b"item %d" % i)) for i in ids]
    origin = Origin(1, commit, 1_700_000_000_000_000 + commit, str(commit))
    return Rows(schema, "changes", origin, changes, range(len(ids)))


def item_batch(commit: int, ids: list[int], schema: TableSchema = ITEMS) -> Batch:
    return Batch([item_rows(commit, ids, schema)], At(commit), Stamp(1, commit))


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = 30.0) -> Any:
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {deadline_s} s: {what}")


class Pipeline:
    """Names and settings of one test's pipeline."""

    def __init__(self, bootstrap: str, registry: str) -> None:
        self.name = f"p{secrets.token_hex(4)}"
        self.source = f"src{secrets.token_hex(3)}"
        self.context = Context(self.name, self.source)
        self.kafka = KafkaConfig.model_validate({"bootstrap": bootstrap, "registry": registry})
        self.registry = Registry(self.kafka.registry)

    def publisher(
        self,
        options: PublishConfig | None = None,
        columns: dict[str, ColumnRule] | None = None,
        on_undecodable: OnUndecodable = "stop",
    ) -> Publisher:
        block = SourceName("test", "test", self.source)
        written = Written(options or PublishConfig(), columns or {}, on_undecodable)
        return Publisher(self.context, self.kafka, self.registry, block, written)

    def topic(self, table: str = "public.items") -> str:
        return f"{self.source}.{table}"

    def read(self, topic: str, *, open_too: bool = True) -> list[Message]:
        """Return every committed record of a topic, in order within each partition.

        Waits for transactions that are open now to end, unless `open_too` is false.
        """
        _, partitions = topic_ids(self.kafka, [topic]).get(topic, ("", 0))
        out: list[Message] = []
        for partition in range(partitions):
            end = high_watermark(self.kafka, topic, partition) if open_too else 1 << 62
            out += self._read(topic, partition, end)
        return out

    def _read(self, topic: str, partition: int, end: int) -> list[Message]:
        consumer = consumer_client(self.kafka, fetch_wait_max_ms=20)
        assign(consumer, [TopicPartition(topic, partition, OFFSET_BEGINNING)])
        found: list[Message] = []
        reached, deadline = 0, time.monotonic() + 40
        while reached < end:
            assert time.monotonic() < deadline, f"{topic} is readable to {reached} of {end}"
            for message in arrived(consumer, 10_000, 0.2):
                failed = message.error()
                if failed is None:
                    found.append(message)
                    reached = message.offset() + 1
                else:
                    assert failed.code() == KafkaError._PARTITION_EOF, failed
                    reached = end if end == 1 << 62 else message.offset()
        consumer.close()
        return found


@pytest.fixture
def pipeline(kafka: Any, registry: Any) -> Iterator[Pipeline]:
    made = Pipeline(kafka.bootstrap, registry.url)
    yield made
    made.registry.close()
