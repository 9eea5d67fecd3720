"""Records as Debezium writes them, and a reader of one topic in surroundings of a test's own."""

from __future__ import annotations

import json
from typing import Any

from schemas.table import TableSchema
from sinks.binding import MappedTable
from sinks.debezium import DebeziumTopic
from sinks.decode import Event
from sinks.mapping import TableMap

TOPIC = "shop.public.orders"
SOURCE = {"schema": "public", "table": "orders", "ts_ms": 1_700_000_000_000}


class Record:
    """As much of a Kafka message as is looked at."""

    def __init__(self, key: bytes | None, value: bytes | None, *headers: str) -> None:
        self._key, self._value, self._headers = key, value, [(name, b"") for name in headers]

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers


class Sink:
    """The surroundings of a reader."""

    def __init__(self, *, partitions: int = 1, begun: bool = False) -> None:
        self._partitions, self._begun = partitions, begun
        self.bound: list[TableSchema] = []

    def bind(self, source: TableSchema, topic: str, table: TableMap) -> MappedTable:
        mapped = MappedTable.bind(source, topic, table)
        self.bound.append(mapped.schema)
        return mapped

    def partitions(self, _topic: str) -> int:
        return self._partitions

    def has_begun(self, _topic: str) -> bool:
        return self._begun


def registry(*schemas: dict[str, Any]) -> Any:
    return lambda schema_id: schemas[schema_id - 1]


def reader(sink: Sink | None = None, topic: str = TOPIC, **mapping: Any) -> DebeziumTopic:
    table = TableMap.model_validate(mapping)
    return DebeziumTopic(topic, table, registry(), sink or Sink())


def apply(topic: DebeziumTopic, key: Any, value: Any, *headers: str) -> Event:
    """What one record does; key and value as they are before they are JSON."""
    raw = [None if part is None else json.dumps(part).encode() for part in (key, value)]
    record: Any = Record(raw[0], raw[1], *headers)
    return topic.bury(record) if raw[1] is None else topic.read(record, raw[1])


def field(column: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"field": column, "type": kind, "optional": True, **more}


ROW = [field("id", "int32"), field("note", "string")]


def struct(*fields: dict[str, Any], name: str = "shop.public.orders.Value") -> dict[str, Any]:
    return {"type": "struct", "name": name, "optional": True, "fields": list(fields)}


def with_schema(schema: dict[str, Any], payload: Any) -> dict[str, Any]:
    return {"schema": schema, "payload": payload}


def envelope(op: str, before: Any, after: Any, row: Any = ROW) -> dict[str, Any]:
    """As JsonConverter with schemas writes a change."""
    source = struct(field("schema", "string"), field("table", "string"), field("ts_ms", "int64"))
    fields = (
        {**struct(*row), "field": "before"},
        {**struct(*row), "field": "after"},
        {**source, "field": "source"},
        field("op", "string"),
    )
    payload = {"before": before, "after": after, "source": SOURCE, "op": op}
    return with_schema(struct(*fields, name="shop.public.orders.Envelope"), payload)


def key_of(number: int) -> dict[str, Any]:
    return with_schema(struct(ROW[0], name="shop.public.orders.Key"), {"id": number})


def bare(op: str, before: Any, after: Any) -> dict[str, Any]:
    return {"before": before, "after": after, "source": SOURCE, "op": op}
