"""Who wrote a record is told by the record: ours, Debezium's, or nobody's we know."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from schemas.avro import envelope_schema, key_schema, message_schema
from schemas.change import Change, Op, Origin, Rows
from schemas.plan import Plan, SourceName
from schemas.table import Column, TableId, TableSchema, Type
from schemas.wire import frame
from sinks.decode import DELETE, POISON, UPSERT, Event
from sinks.mapping import Selection, Tables
from sinks.routes import Routes

TOPIC = "shop.public.orders"
ORDERS = TableSchema(TableId("public", "orders"), (Column("id", Type("int64")),), ("id",))
THEIR_KEY = {
    "type": "record",
    "name": "Key",
    "connect.name": f"{TOPIC}.Key",
    "fields": [{"name": "id", "type": "long"}],
}
SCHEMAS: dict[int, Any] = {
    1: key_schema(ORDERS, TOPIC),
    2: envelope_schema(ORDERS, TOPIC),
    3: THEIR_KEY,
    4: {**THEIR_KEY, "name": "Value", "connect.name": f"{TOPIC}.Value"},
}
GONE = Column("note", Type("string"))
WIDER = TableSchema(ORDERS.table, (*ORDERS.columns, GONE), ("id",))
VERSIONS = (5, 4, 6, 2, 7)
"""Of the topic's schema: ours, and what others wrote there."""
SCHEMAS |= {
    5: envelope_schema(WIDER, TOPIC),
    6: message_schema(TOPIC),
    7: envelope_schema(TableSchema(ORDERS.table, (GONE,), ("note",)), TOPIC),
}
ROW = {"before": None, "after": {"id": 1}, "source": {}, "op": "c"}


class Registry:
    def get(self, schema_id: int) -> dict[str, Any]:
        return dict(SCHEMAS[schema_id])

    def history(self, _topic: str, schema_id: int) -> list[tuple[int, dict[str, Any]]]:
        return [(n, SCHEMAS[n]) for n in VERSIONS] if schema_id == 2 else []


class Alone:
    """One worker, one partition."""

    def partitions(self, _topic: str) -> int:
        return 1

    def writers(self, _topic: str) -> int:
        return 1


class Record:
    """As much of a Kafka message as is looked at."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key

    def topic(self) -> str:
        return TOPIC

    def key(self) -> bytes | None:
        return self._key

    def headers(self) -> None:
        return None


def routes(format_: str = "auto") -> Routes:
    mapping = {TOPIC: {"format": format_, "columns": {"id": "bigint"}}}
    made = Routes(
        Selection(TypeAdapter(Tables).validate_python(mapping)), Registry(), Alone(), lines=True
    )
    made.begun = {TOPIC}
    return made


def ours(op: Op) -> tuple[bytes, bytes]:
    """Key and value as one of our sources writes them."""
    plan = Plan(ORDERS, ORDERS, SourceName("1", "test", "shop"), (1, 2))
    row = (b"1",)
    change = Change(op, None, row) if op is Op.CREATE else Change(op, row, None)
    found = next(plan.records(Rows(ORDERS, "changes", Origin(3, 7, 1), [change], [5]), 0))
    assert found.key is not None
    assert found.value is not None
    return found.key, found.value


def read(made: Routes, key: bytes | None, value: bytes) -> Event:
    record: Any = Record(key)
    return made.read(record, value)


def bury(made: Routes, key: bytes | None) -> Event | None:
    record: Any = Record(key)
    return made.bury(record)


def test_our_records_keep_their_stamp_and_their_tombstones_do_nothing() -> None:
    made = routes()
    key, value = ours(Op.DELETE)
    event = read(made, key, value)
    assert (event.kind, event.stamp is None) == (DELETE, False)
    assert bury(made, key) is None
    assert bury(routes(), key) is None


def test_what_a_connect_converter_wrote_goes_by_offset_alone() -> None:
    made = routes()
    event = read(made, frame(3) + b"\x02", frame(4) + b"\x04")
    assert (event.kind, event.row, event.stamp) == (UPSERT, [b"2"], None)
    event = read(made, b'{"id": 1}', json.dumps(ROW).encode())
    assert (event.kind, event.row, event.stamp) == (UPSERT, [b"1"], None)


@pytest.mark.parametrize("key", [frame(3) + b"\x02", b'{"id": 1}'])
def test_a_tombstone_of_a_foreign_key_is_a_delete_before_any_value_was_seen(key: bytes) -> None:
    event = bury(routes(), key)
    assert event is not None
    assert (event.kind, event.key) == (DELETE, (b"1",))


def test_both_may_have_written_one_topic_one_after_the_other() -> None:
    made = routes()
    assert read(made, b'{"id": 1}', json.dumps(ROW).encode()).stamp is None
    key, value = ours(Op.CREATE)
    assert read(made, key, value).stamp is not None
    assert bury(made, key) is None


def test_a_format_that_is_named_is_not_guessed() -> None:
    event = read(routes("tailrace"), b'{"id": 1}', json.dumps(ROW).encode())
    assert event.kind == POISON
    key, value = ours(Op.CREATE)
    assert read(routes("debezium"), key, value).kind == POISON


def test_a_tombstone_whose_key_nobody_can_read_is_no_silent_loss() -> None:
    for key in (b"1", b"a text", b"\x00", None):
        event = bury(routes(), key)
        assert event is not None
        assert event.kind == POISON


def test_a_table_knows_what_earlier_versions_of_the_topic_had_and_the_newest_has_no_more() -> None:
    made = routes()
    key, value = ours(Op.CREATE)
    read(made, key, value)
    [(schema, _)] = made.tables
    assert (schema.former, schema.passing) == ((GONE,), ("id",))
