"""The other forms a topic of Debezium can have: unwrapped rows, no schema, Avro."""

from __future__ import annotations

import io
from typing import Any

from fastavro import parse_schema, schemaless_writer

from debezium_records import (
    ROW,
    TOPIC,
    Record,
    Sink,
    apply,
    bare,
    field,
    key_of,
    reader,
    registry,
    struct,
    with_schema,
)
from schemas.wire import frame
from sinks.debezium import DebeziumTopic
from sinks.decode import DELETE, POISON, SKIP, UPSERT
from sinks.mapping import TableMap

# Unwrapped


def test_unwrapped_rows_are_upserts_and_a_tombstone_is_a_delete() -> None:
    topic = reader()
    event = apply(topic, key_of(1), with_schema(struct(*ROW), {"id": 1, "note": "x"}))
    assert (event.kind, event.row) == (UPSERT, [b"1", b"x"])
    event = apply(topic, key_of(1), None)
    assert (event.kind, event.key) == (DELETE, (b"1",))


def test_a_rewritten_delete_is_one_and_the_tombstone_behind_it_does_nothing() -> None:
    fields = (*ROW, field("__deleted", "string"), field("__op", "string"))
    topic = reader()
    row = {"id": 1, "note": "x", "__deleted": "false", "__op": "c"}
    assert apply(topic, key_of(1), with_schema(struct(*fields), row)).row == [b"1", b"x"]
    gone = {"id": 1, "note": None, "__deleted": "true", "__op": "d"}
    event = apply(topic, key_of(1), with_schema(struct(*fields), gone))
    assert (event.kind, event.key) == (DELETE, (b"1",))
    assert apply(topic, key_of(1), None).kind == SKIP


def test_a_tombstone_before_any_row_deletes_by_the_key_alone_after_a_restart() -> None:
    mapping = {"fields": {"number": "id", "text": "note", "tenant": {"value": 1}}}
    sink = Sink(begun=True)
    event = apply(reader(sink, **mapping), key_of(1), None)
    assert (event.kind, event.key) == (DELETE, (b"1",))
    assert [column.name for column in sink.bound[0].columns] == ["number", "tenant"]
    assert apply(reader(Sink()), key_of(1), None).kind == SKIP


def test_an_unwrapped_row_without_a_key_must_say_that_it_is_new() -> None:
    topic = reader()
    assert apply(topic, None, with_schema(struct(*ROW), {"id": 1, "note": ""})).kind == POISON
    new = with_schema(struct(*ROW, field("__op", "string")), {"id": 1, "note": "", "__op": "c"})
    assert apply(topic, None, new).kind == UPSERT
    assert apply(reader(), None, None).kind == POISON


# Without a schema


def test_json_without_a_schema_takes_its_types_from_the_mapping() -> None:
    topic = reader(columns={"id": "int", "note": "text", "day": "date"})
    row = {"id": 1, "note": "x", "day": 0}
    event = apply(topic, {"id": 1}, bare("c", None, row))
    assert (event.key, event.row) == ((b"1",), [b"1", b"x", b"1970-01-01"])
    assert apply(topic, {"id": 1}, bare("d", None, None)).key == (b"1",)
    event = apply(topic, {"id": 1}, bare("c", None, {**row, "extra": 1}))
    assert "extra" in str(event.error)


def test_json_without_a_schema_and_without_types_is_refused() -> None:
    event = apply(reader(), {"id": 1}, bare("c", None, {"id": 1}))
    assert event.kind == POISON
    assert event.error is not None
    assert "columns:" in event.error.hint


# Avro


KEY = {
    "type": "record",
    "name": "Key",
    "connect.name": f"{TOPIC}.Key",
    "fields": [{"name": "id", "type": "int"}],
}
MOMENT = {"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"}
PRICE = {
    "type": "bytes",
    "connect.name": "org.apache.kafka.connect.data.Decimal",
    "connect.parameters": {"scale": "2", "connect.decimal.precision": "6"},
}
AVRO_ROW = {
    "type": "record",
    "name": "Value",
    "fields": [
        {"name": "id", "type": "int"},
        {"name": "at", "type": ["null", MOMENT]},
        {"name": "price", "type": ["null", PRICE]},
    ],
}
AVRO_SOURCE = {"type": "record", "name": "S", "fields": [{"name": "ts_ms", "type": "long"}]}
AVRO_ENVELOPE = {
    "type": "record",
    "name": "Envelope",
    "namespace": TOPIC,
    "connect.name": f"{TOPIC}.Envelope",
    "fields": [
        {"name": "before", "type": ["null", AVRO_ROW]},
        {"name": "after", "type": ["null", "Value"]},
        {"name": "source", "type": AVRO_SOURCE},
        {"name": "op", "type": "string"},
    ],
}


def test_avro_with_the_properties_of_a_connect_converter_is_read_alike() -> None:
    after = {"id": 1, "at": 0, "price": b"\x04\xd2"}
    change = {"before": None, "after": after, "source": {"ts_ms": 5}, "op": "c"}
    key, value = frame(1) + avro(KEY, {"id": 1}), frame(2) + avro(AVRO_ENVELOPE, change)
    record: Any = Record(key, value)
    topic = DebeziumTopic(TOPIC, TableMap(), registry(KEY, AVRO_ENVELOPE), Sink())
    event = topic.read(record, value)
    assert event.row == [b"1", b"1970-01-01 00:00:00", b"12.34"]
    assert event.schema is not None
    assert event.schema.columns[2].type.native == "postgres numeric(6,2)"


def avro(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(schema), value)
    return out.getvalue()


def test_ids_of_8_bytes_are_refused_with_the_setting_that_helps() -> None:
    record: Any = Record(None, bytes(9))
    event = reader().read(record, record.value())
    assert event.error is not None
    assert "as-confluent" in event.error.hint
