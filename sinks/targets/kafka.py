"""A Kafka topic as a target: records and cursors in one Kafka transaction, exactly once.

    cursors: do the spans start there? ─▶ begin ─▶ records of the rows ─▶ cursors ─▶ commit
    (sinks/kafka/cursors.py)                       one topic per table    all or nothing

Why a change is applied once: the cursors lie in the cluster the records go to, in their
transaction. A killed worker's transaction is ended by the next owner of its transactional id, and
whoever reads committed records never sees one of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from confluent_kafka import KafkaException, Producer
from pydantic import BaseModel, ConfigDict, Field

from cdc.brokers import TopicSettings, ensure_topics, topic_ids
from cdc.compacted import reach
from cdc.connector import Context, Finding
from cdc.errors import (
    CdcError,
    ConfigError,
    DataError,
    Fenced,
    KafkaUnavailable,
    SchemaIncompatible,
)
from cdc.failpoints import failpoint
from cdc.kafka import DEADLINE_S, KafkaConfig, kafka_error
from cdc.topics import topic_name
from schemas.registry import Registry
from schemas.table import TableSchema
from sinks.kafka.cursors import kafka_of
from sinks.kafka.records import Record, Records, avro_form, json_form
from sinks.kafka.sole import SoleTarget, forget
from sinks.mapping import Selection
from sinks.options import BUFFER_BYTES, BufferBytes, Topics
from sinks.refusals import rehearsed, vanished
from sinks.target import Span, Step

__all__ = ["Config", "KafkaTarget", "check", "create", "drop"]


class Config(BaseModel):
    """A sink that writes rows to topics."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["kafka"] = Field(default="kafka", description="The connector's name")
    tables: Topics
    cluster: KafkaConfig | None = Field(
        default=None, description="Brokers and registry to write to; the pipeline's when left out"
    )
    topic: str = Field(
        default="{schema}.{table}", description="Name of a table's topic; may use {schema}, {table}"
    )
    format: Literal["json", "avro"] = Field(default="json", description="Form of key and value")
    partitions: int = Field(default=1, ge=1, description="Partitions of a topic that is made")
    truncate: Literal["refuse", "skip"] = Field(
        default="refuse", description="A truncation is a dead letter, or passed over"
    )
    create: bool = Field(default=True, description="Make missing topics, or stop at one")
    buffer_bytes: BufferBytes = BUFFER_BYTES


def _cluster(context: Context, config: Config) -> KafkaConfig:
    return config.cluster or kafka_of(context)


def create(context: Context, config: Config) -> KafkaTarget:
    """Return the target; it connects when it is opened."""
    return KafkaTarget(context, config)


class KafkaTarget(SoleTarget):
    """See `sinks.target.Target`. One worker: it owns the transactional id of the sink."""

    def __init__(self, context: Context, config: Config) -> None:
        self._kafka = _cluster(context, config)
        super().__init__(context, self._kafka)
        self._config = config
        self._own_cluster = config.cluster is None
        self._registry = Registry(self._kafka.registry)
        self._tables: dict[TableSchema, tuple[str, Records]] = {}

    def open(self) -> None:
        """Make the topic of cursors where it is missing."""
        self.close()
        self._cursors.open()

    def close(self) -> None:
        """Let go of every connection; what is not committed is aborted."""
        self._tables.clear()
        self._cursors.close()
        self._registry.close()

    def prepare(self, schema: TableSchema, *, known: bool = False) -> None:
        """Make the topic where it may be made, and register its schemas."""
        if schema in self._tables:
            return
        topic = topic_name("", schema.table, self._config.topic)
        self._refuse_circle(topic)
        there = topic in topic_ids(self._kafka, [topic])
        if known and not there:
            raise vanished(schema.table)
        if not there and not self._config.create:
            raise SchemaIncompatible(
                f"topic {topic} is missing, and `create: false` makes none",
                hint=f"kafka-topics.sh --create --topic {topic} --config cleanup.policy=compact",
            )
        cleanup = {"cleanup.policy": "compact"} if schema.key else {}
        ensure_topics(self._kafka, {topic: TopicSettings(self._config.partitions, cleanup)})
        avro = self._config.format == "avro"
        form = avro_form(schema, topic, self._registry) if avro else json_form(schema)
        skips = self._config.truncate == "skip"
        self._tables[schema] = topic, Records(schema, form, skips=skips)

    def _refuse_circle(self, topic: str) -> None:
        if self._own_cluster and Selection(self._config.tables).takes(topic):
            raise ConfigError(
                f"sink {self._name} would read topic {topic}, which it writes",
                hint="Name it otherwise with `topic:`, as `mirror.{schema}.{table}`.",
            )

    def apply(self, steps: Iterable[Step], spans: Sequence[Span]) -> None:
        """Write the records and move the cursors, in one transaction."""
        failpoint("sink.before_stage")

        def fill(producer: Producer) -> None:
            for step in steps:
                for topic, record in self._records(step):
                    _produce(producer, topic, record)
            failpoint("sink.before_cursor")

        try:
            self._cursors.commit(spans, fill)
        except Fenced as error:
            raise self._cursors.overtaken(spans) from error
        failpoint("sink.after_commit")

    def _records(self, step: Step) -> Iterator[tuple[str, Record]]:
        for mapped in step:
            topic, records = self._tables[mapped.schema]
            yield from ((topic, record) for record in records.of(mapped))

    def rehearse(self, transactions: Iterable[Sequence[Step]]) -> Mapping[int, DataError]:
        """Return which steps cannot be written as records; nothing is sent."""
        return rehearsed(transactions, lambda step: deque(self._records(step), 0))


def _produce(producer: Producer, topic: str, record: Record) -> None:
    """Hand one record over; a full queue is waited for. Raises as `cdc.kafka.kafka_error` maps."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            producer.produce(topic, record.value, record.key)
            producer.poll(0)
        except BufferError:
            if time.monotonic() > deadline:
                raise KafkaUnavailable(f"the producer's queue stays full for {topic}") from None
            producer.poll(0.1)
        except KafkaException as error:
            raise kafka_error(error, f"writing to {topic}") from error
        else:
            return


def check(context: Context, config: Config) -> Iterator[Finding]:
    """Ask the cluster, and the registry where it is needed, whether they answer."""
    kafka = _cluster(context, config)
    try:
        found = reach(kafka, 5.0)
        yield Finding("ok", kafka.bootstrap, f"answers; {len(found)} topics are visible")
        if config.format == "avro":
            with Registry(kafka.registry) as registry:
                registry.versions("tailrace-check")
            yield Finding("ok", kafka.registry.place, "answers")
    except CdcError as error:
        yield Finding("fail", kafka.bootstrap, str(error), error.hint)


def drop(context: Context, config: Config, *, dry_run: bool) -> Iterator[str]:
    """Forget the cursors of this sink; topics and records stay."""
    yield from forget(context, _cluster(context, config), dry_run=dry_run)
