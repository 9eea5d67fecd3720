"""One event of one table, as read from our topic and from Debezium's."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition
from fastavro import parse_schema

from cdc.brokers import high_watermark, topic_ids
from cdc.kafka import KafkaConfig, consumer_client
from envelopes import cells_of, envelope_reader, read
from schemas.avro import key_schema, raw_schema
from schemas.change import ABSENT
from schemas.table import TableSchema

IDLE_S = 120.0
UNAVAILABLE = "__debezium_unavailable_value"

Row = dict[str, Any]


class Event(NamedTuple):
    """`op` is c, u, d, t or "tombstone". Rows are by column; ours has no absent column in it."""

    op: str
    key: Row | None
    before: Row | None
    after: Row | None
    txid: int


def messages(kafka: KafkaConfig, topic: str) -> Iterator[Message]:
    """Yield what is committed in a topic of one partition, to its present end."""
    if not topic_ids(kafka, [topic]):
        return
    end, reached = high_watermark(kafka, topic, 0), 0
    consumer = consumer_client(kafka, group_id=secrets.token_hex(4))
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    quiet = time.monotonic() + IDLE_S
    while reached < end:
        assert time.monotonic() < quiet, f"{topic} ends at {reached} of {end}"
        for message in consumer.consume(10_000, 0.2):
            quiet = time.monotonic() + IDLE_S
            if message.error() is None:
                yield message
            reached = max(reached, (message.offset() or 0) + (message.error() is None))
    consumer.close()


def our_events(found: Iterator[Message], schema: TableSchema) -> Iterator[Event]:
    """Read envelopes with fastavro, cells as a sink does."""
    reader = envelope_reader(schema)
    key_reader: Any = None
    if schema.key:
        key_reader = parse_schema(raw_schema(key_schema(schema, "differential")))
    last = 0
    for message in found:
        key, value = message.key(), message.value()
        known = None if key is None else _texts(read(key_reader, key))
        if value is None:
            yield Event("tombstone", known, None, None, last)
            continue
        envelope = read(reader, value)
        rows = [_row(schema, envelope, side) for side in ("before", "after")]
        last = int(envelope["source"]["txId"])
        yield Event(envelope["op"], known, rows[0], rows[1], last)


def _texts(row: Row) -> Row:
    return {name: str(value) for name, value in row.items()}


def _row(schema: TableSchema, envelope: dict[str, Any], side: str) -> Row | None:
    cells = cells_of(schema, envelope, side)
    if cells is None:
        return None
    pairs = zip((column.name for column in schema.columns), cells, strict=True)
    return {
        name: None if cell is None else bytes(cell).decode()
        for name, cell in pairs
        if cell is not ABSENT
    }


def their_events(found: Iterator[Message]) -> Iterator[Event]:
    """Read Debezium's JSON."""
    last = 0
    for message in found:
        known = json.loads(message.key() or b"null")
        key = None if known is None else _texts(known)
        value = message.value()
        if value is None:
            yield Event("tombstone", key, None, None, last)
            continue
        envelope = json.loads(value)
        last = int(envelope["source"]["txId"])
        yield Event(envelope["op"], key, envelope["before"], envelope["after"], last)
