"""One Kafka transaction = the records of some batches + the position behind them.

    acquire()   fence the former owner, learn where it stood (positions.py)
    add(batch)  encode and hand to the client; the transaction begins with the first record
    commit()    position and progress into the same transaction, then EndTxn

After `errors.KafkaUnavailable` the outcome is in doubt: the publisher is closed and a new one
acquires, which aborts or completes what was open, and the stored position tells which (R5).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaException, Producer
from pydantic import BaseModel, ConfigDict, Field

from cdc.columns import ColumnRule, project
from cdc.connector import Context
from cdc.errors import KafkaUnavailable, Stop, TopicChanged
from cdc.failpoints import failpoint
from cdc.kafka import (
    DEADLINE_S,
    KafkaConfig,
    TopicSettings,
    ensure_topics,
    kafka_error,
    producer_client,
    topic_ids,
)
from cdc.positions import PositionsTopic, Stored
from cdc.source import Batch, Position, Progress
from cdc.topics import topic_name
from schemas.avro import envelope_schema, key_schema
from schemas.change import Rows
from schemas.plan import Plan, SourceName
from schemas.registry import Registry
from schemas.table import TableSchema

__all__ = ["Committed", "PublishConfig", "Publisher"]

_TRANSACTION_TIMEOUT_MS = 15_000
_log = structlog.get_logger(__name__)


class PublishConfig(BaseModel):
    """How a source's changes are written to Kafka."""

    model_config = ConfigDict(extra="forbid")

    topic: str = Field(
        default="{source}.{schema}.{table}", description="Template of the data topics' names"
    )
    partitions: dict[str, int] = Field(
        default_factory=dict,
        description="Partitions by `schema.table` glob, fixed at creation; 1 where none matches",
    )
    topic_config: dict[str, str] = Field(
        default_factory=dict, description="Topic settings, as `cleanup.policy: compact`"
    )
    max_rows: int = Field(default=20_000, ge=1, description="Rows of one Kafka transaction")
    max_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1024, description="Bytes of one Kafka transaction"
    )
    max_ms: int = Field(
        default=500, ge=0, description="Age at which a transaction commits under constant load"
    )


class Committed(msgspec.Struct, frozen=True):
    """What one commit made durable; `seconds` is the wait for EndTxn."""

    position: Position
    rows: int
    bytes: int
    seconds: float


class _Open(msgspec.Struct):
    """The transaction being filled."""

    begun: float
    rows: int = 0
    bytes: int = 0
    batch: Batch | None = None
    progress: dict[str, Progress] = msgspec.field(default_factory=dict)


class _Table(msgspec.Struct):
    plan: Plan
    topic: str
    partitions: int


class Publisher:
    """Writes one source's changes; owns its transactional id. Single-threaded."""

    def __init__(
        self,
        context: Context,
        kafka: KafkaConfig,
        registry: Registry,
        source: SourceName,
        options: tuple[PublishConfig, Mapping[str, ColumnRule]],
    ) -> None:
        self._context = context
        self._kafka = kafka
        self._registry = registry
        self._source = source
        self._options, self._columns = options
        self._positions = PositionsTopic(kafka, context.pipeline)
        self._producer: Producer | None = None
        self._partition = 0
        self._stored = Stored()
        self._tables: dict[tuple[TableSchema, str], _Table] = {}
        self._open: _Open | None = None
        self._new_progress: list[Progress] = []

    def acquire(self) -> Stored:
        """Take ownership and return what was committed last. Raises as `kafka_error` maps."""
        name = self._context.name
        self._partition = self._positions.partition(name)
        self._producer = producer_client(
            self._kafka,
            transactional_id=f"{self._context.pipeline}.source.{name}",
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
        )
        self._call(self._producer.init_transactions, "acquiring the transactional id")
        self._stored = self._positions.read(name)
        return self._stored

    def add(self, batch: Batch) -> None:
        """Encode the rows of `batch` into the open transaction.

        Raises `errors.Stop` for a row that cannot be encoded, `errors.SchemaIncompatible` for a
        table version its readers cannot read: nothing of the batch is committed then.
        """
        now_ms = time.time_ns() // 1_000_000
        by_topic: dict[str, list[dict[str, Any]]] = {}
        for rows in batch.rows:
            table = self._table(rows)
            messages = by_topic.setdefault(table.topic, [])
            self._encode(table, rows, now_ms, messages)
        opened = self._begin()
        for topic, messages in by_topic.items():
            self._produce(topic, messages)
            opened.rows += len(messages)
            opened.bytes += sum(len(message["value"] or b"") for message in messages)
        for progress in (*self._new_progress, *batch.progress):
            opened.progress[progress.key] = progress
        self._new_progress.clear()
        opened.batch = batch

    @property
    def is_open(self) -> bool:
        """Whether a transaction has begun."""
        return self._open is not None

    def due(self) -> bool:
        """Tell whether the open transaction has reached one of its bounds."""
        opened, options = self._open, self._options
        if opened is None:
            return False
        return (
            opened.rows >= options.max_rows
            or opened.bytes >= options.max_bytes
            or (time.monotonic() - opened.begun) * 1000 >= options.max_ms
        )

    def commit(self) -> Committed | None:
        """Commit records, progress and position; None when nothing is open."""
        opened = self._open
        if opened is None or opened.batch is None or self._producer is None:
            return None
        batch = msgspec.structs.replace(opened.batch, progress=list(opened.progress.values()))
        now_ms = time.time_ns() // 1_000_000
        failpoint("publish.before_position")
        records = self._positions.records(self._context.name, batch, now_ms)
        self._produce(self._positions.name, records, self._partition)
        failpoint("publish.before_commit")
        started = time.monotonic()
        self._call(self._producer.commit_transaction, "committing a transaction")
        failpoint("publish.after_commit")
        self._open = None
        return Committed(batch.upto, opened.rows, opened.bytes, time.monotonic() - started)

    def close(self) -> None:
        """Abort what is open and let go; never raises for a broker that is away."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        if self._open is not None:
            self._open = None
            _abort(producer)
        _discard(producer)

    def _begin(self) -> _Open:
        if self._open is None:
            if self._producer is None:
                raise Stop("publish before acquire")
            self._call_now(self._producer.begin_transaction, "beginning a transaction")
            self._open = _Open(time.monotonic())
        return self._open

    def _encode(self, table: _Table, rows: Rows, now_ms: int, out: list[dict[str, Any]]) -> None:
        try:
            for record in table.plan.records(rows, now_ms):
                out.append({"key": record.key, "value": record.value})  # noqa: PERF401 - hot
        except (ValueError, IndexError) as error:
            raise Stop(
                f"a row of {rows.schema.table} in transaction {rows.origin.txid} at "
                f"{rows.origin.commit} cannot be encoded: {error}",
                hint="Nothing was skipped. Exclude the column under `columns:`, or report it.",
            ) from error

    def _produce(self, topic: str, messages: list[dict[str, Any]], partition: int = -1) -> None:
        if not messages or self._producer is None:
            return
        try:
            queued = self._producer.produce_batch(topic, messages, partition=partition)
        except BufferError as error:
            raise KafkaUnavailable(f"the producer's queue is full for {topic}") from error
        except KafkaException as error:
            raise kafka_error(error, f"writing to {topic}") from error
        if queued == len(messages):
            return
        self._call(self._producer.flush, f"writing to {topic}")  # a fatal error says why here
        for message in messages:
            if "_error" in message:
                size = len(message["value"] or b"")
                raise kafka_error(message["_error"], f"writing a record of {size} bytes to {topic}")

    def _table(self, rows: Rows) -> _Table:
        found = self._tables.get((rows.schema, rows.form))
        if found is None:
            found = self._tables[rows.schema, rows.form] = self._new_table(rows.schema)
        return found

    def _new_table(self, schema: TableSchema) -> _Table:
        """Make topic and subjects for a table version, before its first record (R13)."""
        options = self._options
        published, masks = project(schema, self._columns)
        topic = topic_name(self._context.name, schema.table, options.topic)
        partitions = self._ensure_topic(topic, str(schema.table), has_key=bool(schema.key))
        key_id = None
        if published.key:
            key_id = self._registry.register(f"{topic}-key", key_schema(published, topic))
        value_id = self._registry.register(f"{topic}-value", envelope_schema(published, topic))
        plan = Plan(schema, published, self._source, (key_id, value_id), masks)
        return _Table(plan, topic, partitions)

    def _ensure_topic(self, topic: str, table: str, *, has_key: bool) -> int:
        wanted = 1
        if has_key:
            globs = self._options.partitions.items()
            wanted = next((count for glob, count in globs if fnmatchcase(table, glob)), 1)
        ensure_topics(self._kafka, {topic: TopicSettings(wanted, self._options.topic_config)})
        identity, partitions = self._wait_for_topic(topic)
        key = f"topic/{topic}"
        known = self._stored.progress.get(key)
        if known is None:
            value = {"version": 1, "id": identity, "partitions": partitions}
            self._stored.progress[key] = value
            self._new_progress.append(Progress(key, value))
        elif (known["id"], known["partitions"]) != (identity, partitions):
            raise TopicChanged(
                f"topic {topic} was {known['id']} with {known['partitions']} partitions and is "
                f"{identity} with {partitions}",
                hint="Keys would move or history is gone. Take a new snapshot: "
                f"`cdc position reset {self._context.name}` after the sinks were rewound.",
            )
        return partitions

    def _wait_for_topic(self, topic: str) -> tuple[str, int]:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            found = topic_ids(self._kafka, [topic])
            if topic in found:
                return found[topic]
            time.sleep(0.05)
        raise KafkaUnavailable(f"topic {topic} does not appear after its creation")

    def _call(self, method: Callable[[float], Any], doing: str) -> None:
        try:
            method(DEADLINE_S)
        except KafkaException as error:
            raise kafka_error(error, doing) from error

    def _call_now(self, method: Callable[[], Any], doing: str) -> None:
        try:
            method()
        except KafkaException as error:
            raise kafka_error(error, doing) from error


def _abort(producer: Producer) -> None:
    """Abort if the broker answers soon; if not, its own time-out or our successor does it."""
    try:
        producer.abort_transaction(2.0)
    except KafkaException as error:
        _log.info("abort left to the broker", reason=str(error))


def _discard(producer: Producer) -> None:
    """Forget what is queued, so that the client ends at once; a fenced one only says so again."""
    producer.purge()
    try:
        producer.flush(0)
    except KafkaException as error:
        _log.debug("discarded", reason=str(error))
