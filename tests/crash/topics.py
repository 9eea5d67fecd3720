"""An independent reader of the topics: its own consumer, its own Avro, PostgreSQL's text.

Nothing of the workers' code is used: a mistake in their decoding must not hide itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import fastavro
import httpx
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from crash.evidence import Dead, Place, Record, Row, Stored

LONG_TEXT = 300
DEADLINE_S = 60.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
POSITIONS_PARTITIONS = 16


def consumer(bootstrap: str, **settings: Any) -> Consumer:
    """Return a read_committed consumer that belongs to no group of the pipeline."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"checker-{secrets.token_hex(4)}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 0,
            **settings,
        }
    )


def committed(bootstrap: str, topic: str, only: list[int] | None = None) -> Iterator[Message]:
    """Yield every committed record of a topic, waiting for open transactions to end."""
    return committed_of(bootstrap, [topic], only)


def committed_of(
    bootstrap: str, topics: Sequence[str], only: list[int] | None = None
) -> Iterator[Message]:
    """Yield every committed record of all topics, each partition in its order."""
    raw = consumer(bootstrap, **{"isolation.level": "read_uncommitted"})
    known = raw.list_topics(timeout=30).topics
    places = [
        TopicPartition(topic, number, OFFSET_BEGINNING)
        for topic in topics
        if topic in known
        for number in sorted(known[topic].partitions if only is None else only)
    ]
    ends = {(p.topic, p.partition): raw.get_watermark_offsets(p, timeout=30)[1] for p in places}
    raw.close()
    reader = consumer(bootstrap)
    try:
        reader.assign(places)
        yield from _upto(reader, {place: end for place, end in ends.items() if end})
    finally:
        reader.close()


def _upto(reader: Consumer, ends: dict[tuple[str, int], int]) -> Iterator[Message]:
    """Yield what there is until each partition is read to its end."""
    deadline = time.monotonic() + DEADLINE_S
    while ends:
        for message in reader.consume(10_000, 0.1):
            place = (message.topic() or "", message.partition() or 0)
            failed, offset = message.error(), message.offset() or 0
            if failed is None:
                deadline = time.monotonic() + DEADLINE_S
                yield message
            elif failed.code() == KafkaError._PARTITION_EOF and offset >= ends.get(place, 0):
                ends.pop(place, None)
        if time.monotonic() > deadline:
            raise TimeoutError(f"cannot be read to the end: {ends}")


class TopicReader:
    """Turns messages into records, through the registry's plain HTTP, with fastavro alone."""

    def __init__(self, bootstrap: str, registry: str) -> None:
        self._bootstrap = bootstrap
        self._registry = registry
        self._schemas: dict[int, _Schema] = {}

    def records(self, topic: str, table: str) -> Iterator[Record]:
        return self.records_of({topic: table})

    def records_of(self, topics: Mapping[str, str]) -> Iterator[Record]:
        """Yield the records of several topics; `topics` is topic → table."""
        for message in committed_of(self._bootstrap, list(topics)):
            yield self._record(message, topics[message.topic() or ""])

    def dead(self, topic: str, sink: str) -> Iterator[Dead]:
        for message in committed(self._bootstrap, topic):
            headers = {str(k): bytes(v or b"").decode() for k, v in message.headers() or ()}
            if headers["cdc.sink"] != sink:
                continue
            value = message.value()
            envelope = self._schema(value).read(value) if value is not None else {}
            row = envelope.get("after") or envelope.get("before") or {}
            table = headers["cdc.table"].rpartition(".")[2]
            yield Dead(table, str(row.get("id")), str(row.get("value")))

    def _record(self, message: Message, table: str) -> Record:
        where = (table, message.partition() or 0, message.offset() or 0)
        raw_key, value = message.key() or b"", message.value()
        if value is None:
            return Record(*where, "", bytes(raw_key), "", None, 0, None, None, ())
        schema = self._schema(value)
        envelope = schema.read(value)
        op, source = envelope["op"], envelope["source"]
        row = envelope["before"] if op == "d" else envelope["after"]
        absent = tuple(envelope["absent_after"] or ()) if op != "d" else ()
        place: Place = (source["incarnation"], source["commit"], source["ordinal"], source["sub"])
        key = "" if op == "t" else str(row["id"])
        version = row.get("version") if row else None
        texts = schema.texts(row) if row and op != "d" else None
        transaction = source["txId"] or ""  # MariaDB's is no number
        xid = int(transaction) if transaction.isdigit() else 0
        facts = (key, version, xid, place, texts, absent)
        return Record(*where, op, bytes(raw_key), *facts)

    def _schema(self, payload: bytes) -> _Schema:
        number = int.from_bytes(payload[1:5], "big")
        if number not in self._schemas:
            answer = httpx.get(f"{self._registry}/schemas/ids/{number}", timeout=20)
            written = answer.raise_for_status().json()["schema"]
            self._schemas[number] = _Schema(json.loads(written))
        return self._schemas[number]


class _Schema:
    """One value schema: how it is read, and how each column becomes PostgreSQL's text."""

    def __init__(self, written: dict[str, Any]) -> None:
        self._parsed = fastavro.parse_schema(_raw(written))
        [row] = [b for f in written["fields"][:1] for b in f["type"] if isinstance(b, dict)]
        self._columns = [(f["name"], *_kind(f["type"])) for f in row["fields"]]

    def read(self, payload: bytes) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(payload[5:]), self._parsed, None)

    def texts(self, row: dict[str, Any]) -> Row:
        return {name: _text(row[name], kind, scale) for name, kind, scale in self._columns}


def _raw(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: _raw(v) for k, v in schema.items() if k != "logicalType"}
    return [_raw(part) for part in schema] if isinstance(schema, list) else schema


def _kind(declared: Any) -> tuple[str, int]:
    bare = next(b for b in declared if b != "null") if isinstance(declared, list) else declared
    return bare.get("logicalType", bare["type"]), bare.get("scale", 0)


def _text(value: Any, kind: str, scale: int) -> str | None:
    """Return PostgreSQL's text of a value, with its default settings and TimeZone UTC."""
    if value is None or (kind == "string" and len(value) <= LONG_TEXT):
        return value
    if kind == "string":
        return f"md5:{hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()}"
    if kind == "decimal":
        return str(Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale))
    if kind == "timestamp-micros":
        moment = EPOCH + timedelta(microseconds=value)
        fraction = f"{moment:.%f}".rstrip("0").rstrip(".")
        return f"{moment:%Y-%m-%d %H:%M:%S}{fraction}+00"
    return str(value)


def positions_partition(source: str) -> int:
    return zlib.crc32(source.encode()) % POSITIONS_PARTITIONS


def stored_position(message: Message, source: str) -> Stored | None:
    """Return the position a record of the positions topic stores for a source."""
    value = message.value()
    if message.key() != source.encode() or value is None:
        return None
    position = json.loads(value)["position"]
    if position.get("creating"):
        return None
    names = ("incarnation", "commit", "ordinal", "confirmed_lsn")  # the last: PostgreSQL's
    return Stored(*(position.get(name, 0) for name in names))
