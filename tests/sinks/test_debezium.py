"""What a record that Debezium wrote does to the target."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cdc.errors import ConfigError
from debezium_records import (
    ROW,
    TOPIC,
    Record,
    Sink,
    apply,
    envelope,
    field,
    key_of,
    reader,
    struct,
    with_schema,
)
from schemas.change import ABSENT
from schemas.table import TableId
from sinks.checkpoint import Lane
from sinks.collapse import collapse
from sinks.cut import EVERYTHING
from sinks.debezium_types import UNAVAILABLE
from sinks.decode import DELETE, POISON, SKIP, TRUNCATE, UPSERT
from sinks.target import Cursor, Span, TopicPartition


@pytest.mark.parametrize("op", ["c", "u", "r"])
def test_a_row_comes_with_its_columns_and_the_key_of_its_record(op: str) -> None:
    sink = Sink()
    event = apply(reader(sink), key_of(1), envelope(op, None, {"id": 1, "note": None}))
    assert (event.kind, event.key, event.row) == (UPSERT, (b"1",), [b"1", None])
    assert (event.stamp, event.snapshot, event.ts_ms) == (None, op == "r", 1_700_000_000_000)
    [schema] = sink.bound
    assert (schema.table, schema.key) == (TableId("public", "orders"), ("id",))
    assert [column.type.native for column in schema.columns] == [
        "postgres integer",
        "postgres text",
    ]


def test_a_schema_is_compiled_once_and_a_new_one_beside_it() -> None:
    sink = Sink()
    topic = reader(sink)
    for number in range(3):
        row = {"id": number, "note": '"payload":'}
        assert apply(topic, key_of(number), envelope("c", None, row)).key == (b"%d" % number,)
    wide = [*ROW, field("more", "boolean")]
    event = apply(topic, key_of(1), envelope("c", None, {"id": 1, "note": "", "more": True}, wide))
    assert event.row == [b"1", b"", b"t"]
    assert [len(schema.columns) for schema in sink.bound] == [2, 3]


def test_a_delete_is_known_by_the_record_key_and_its_tombstone_does_nothing() -> None:
    topic = reader()
    event = apply(topic, key_of(7), envelope("d", {"id": 0, "note": ""}, None))
    assert (event.kind, event.key) == (DELETE, (b"7",))
    assert apply(topic, key_of(7), None).kind == SKIP


def test_a_value_that_was_not_sent_is_absent() -> None:
    event = apply(reader(), key_of(1), envelope("u", None, {"id": 1, "note": UNAVAILABLE}))
    assert event.row == [b"1", ABSENT]


def test_a_key_change_takes_a_value_not_sent_from_the_row_under_the_old_key() -> None:
    topic = reader()
    gone = apply(topic, key_of(1), envelope("d", {"id": 1}, None), "__debezium.newkey")
    apply(topic, key_of(1), None)
    after = {"id": 2, "note": UNAVAILABLE}
    come = apply(topic, key_of(2), envelope("c", None, after), "__debezium.oldkey")
    [[mapped]] = collapse([gone, come])
    assert mapped.moves == [((b"1",), [b"2", ABSENT])]


def test_the_halves_of_a_key_change_share_a_place_whatever_the_create_holds() -> None:
    topic = reader()
    gone = apply(topic, key_of(1), envelope("d", {"id": 1}, None), "__debezium.newkey")
    after = {"id": 2, "note": "whole"}
    come = apply(topic, key_of(2), envelope("c", None, after), "__debezium.oldkey")
    assert gone.place == come.place != ()
    assert apply(topic, key_of(3), envelope("c", None, after)).place == ()


def test_in_several_partitions_the_halves_of_a_key_change_are_not_taken_for_a_pair() -> None:
    topic = reader(Sink(partitions=2))
    gone = apply(topic, key_of(1), envelope("d", {"id": 1}, None), "__debezium.newkey")
    after = {"id": 2, "note": UNAVAILABLE}
    come = apply(topic, key_of(2), envelope("c", None, after), "__debezium.oldkey")
    [[mapped]] = collapse([gone, come])
    assert mapped.moves == []


def test_a_truncate_empties_the_newest_version_of_the_table() -> None:
    topic = reader()
    row = apply(topic, key_of(1), envelope("c", None, {"id": 1, "note": ""}))
    event = apply(topic, None, envelope("t", None, None))
    assert (event.kind, event.schema) == (TRUNCATE, row.schema)


@pytest.mark.parametrize(("begun", "kind"), [(False, SKIP), (True, TRUNCATE)])
def test_a_truncate_before_any_row_matters_where_rows_were_applied_before(
    begun: bool,  # noqa: FBT001 - a parameter of the test
    kind: int,
) -> None:
    assert apply(reader(Sink(begun=begun)), None, envelope("t", None, None)).kind == kind


def test_a_truncate_in_one_of_several_partitions_is_refused() -> None:
    event = apply(reader(Sink(partitions=2)), None, envelope("t", None, None))
    assert event.kind == POISON
    assert "partition" in str(event.error)


def test_a_message_is_passed_over_and_an_unknown_operation_refused_by_name() -> None:
    topic = reader()
    assert apply(topic, None, envelope("m", None, None)).kind == SKIP
    event = apply(topic, key_of(1), envelope("x", None, {"id": 1}))
    assert event.kind == POISON
    assert "'x'" in str(event.error)


def test_a_table_without_a_key_is_matched_by_whole_rows() -> None:
    topic = reader()
    old, new = {"id": 1, "note": "long"}, {"id": 2, "note": UNAVAILABLE}
    event = apply(topic, None, envelope("u", old, new))
    assert (event.old, event.key) == ((b"1", b"long"), (b"2", b"long"))
    event = apply(topic, None, envelope("d", old, None))
    assert (event.kind, event.key) == (DELETE, (b"1", b"long"))
    assert apply(topic, None, None).kind == SKIP
    assert apply(topic, None, envelope("u", None, new)).kind == POISON


def test_a_type_that_is_not_known_is_named_with_its_column() -> None:
    row = [ROW[0], field("moon", "int64", name="io.debezium.time.Lunar")]
    event = apply(reader(), key_of(1), envelope("c", None, {"id": 1, "moon": 1}, row))
    assert event.kind == POISON
    assert "column moon: io.debezium.time.Lunar" in str(event.error)


def test_heartbeats_in_a_topic_taken_by_name_are_refused() -> None:
    schema = struct(field("ts_ms", "int64"), name="io.debezium.connector.common.Heartbeat")
    event = apply(reader(), None, with_schema(schema, {"ts_ms": 1}))
    assert "Heartbeat" in str(event.error)


# Mapping


def test_a_mapping_renames_casts_and_adds_as_with_our_own_topics() -> None:
    mapping = {"fields": {"number": "id", "text": {"from": "note", "as": "int"}, "t": {"value": 7}}}
    topic = reader(**mapping)
    event = apply(topic, key_of(1), envelope("c", None, {"id": 1, "note": "12"}))
    assert event.row == [b"1", b"12", b"7"]
    event = apply(topic, key_of(1), envelope("u", None, {"id": 1, "note": UNAVAILABLE}))
    assert event.row == [b"1", ABSENT, b"7"]


def test_another_key_than_the_topics_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"keeps the key of its records, which is id"):
        apply(reader(key=["note"]), key_of(1), envelope("c", None, {"id": 1, "note": ""}))


@pytest.mark.parametrize(
    ("topic", "wanted"),
    [
        ("shop.public.orders", "public.orders"),
        ("a.shop.public.orders", "public.orders"),
        ("routed", "routed"),
        ("shop.sales.all_orders", "sales.all_orders"),
    ],
)
def test_the_table_is_the_records_unless_the_topic_is_called_otherwise(
    topic: str, wanted: str
) -> None:
    sink = Sink()
    apply(reader(sink, topic), key_of(1), envelope("c", None, {"id": 1, "note": ""}))
    assert str(sink.bound[0].table) == wanted


@pytest.mark.parametrize(
    "value", [b"", b"{", b"[]", b"7", b'{"schema":{},"payload":{}}', b"null", b"\x00\x00", b"{}"]
)
def test_what_is_no_record_of_debezium_is_poison_and_never_an_error(value: bytes) -> None:
    record: Any = Record(b'{"id": 1}', value)
    event = reader(Sink(begun=True)).read(record, value)
    assert event.kind == POISON


# On the way to the target


class Placed(Record):
    """A record with an offset."""

    def offset(self) -> int:
        return 7


def lane_with(*headers: str) -> Lane:
    """A partition whose last record is a delete."""
    raw = json.dumps(key_of(1)).encode()
    value = json.dumps(envelope("d", {"id": 1}, None)).encode()
    record: Any = Placed(raw, value, *headers)
    lane = Lane(TopicPartition(TOPIC, "id", 0), None)
    lane.admit(reader().read(record, value))
    lane.next = 8
    return lane


def test_the_delete_of_a_key_change_waits_for_its_create_and_is_not_applied_without() -> None:
    lane = lane_with("__debezium.newkey")
    assert lane.awaits_create()
    assert lane.take(EVERYTHING, but_last=True) == []
    assert lane.span() == Span(lane.partition, None, Cursor(7))


def test_a_create_that_never_comes_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lane = lane_with("__debezium.newkey")
    assert lane.awaits_create()
    monkeypatch.setattr("sinks.checkpoint._HALF_S", 0.0)
    assert not lane.awaits_create()


def test_any_other_delete_waits_for_nothing() -> None:
    assert not lane_with().awaits_create()
