"""A record that goes to several tables: one in its partition, several in a cut and as letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cdc.config import InvalidPipeline, parse_pipeline
from cdc.connector import Context
from cdc.errors import ConfigError, DataError
from cdc.kafka import KafkaConfig
from mapped import ORDERS, TOPIC, payloads
from schemas.avro import envelope_schema
from schemas.change import ABSENT, Cell, Change, Op, Stamp
from schemas.registry import RegistryConfig
from schemas.table import Column, TableId, TableSchema, Type
from sinks.checkpoint import Lane
from sinks.collapse import collapse, in_source_order
from sinks.deadletter import DeadLetters
from sinks.decode import DELETE, POISON, SKIP, TRUNCATE, UPSERT, Event, poison
from sinks.letters import Letter, Record
from sinks.mapping import Selection, Tables
from sinks.parts import Split, parts_of, split, table_by_table, unfolded
from sinks.replay import held_back
from sinks.routes import Routes
from sinks.target import TopicPartition

KAFKA = KafkaConfig(bootstrap="nowhere:9092", registry=RegistryConfig(url="http://nowhere"))
PAID = {"to": "crm.paid", "where": "note == 'paid'", "fields": {"id": "id", "sum": "amount"}}
BOTH = [{"to": "crm.orders"}, PAID]
COLUMNS = (Column("id", Type("int64")), Column("a", Type("string")), Column("b", Type("string")))
ONE, TWO = (TableSchema(TableId("crm", name), COLUMNS, ("id",)) for name in ("one", "two"))


class Registry:
    """One version of one topic."""

    def get(self, _schema_id: int) -> dict[str, Any]:
        return envelope_schema(ORDERS, TOPIC)

    def history(self, _topic: str, schema_id: int) -> list[tuple[int, dict[str, Any]]]:
        return [(schema_id, self.get(schema_id))]


class Workers:
    """How many write a topic of as many partitions."""

    def __init__(self, count: int = 1) -> None:
        self._count = count

    def partitions(self, _topic: str) -> int:
        return self._count

    def writers(self, _topic: str) -> int:
        return self._count


def routes(tables: Any, workers: int = 1, *, lines: bool = False) -> Routes:
    chosen = Selection(TypeAdapter(Tables).validate_python({TOPIC: tables}))
    return Routes(chosen, Registry(), Workers(workers), lines=lines)


def read(made: Routes, change: Change, offset: int = 0) -> list[Event]:
    return [
        made.read(Message(topic=TOPIC, partition=0, offset=offset, value=value), value)
        for value in payloads(ORDERS, change)
    ]


def order(note: bytes | None, op: Op = Op.CREATE) -> Change:
    return Change(op, None, (b"1", note, b"2.50"))


# The pipeline file


def test_what_is_wrong_in_one_of_several_mappings_is_named_by_its_place_in_the_file() -> None:
    text = """pipeline: shop
kafka: {bootstrap: "h:1", registry: "http://r:1"}
sinks:
  crm:
    type: postgres
    url: postgresql://x/y
    tables:
      shop.public.orders:
      - to: crm.orders
      - to: crm.paid
        wher: id > 1
        fields: {id: {from: id, as: nothing}}
      shop.public.items:
      - to: crm.items
      - to: crm.items
      shop.public.none: []
      shop.public.forms:
      - {to: crm.a, format: tailrace}
      - {to: crm.b}
"""
    with pytest.raises(InvalidPipeline) as caught:
        parse_pipeline(text, Path("t.yaml"), {})
    told = {problem.path.removeprefix("sinks.crm.tables.shop.public."): problem
            for problem in caught.value.problems}  # fmt: skip
    assert {path: problem.line for path, problem in told.items()} == {
        "orders[1].wher": 11,
        "orders[1].fields.id": 12,
        "items": 13,
        "none": 16,
        "forms": 17,
    }
    assert told["orders[1].wher"].hint == "did you mean `where`?"
    assert "`to: crm.items` is there twice" in told["items"].message


def test_a_column_that_is_not_there_is_named_by_the_mapping_that_wants_it() -> None:
    tables = [{"to": "crm.orders"}, {"to": "crm.paid", "fields": {"id": "id", "x": "nought"}}]
    with pytest.raises(ConfigError, match=r"tables\.shop\.public\.orders\[1\]\.fields\.x"):
        read(routes(tables), order(b"new"))


def test_two_names_that_mean_one_table_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"orders\[1\]\.to: public.orders is the table of"):
        read(routes([{"to": "public.orders"}, {"to": "{schema}.{table}"}]), order(b"new"))


def test_several_workers_are_refused_where_a_truncation_would_wait_in_each_table() -> None:
    with pytest.raises(ConfigError, match=r"orders\[0\]: several workers") as caught:
        read(routes(BOTH, workers=2), order(b"new"))
    assert "workers: 1" in caught.value.hint


# One record


@pytest.mark.parametrize("lines", [False, True])
def test_a_record_does_to_each_table_what_its_own_mapping_says(lines: bool) -> None:  # noqa: FBT001
    made = routes(BOTH, lines=lines)
    [paid], [new] = read(made, order(b"paid")), read(made, order(b"new"))
    [gone] = read(made, Change(Op.DELETE, (b"1", ABSENT, ABSENT), None))
    [emptied] = read(made, Change(Op.TRUNCATE))
    does = [[(part.kind, part.part) for part in parts_of(one)] for one in (paid, new)]
    assert does == [
        [(UPSERT, "crm.orders"), (UPSERT, "crm.paid")],
        [(DELETE, "crm.paid"), (UPSERT, "crm.orders")],
    ]
    assert [[(p.kind, p.part) for p in parts_of(one)] for one in (gone, emptied)] == [
        [(DELETE, "crm.paid"), (DELETE, "crm.orders")],
        [(TRUNCATE, "crm.paid"), (TRUNCATE, "crm.orders")],
    ]
    assert [one.kind for one in (paid, new, gone, emptied)] == [UPSERT, DELETE, DELETE, TRUNCATE]
    [_, part] = parts_of(paid)
    assert part.row == [b"1", b"2.50"]


def test_a_part_that_cannot_be_mapped_is_poison_and_the_others_are_not() -> None:
    on = {"from": "note", "as": "date", "format": "%d.%m.%Y"}
    dated = {"to": "crm.dated", "fields": {"id": "id", "on": on}}
    [event] = read(routes([{"to": "crm.orders"}, dated]), order(b"soon"))
    assert [part.kind for part in parts_of(event)] == [UPSERT, POISON]
    assert event.kind == UPSERT


def test_a_record_that_cannot_be_read_is_one_poison_and_of_no_table() -> None:
    made = routes(BOTH)
    [value] = payloads(ORDERS, order(b"new"))
    torn = made.read(Message(topic=TOPIC, partition=0, offset=0, value=value[:9]), value[:9])
    alien = made.read(Message(topic=TOPIC, partition=0, offset=1, value=b"?"), b"?")
    for event in (torn, alien):
        [part] = parts_of(event)
        assert (event.kind, part.kind, part.part) == (POISON, POISON, "")


def test_a_record_that_no_table_wants_is_passed_over_and_still_read_to() -> None:
    journal = {"to": "crm.log", "mode": "append", "where": "note == 'paid'"}
    also = {"to": "crm.other", "mode": "append", "where": "note == 'other'"}
    [event] = read(routes([journal, also]), order(b"new"))
    assert (event.kind, event.stamp) == (SKIP, Stamp(3, 77, 5, 0))
    assert list(parts_of(event)) == []


def test_a_partition_holds_a_record_once_and_knows_its_repetition() -> None:
    lane = Lane(TopicPartition(TOPIC, "id", 0), None)
    made = routes(BOTH)
    for event in read(made, order(b"paid")) * 2:
        lane.admit(event)
    [held] = lane.take((9, 0))
    assert lane.dropped == 1
    assert [part.part for part in unfolded([held])] == ["crm.orders", "crm.paid"]


def test_a_topic_that_debezium_wrote_goes_to_each_table_with_deletes_and_tombstones() -> None:
    told = {"format": "debezium", "columns": {"id": "bigint", "note": "text"}}
    made = routes([{"to": "crm.orders", **told}, {"to": "crm.ids", "fields": {"id": "id"}, **told}])
    made.begun = {TOPIC}

    def does(value: Any) -> list[tuple[int, str, Any]]:
        key, text = b'{"id": 1}', None if value is None else json.dumps(value).encode()
        message = Message(topic=TOPIC, partition=0, offset=0, key=key, value=text)
        event = made.bury(message) if text is None else made.read(message, text)
        assert isinstance(event, Split)
        return [(part.kind, part.part, part.row or part.key) for part in parts_of(event)]

    row = {"id": 1, "note": "new"}
    assert does(row) == [
        (UPSERT, "crm.orders", [b"1", b"new"]),
        (UPSERT, "crm.ids", [b"1"]),
    ]
    assert does(None) == [(DELETE, "crm.ids", (b"1",)), (DELETE, "crm.orders", (b"1",))]
    assert does({"id": "what", "note": "torn"}) == [(POISON, "", ())]


# Several records


def move(first: int, table: TableSchema) -> list[Event]:
    """The two halves of a key change of one table: the create lacks a value."""

    def half(kind: int, sub: int, *row: Cell) -> Event:
        stamp = Stamp(1, 10, first, sub)
        message = Message(topic=TOPIC, partition=0, offset=2 * first + sub, value=b"v")
        key, row_ = row[:1], [*row]
        return Event(kind, table, stamp, snapshot=False, message=message, key=key, row=row_)

    return [half(DELETE, 0, b"%d" % first), half(UPSERT, 1, b"%d" % (first + 1), b"x", ABSENT)]


def test_a_key_change_comes_table_by_table_so_that_each_carries_its_row_over() -> None:
    halves = list(zip(move(1, ONE), move(1, TWO), strict=True))
    steps = list(in_source_order(unfolded([split(half) for half in halves])))
    moves = [(m.schema.table.name, m.moves) for step in steps for m in step]
    row = [b"2", b"x", ABSENT]
    assert sorted(moves) == [("one", [((b"1",), row)]), ("two", [((b"1",), row)])]


def test_letters_of_single_parts_are_applied_in_the_same_order() -> None:
    halves = list(zip(move(1, ONE), move(1, TWO), strict=True))
    for half in halves:
        split(half)
    steps = in_source_order(table_by_table(part for half in halves for part in half))
    assert [len(m.moves) for step in steps for m in step] == [1, 1]


keys = st.sampled_from([b"1", b"2", b"3"])
does = st.sampled_from([UPSERT, UPSERT, DELETE, SKIP, TRUNCATE])


def done(kind: int, table: TableSchema, key: bytes, number: int) -> Event:
    message = Message(topic=TOPIC, partition=0, offset=number, value=b"v")
    row: list[Cell] = [key, b"%d" % number, None]
    stamp = Stamp(1, number, 0)
    return Event(kind, table, stamp, snapshot=False, message=message, key=(key,), row=row)


@given(st.lists(st.tuples(keys, does, does)))
def test_a_split_topic_leaves_each_table_as_a_sink_of_its_own_would(told: list[Any]) -> None:
    records = [
        [done(one, ONE, key, number), done(two, TWO, key, number)]
        for number, (key, one, two) in enumerate(told)
    ]
    alone = [
        [event for event in events if event.kind != SKIP] for events in zip(*records, strict=True)
    ]
    wanted = {m.schema: m for events in alone for step in collapse(events) for m in step}
    found = {m.schema: m for step in collapse(unfolded([*map(split, records)])) for m in step}
    assert found == wanted


# Letters of parts


def part_event(offset: int, part: str, kind: int = UPSERT, *, key: bytes = b"k") -> Event:
    message = Message(topic=TOPIC, partition=0, offset=offset, key=key, value=b"v")
    table = ONE if part == "crm.one" else TWO
    error = DataError("no")
    stamp = Stamp(1, offset, 0)
    made = Event(kind, table, stamp, snapshot=False, message=message, error=error)
    made.part = part
    return made


def test_with_block_key_a_letter_holds_back_its_own_table_alone() -> None:
    letters = DeadLetters(KAFKA, Context("p", "crm"), "block_key")
    bad = part_event(0, "crm.two", POISON)
    events = [
        part_event(0, "crm.one"),
        bad,
        part_event(1, "crm.one"),
        part_event(1, "crm.two"),
        part_event(2, "crm.two", key=b"other"),
    ]
    assert letters.aside(events, [bad]) == [bad, events[3]]


def test_with_block_key_a_record_that_cannot_be_read_holds_back_every_table() -> None:
    letters = DeadLetters(KAFKA, Context("p", "crm"), "block_key")
    message = Message(topic=TOPIC, partition=0, offset=0, key=b"k", value=b"v")
    torn = poison(message, 1, DataError("torn"))
    events = [torn, part_event(1, "crm.one"), part_event(1, "crm.two")]
    assert letters.aside(events, [torn]) == events


def test_a_letter_of_one_table_waits_for_an_earlier_one_of_that_table_alone() -> None:
    def known(offset: int, of: int, part: str) -> Letter:
        return Letter(offset, "crm", Record(TOPIC, 0, of, 5, part), b"k")

    one, two = known(0, 1, "crm.one"), known(1, 2, "crm.two")
    later, whole = known(2, 3, "crm.two"), known(3, 4, "")
    known_ = [one, two, later, whole]
    assert held_back(known_, [two, later]) == []
    assert [verdict.letter for verdict in held_back(known_, [later])] == [later]
    assert [verdict.letter for verdict in held_back(known_, [two, later, whole])] == [whole]


def test_every_record_of_a_split_topic_is_a_split() -> None:
    made = routes(BOTH)
    [value] = payloads(ORDERS, order(b"new"))
    for given_ in (value, value[:9], b"?"):
        message = Message(topic=TOPIC, partition=0, offset=0, value=given_)
        assert isinstance(made.read(message, given_), Split)
    plain = routes({"to": "crm.orders"})
    assert not any(isinstance(event, Split) for event in read(plain, order(b"new")))
