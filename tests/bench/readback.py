"""Both sides' topics, read back: as many records, and the same rows in them.

Each side is read with its own framing and its own schema from the registry, and a row is brought to
one form: what was sent, not how it is spelled. The peer spells a time zone's timestamp as text and
names the schema in a header, we send microseconds and frame them with the schema's id.
"""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import httpx
import orjson
from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition
from fastavro import parse_schema, schemaless_reader

from cdc.kafka import KafkaConfig, consumer_client

SAMPLE = 1000
CCOMPAT = "/apis/ccompat/v7"


class Read(NamedTuple):
    """What a topic holds: how many records, and some rows by id."""

    count: int
    rows: dict[int, tuple[Any, ...]]


class Framing(NamedTuple):
    """Bytes of the frame, the header that holds the id where there is no frame, and its schema."""

    bytes: int
    header: str
    path: str


OURS = Framing(5, "", f"{CCOMPAT}/schemas/ids/{{}}")
PEERS = Framing(0, "apicurio.value.globalId", "/apis/registry/v2/ids/globalIds/{}")


class Topic:
    """A topic's records by the order's id; only those of a sample are decoded."""

    def __init__(self, kafka: KafkaConfig, name: str, framing: Framing) -> None:
        self._kafka = kafka
        self._name = name
        self._framing = framing
        self._schemas: dict[int, Any] = {}

    def read(self, ids: range, wanted: set[int]) -> Read:
        """Return how many records there are of orders in `ids`, and the rows of those wanted."""
        count = 0
        found: dict[int, tuple[Any, ...]] = {}
        for message in self._messages():
            key, value = message.key(), message.value()
            if key is None or value is None:
                continue
            identity = _long(key[self._framing.bytes :])
            count += identity in ids
            if identity in wanted:
                found[identity] = row_of(self._decoded(message)["after"])
        return Read(count, found)

    def _messages(self) -> list[Message]:
        consumer = consumer_client(self._kafka)
        consumer.assign([TopicPartition(self._name, 0, OFFSET_BEGINNING)])
        out: list[Message] = []
        try:
            while True:
                for message in consumer.consume(10_000, 0.5):
                    if message.error() is not None:  # the end
                        return out
                    out.append(message)
        finally:
            consumer.close()

    def _decoded(self, message: Message) -> dict[str, Any]:
        size, header = self._framing.bytes, self._framing.header
        framed = message.value() or b""
        named = dict(message.headers() or []).get(header, b"") if header else framed[1:size]
        identity = int.from_bytes(named, "big")
        if identity not in self._schemas:
            base = str(self._kafka.registry.url).removesuffix(CCOMPAT)
            url = base + self._framing.path.format(identity)
            answer = httpx.get(url, timeout=30, trust_env=False).raise_for_status().json()
            schema = orjson.loads(answer["schema"]) if "schema" in answer else answer
            self._schemas[identity] = parse_schema(schema)
        found: Any = schemaless_reader(io.BytesIO(framed[size:]), self._schemas[identity], None)
        return dict(found)


def _long(data: bytes) -> int:
    """The first Avro long: zigzag, seven bits a byte, the lowest first."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return (value >> 1) ^ -(value & 1)


def row_of(after: Mapping[str, Any]) -> tuple[Any, ...]:
    """One form for both sides."""
    return tuple(_plain(value) for value in after.values())


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1_000_000)
    if isinstance(value, str) and value.startswith("{"):
        return orjson.loads(value)
    if isinstance(value, str) and value.endswith("Z") and value[:2] == "20":
        return _plain(datetime.fromisoformat(value))
    return float(value) if isinstance(value, Decimal) else value


def same(kafka: KafkaConfig, ours: str, peers: str, ids: range) -> str:
    """Compare two topics over a range of ids: "" when they are the same, else what differs."""
    sample = set(random.Random(1).sample(ids, min(SAMPLE, len(ids))))  # noqa: S311 - a sample
    left, right = (
        Topic(kafka, name, framing).read(ids, sample)
        for name, framing in ((ours, OURS), (peers, PEERS))
    )
    return difference(left, right, sample)


def difference(ours: Read, peers: Read, sample: set[int]) -> str:
    """Compare what two topics hold; a row that neither has is a difference too."""
    if ours.count != peers.count:
        return f"{ours.count:,} records of ours, {peers.count:,} of the peer"
    for identity in sorted(sample):
        left, right = ours.rows.get(identity), peers.rows.get(identity)
        if left is None or left != right:
            return f"order {identity}: ours {left}, the peer's {right}"
    return ""
