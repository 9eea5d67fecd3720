"""Cursors in Kafka, of targets that can keep none themselves: `<pipeline>.cursors`, compacted.

One record per (sink, topic, partition), written in a transaction under the transactional id
`<pipeline>.sink.<sink>`:

    own        init_transactions: a former owner is fenced, what it left open is ended;
               then every committed cursor is read, nothing remembered from before
    compare    the spans must start where the cursors are
    commit     the cursors' ends, and whatever else belongs to them, all or nothing

Why a comparison in memory is a compare-and-set: whoever wrote since has fenced us first, so our
transaction cannot commit. Then the cursors are read again, and they say who was faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaException, Producer

from cdc.brokers import COMPACTED, TopicSettings, ensure_topic
from cdc.compacted import CompactedTopic
from cdc.connector import Context
from cdc.errors import CdcError, ConfigError, DataError, Fenced, StateError, TargetUnavailable
from cdc.failpoints import failpoint
from cdc.kafka import DEADLINE_S, KafkaConfig, its_own_error, kafka_error, producer_client
from schemas.change import Stamp
from sinks.stored import VERSION, cursor_of, displaced
from sinks.target import Cursor, Span, TopicPartition

__all__ = ["CursorTopic", "kafka_of"]

_TRANSACTION_TIMEOUT_MS = 60_000
_ROUNDS = 5
_NO_STAMP = (None, None, None, None)
_Place = tuple[str, int]
_log = structlog.get_logger(__name__)


class _Value(msgspec.Struct, omit_defaults=True):
    version: int
    topic_id: str
    offset: int
    stamp: tuple[int, int, int, int] | None = None
    ts_ms: int = 0

    def row(self) -> Sequence[Any]:
        """Return the value as `sinks.stored.cursor_of` takes it."""
        return (self.topic_id, self.offset, *(self.stamp or _NO_STAMP), self.version)


def kafka_of(context: Context) -> KafkaConfig:
    """Return the pipeline's Kafka. Raises `errors.ConfigError` where a target was given none."""
    if context.kafka is None:
        raise ConfigError(f"sink {context.name} keeps its cursors in Kafka and was given none")
    return context.kafka


class CursorTopic:
    """The cursors of one sink. Does no I/O before `open`; single-threaded."""

    def __init__(self, kafka: KafkaConfig, context: Context) -> None:
        self.name = f"{context.pipeline}.cursors"
        self._kafka = kafka
        self._sink = context.name
        self._owner = f"{context.pipeline}.sink.{context.name}"
        self._reader = CompactedTopic(kafka, self.name)
        self._values: dict[_Place, _Value] = {}
        self._producer: Producer | None = None

    def open(self) -> None:
        """Make the topic where it is missing."""
        ensure_topic(self._kafka, self.name, TopicSettings(1, COMPACTED))

    def close(self) -> None:
        """Let go of the connections; safe to call twice."""
        self._release()
        self._reader.close()
        self._values.clear()

    def read(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Cursor | None]:
        """Return what is stored for `partitions`; raises as `sinks.stored.cursor_of`."""
        self._own()  # what others did before it is read; since then only we can write
        return {p: cursor_of(self._row(p), p, self._sink) for p in partitions}

    def compare(self, spans: Iterable[Span]) -> None:
        """See that the spans start where the cursors are. Raises `CursorMoved`."""
        self._own()
        away = sum(not self._is_at(span) for span in spans)
        if away:
            raise displaced(away)

    def advance(self, spans: Sequence[Span]) -> None:
        """Move every cursor from start to end. Raises `CursorMoved` when one is elsewhere."""
        self._insist(lambda: self.commit(spans))

    def commit(self, spans: Sequence[Span], fill: Callable[[Producer], None] | None = None) -> None:
        """Move the cursors in one transaction with what `fill` produces.

        Raises `CursorMoved`, and `errors.Fenced` when another owner came in between: nothing was
        written then.
        """
        self.compare(spans)
        producer, known = self._own(), len(spans)
        self._call(lambda _: producer.begin_transaction(), "beginning a transaction")
        try:
            if fill is not None:
                fill(producer)
            self.compare(spans[known:])  # those of a batch larger than memory are known now
            for span in spans:
                self._produce(producer, span.partition, span.end)
            failpoint("sink.before_commit")
            self._call(producer.commit_transaction, f"committing to {self.name}")
        except DataError:
            self._call(producer.abort_transaction, "aborting a transaction")
            raise
        except BaseException:
            self._release(abort=True)
            raise
        for span in spans:
            self._values[_place(span.partition)] = _value(span.partition, span.end)

    def overtaken(self, spans: Sequence[Span]) -> CdcError:
        """Return what `errors.Fenced` of `commit` means: cursors that moved, or a mere owner."""
        self._catch_up()
        away = sum(not self._is_at(span) for span in spans)
        if away:
            return displaced(away)
        return TargetUnavailable(f"sink {self._sink} was taken over, and nothing was written since")

    def place(self, cursors: Mapping[TopicPartition, Cursor | None]) -> None:
        """Put cursors where an operator wants them, whatever they were; None forgets one."""

        def fill(producer: Producer) -> None:
            for partition, cursor in cursors.items():
                self._produce(producer, partition, cursor)

        self._insist(lambda: self.commit((), fill))
        for partition, cursor in cursors.items():
            if cursor is None:
                self._values.pop(_place(partition), None)
            else:
                self._values[_place(partition)] = _value(partition, cursor)

    def forget(self) -> None:
        """Forget every cursor of this sink."""
        self._own()
        places = [TopicPartition(topic, "", number) for topic, number in self._values]
        self.place(dict.fromkeys(places))

    # Owning

    def _insist(self, write: Callable[[], None]) -> None:
        """Write, again when another owner came in between; what it wrote is read first."""
        for _ in range(_ROUNDS):
            try:
                write()
            except Fenced:
                self._catch_up()
            else:
                return
        raise TargetUnavailable(f"sink {self._sink} is taken over again and again")

    def _own(self) -> Producer:
        if self._producer is None:
            self._producer = producer_client(
                self._kafka,
                transactional_id=self._owner,
                transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
                delivery_report_only_error=True,
            )
            self._call(self._producer.init_transactions, f"acquiring {self._owner}")
            self._catch_up()
        return self._producer

    def _release(self, *, abort: bool = False) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            with its_own_error():
                if abort:
                    producer.abort_transaction(2.0)
                producer.purge()
                producer.flush(0)
        except KafkaException as error:
            # What is left open is ended by the next owner, or by its own time-out.
            _log.info("abort left to the broker", reason=str(error))

    def _call(self, method: Callable[[float], Any], doing: str) -> None:
        try:
            with its_own_error():
                method(DEADLINE_S)
        except KafkaException as error:
            raise kafka_error(error, doing) from error

    # Values

    def _catch_up(self) -> None:
        for entry in self._reader.catch_up():
            sink, _, rest = entry.key.partition("/")
            topic, _, number = rest.rpartition("/")
            if sink != self._sink:
                continue
            if entry.value is None:
                self._values.pop((topic, int(number)), None)
            else:
                self._values[topic, int(number)] = self._decoded(entry.value, entry.key)

    def _decoded(self, payload: bytes, key: str) -> _Value:
        try:
            return msgspec.json.decode(payload, type=_Value)
        except msgspec.MsgspecError as error:
            raise StateError(
                f"{self.name} key {key} is no cursor: {error}",
                hint=f"Put it where it belongs: `cdc sink rewind {self._sink} --to OFFSET`.",
            ) from error

    def _row(self, partition: TopicPartition) -> Sequence[Any] | None:
        value = self._values.get(_place(partition))
        return None if value is None else value.row()

    def _is_at(self, span: Span) -> bool:
        value = self._values.get(_place(span.partition))
        if value is None or span.start is None:
            return value is None and span.start is None
        return (value.topic_id, value.offset) == (span.partition.topic_id, span.start.offset)

    def _produce(
        self, producer: Producer, partition: TopicPartition, cursor: Cursor | None
    ) -> None:
        key = f"{self._sink}/{partition.topic}/{partition.partition}"
        value = None
        if cursor is not None:
            value = msgspec.json.encode(_value(partition, cursor))
        try:
            producer.produce(self.name, value, key, partition=0)
        except KafkaException as error:
            raise kafka_error(error, f"writing to {self.name}") from error


def _place(partition: TopicPartition) -> _Place:
    return partition.topic, partition.partition


def _value(partition: TopicPartition, cursor: Cursor) -> _Value:
    stamp: Stamp | None = cursor.stamp
    now_ms = time.time_ns() // 1_000_000
    return _Value(VERSION, partition.topic_id, cursor.offset, stamp, now_ms)
