"""Tables to look values up in that are topics: read to the end at the start, then followed.

    record key ─▶ (text looked up, text found)       an update replaces what its record gave before,
                                                      a tombstone or a delete takes it away

What a row finds is as of the time it is read, and never older than what Kafka held then: the topic
is read to its present end once for all records that were fetched together. So a row that refers to
another of an earlier transaction, or of its own, finds it as that left it, or newer. What was
applied is not looked up again when the table changes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

import orjson
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from cdc.brokers import high_watermark, topic_ids
from cdc.errors import DataError, KafkaUnavailable, Stop
from cdc.kafka import DEADLINE_S, KafkaConfig, arrived, consumer_client, kafka_error
from schemas.plain import PlainReader
from schemas.wire import FRAME_BYTES, schema_id
from sinks.lookup import Lookup
from sinks.mapping import Tables, entries
from sinks.values import text_of

__all__ = ["Lookups", "TopicTable", "topic_lookups"]

_BATCH = 10_000
_ENTRY_BYTES = 400
"""What an entry takes beside its texts: two places in dictionaries, a pair, three objects."""

_UNSENT = "__debezium_unavailable_value"


class Schemas(Protocol):
    """Where writer schemas come from: `schemas.registry.Registry`."""

    def get(self, schema_id: int) -> dict[str, Any]:
        """Return the schema of an id. Raises `errors.DataError` when there is none."""
        ...


class TopicTable:
    """The table of one topic as of the last record taken; knows nothing of Kafka.

    `bytes` is about what it takes. Raises `errors.Stop` where it would take more than the lookup's
    `max_bytes`, or for a record that is no entry of a table.
    """

    def __init__(self, lookup: Lookup, schemas: Schemas) -> None:
        self._lookup = lookup
        self._schemas = schemas
        self._readers: dict[int, PlainReader] = {}
        self._given: dict[bytes, tuple[bytes, bytes | None]] = {}
        self._owners: dict[bytes, bytes] = {}
        self.bytes = 0

    def find(self, text: bytes) -> tuple[bytes | None] | None:
        """Return what `text` gives, in a tuple of one; None when it is not there."""
        owner = self._owners.get(text)
        return None if owner is None else (self._given[owner][1],)

    def clear(self) -> None:
        """Forget everything."""
        self._given.clear()
        self._owners.clear()
        self.bytes = 0

    def take(self, message: Message) -> None:
        """Learn from one record."""
        try:
            self._take(message.key(), message.value())
        except (DataError, ValueError, KeyError) as error:
            wanted = f"there is no column {error}" if isinstance(error, KeyError) else str(error)
            place = f"{message.topic()}[{message.partition()}] at offset {message.offset()}"
            raise Stop(
                f"lookup {self._lookup.topic}: {place} is no entry of a table: {wanted}",
                hint="A record needs a key. Of rows, `key` and `value` name columns; where there "
                "is no `key`, the record's key is looked up.",
            ) from error

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        if key is None:
            raise DataError("it has no key")
        row = _row(None if value is None else self._plain(value))
        if row is _ALL_GONE:
            self.clear()
        elif row is None:
            self._forget(key)
        else:
            self._put(key, *self._entry(key, row))

    def _entry(self, key: bytes, row: Any) -> tuple[bytes, bytes | None]:
        """Return the text looked up and the text found."""
        lookup, known = self._lookup, self._given.get(key)
        if isinstance(row, dict) and not lookup.value:
            raise DataError("it is a row, and the lookup says no `value`")
        text = text_of(row[lookup.key] if lookup.key else _single(self._plain(key)))
        if text is None:
            raise DataError("its key is null")
        found = row.get(lookup.value, _UNSENT) if isinstance(row, dict) else row
        if found == _UNSENT:
            if known is None:
                raise KeyError(lookup.value)
            return text, known[1]
        return text, text_of(found)

    def _put(self, key: bytes, text: bytes, found: bytes | None) -> None:
        self._forget(key)
        self._given[key] = text, found
        self._owners[text] = key
        self.bytes += _ENTRY_BYTES + len(key) + len(text) + len(found or b"")
        if self.bytes > self._lookup.max_bytes:
            raise Stop(
                f"lookup {self._lookup.topic}: its table takes more than the "
                f"{self._lookup.max_bytes} bytes of `max_bytes`, with {len(self._given)} entries",
                hint="Raise `lookup.max_bytes`, or look up in a topic that holds less.",
            )

    def _forget(self, key: bytes) -> None:
        known = self._given.pop(key, None)
        if known is None:
            return
        text, found = known
        self.bytes -= _ENTRY_BYTES + len(key) + len(text) + len(found or b"")
        if self._owners.get(text) == key:
            del self._owners[text]

    def _plain(self, payload: bytes) -> Any:
        """Return a key or value as plain values: Avro by its schema, else JSON, else text."""
        if len(payload) < FRAME_BYTES or payload[0]:
            try:
                return orjson.loads(payload)
            except orjson.JSONDecodeError:
                return payload.decode()
        identity = schema_id(payload)
        if identity not in self._readers:
            self._readers[identity] = PlainReader(self._schemas.get(identity))
        return self._readers[identity].read(payload)


_ALL_GONE = object()


def _row(plain: Any) -> Any:
    """Return what a record says of its key: a row or a value, None for nothing more."""
    if isinstance(plain, dict) and {"schema", "payload"} == plain.keys():
        plain = plain["payload"]
    if not isinstance(plain, dict) or "op" not in plain or not {"before", "after"} & plain.keys():
        return plain
    return _ALL_GONE if plain["op"] == "t" else plain.get("after")


def _single(key: Any) -> Any:
    """Return the value of a key of one column."""
    if isinstance(key, dict) and {"schema", "payload"} == key.keys():
        key = key["payload"]
    if not isinstance(key, dict):
        return key
    if len(key) != 1:
        raise DataError("its key has several columns, and the lookup says no `key`")
    return next(iter(key.values()))


class _Followed:
    """A topic's table and the connection that follows it. Single-threaded."""

    def __init__(self, lookup: Lookup, kafka: KafkaConfig, schemas: Schemas) -> None:
        self._topic = lookup.topic
        self._kafka = kafka
        self._table = TopicTable(lookup, schemas)
        self._consumer: Consumer | None = None
        self._next: dict[int, int] = {}
        self.fresh = False

    def __call__(self, text: bytes) -> tuple[bytes | None] | None:
        """Return what `text` gives, in a tuple of one; None when it is not there."""
        if not self.fresh:
            self.catch_up()
        return self._table.find(text)

    def open(self) -> None:
        """Read the whole topic. Raises `errors.KafkaUnavailable` while there is none."""
        self.close()
        partitions = topic_ids(self._kafka, [self._topic]).get(self._topic, ("", 0))[1]
        if not partitions:
            raise KafkaUnavailable(
                f"lookup {self._topic}: there is no such topic",
                hint="The sink begins once it is there; or correct `lookup.topic`.",
            )
        self._next = dict.fromkeys(range(partitions), 0)
        self._consumer = consumer_client(self._kafka)
        places = [TopicPartition(self._topic, n, OFFSET_BEGINNING) for n in self._next]
        self._consumer.assign(places)
        self._read({n: high_watermark(self._kafka, self._topic, n) for n in self._next})

    def catch_up(self) -> None:
        """Read all that is committed now; what is committed behind an open transaction shows later.

        A source writes a topic in one transaction after the other, so nothing of it is behind one.
        """
        if self._consumer is None:
            self.open()
            return
        ends = {}
        for number in self._next:
            place = TopicPartition(self._topic, number)
            try:
                ends[number] = self._consumer.get_watermark_offsets(
                    place, DEADLINE_S, cached=False
                )[1]
            except KafkaException as error:
                raise kafka_error(error, f"reading the end of {self._topic}") from error
        self._read(ends)

    def _read(self, ends: dict[int, int]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while any(self._next[number] < end for number, end in ends.items()):
            if self._take(0.1):
                deadline = time.monotonic() + DEADLINE_S
            elif time.monotonic() > deadline:
                raise KafkaUnavailable(f"lookup {self._topic}: not read to its end, {ends}")
        self.fresh = True

    def follow(self) -> None:
        """Take what has come, without waiting."""
        if self._consumer is not None:
            self._take(0)
        self.fresh = False

    def _take(self, timeout: float) -> int:
        if self._consumer is None:
            return 0
        try:
            messages = arrived(self._consumer, _BATCH, timeout)
        except KafkaException as error:
            raise kafka_error(error, f"reading {self._topic}") from error
        for message in messages:
            number, offset, failed = (
                message.partition() or 0,
                message.offset() or 0,
                message.error(),
            )
            if failed is None:
                self._table.take(message)
                self._next[number] = offset + 1
            elif failed.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's own
                self._next[number] = max(self._next[number], offset)
            else:
                raise kafka_error(failed, f"reading {self._topic}")
        return len(messages)

    def close(self) -> None:
        """Let go of the connection and of the table."""
        consumer, self._consumer = self._consumer, None
        self._table.clear()
        self.fresh = False
        if consumer is not None:
            consumer.close()


class Lookups:
    """The topics that a sink's mapping looks up in; those of a mapping without any are none.

    From its making on the mapping's lookups find through it: each is read when it is first needed,
    or by `open`. For the one thread that reads records.
    """

    def __init__(self, tables: Tables, kafka: KafkaConfig, schemas: Schemas) -> None:
        self._followed: dict[Lookup, _Followed] = {}
        for lookup in topic_lookups(tables):
            found = self._followed.setdefault(lookup, _Followed(lookup, kafka, schemas))
            lookup.find_in(found)

    def open(self) -> None:
        """Read every topic to its end. Raises `errors.Unavailable` and `errors.Stop`."""
        for followed in self._followed.values():
            followed.open()

    def follow(self) -> None:
        """Take what has come, before further records of the data are fetched."""
        for followed in self._followed.values():
            followed.follow()

    def close(self) -> None:
        """Let go of every connection."""
        for followed in self._followed.values():
            followed.close()


def topic_lookups(tables: Tables) -> Iterator[Lookup]:
    """Yield each lookup of a mapping that is a topic."""
    for _, table in entries(tables):
        for field in table.fields.values():
            if field.lookup is not None and field.lookup.topic:
                yield field.lookup
