"""Rules: which rows break them, what becomes of those, and how they are counted."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from cdc.errors import ConfigError, Stop
from mapped import TOPIC, payloads
from schemas.avro import envelope_schema
from schemas.change import ABSENT, Cell, Change, Op, Stamp
from schemas.table import Column, TableId, TableSchema, Type
from sinks.binding import MappedTable
from sinks.decode import DELETE, POISON, SKIP, TRUNCATE, UPSERT, Decoder, Event
from sinks.mapping import TableMap
from sinks.rules import Tally
from sinks.screen import Screen

NO_MESSAGE: Any = None
PEOPLE = TableSchema(
    TableId("public", "people"),
    (
        Column("id", Type("int64")),
        Column("email", Type("string")),
        Column("age", Type("int32")),
        Column("paid", Type("decimal", "", 12, 2)),
        Column("born", Type("date")),
        Column("seen", Type("timestamptz")),
        Column("active", Type("boolean")),
    ),
    ("id",),
)
GOOD: dict[str, Cell] = {
    "id": b"1",
    "email": b"ada@example.org",
    "age": b"36",
    "paid": b"10.50",
    "born": b"1815-12-10",
    "seen": b"2026-01-31 08:00:00+00",
    "active": b"t",
}


class Judged:
    """A reader with rules, and what it counted."""

    def __init__(self, *rules: dict[str, Any], **options: Any) -> None:
        mapping = TableMap.model_validate({"rules": list(rules), **options})
        self.tally = Tally()
        bound = MappedTable.bind(PEOPLE, TOPIC, mapping)
        self._decoder = Decoder(envelope_schema(PEOPLE, TOPIC), bound, self.tally)

    def row(self, op: Op = Op.CREATE, **cells: Cell) -> Event:
        row = tuple({**GOOD, **cells}.values())
        before, after = (row, None) if op is Op.DELETE else (None, row)
        [payload] = payloads(PEOPLE, Change(op, before, after))
        return self._decoder.read(NO_MESSAGE, payload)

    def passes(self, **cells: Cell) -> bool:
        return self.row(**cells).kind == UPSERT


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        ({"field": "email", "required": True}, {}, {"email": None}),
        ({"field": "age", "range": [0, 150]}, {"age": b"150"}, {"age": b"151"}),
        ({"field": "age", "range": [18, None]}, {"age": b"18"}, {"age": b"17"}),
        ({"field": "paid", "range": [0.1, 20]}, {"paid": b"0.10"}, {"paid": b"NaN"}),
        ({"field": "born", "range": ["1800-01-01", None]}, {}, {"born": b"1799-12-31"}),
        ({"field": "seen", "range": [None, "2026-01-31 08:00:00+00"]}, {},
         {"seen": b"2026-01-31 08:00:00.1+00"}),
        ({"field": "email", "regex": r"[a-z]+@.*"}, {}, {"email": b"1@x"}),
        ({"field": "age", "enum": [36, 37]}, {}, {"age": b"38"}),
        ({"field": "active", "enum": [True]}, {}, {"active": b"f"}),
        ({"field": "email", "format": "email"}, {}, {"email": b"a b@example.org"}),
        ({"expr": "age > 18 && paid >= 0.0"}, {}, {"age": b"3"}),
        ({"expr": "paid < 100.0"}, {}, {"paid": None}),
    ],
)  # fmt: skip
def test_a_rule_lets_good_rows_through_and_no_others(
    check: dict[str, Any], good: dict[str, Cell], bad: dict[str, Cell]
) -> None:
    judged = Judged(check)
    assert judged.passes(**good)
    event = judged.row(**bad)
    assert event.kind == POISON
    assert "public.people breaks the rule" in str(event.error)


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("email", "ada.l+x@mail.example.org", "ada@example"),
        ("hostname", "a-b.example", "-a.example"),
        ("url", "https://example.org/a?b", "example.org/a"),
        ("uuid", "5b2c1d1e-0c3a-4f6e-9a43-0d8f1f2b7a55", "5b2c1d1e"),
        ("ipv4", "127.0.0.1", "127.0.0.256"),
        ("ipv6", "::1", "::g"),
        ("phone", "+4930123456", "030 123456"),
        ("date", "2026-01-31", "2026-02-30"),
        ("timestamp", "2026-01-31T08:00:00Z", "yesterday"),
    ],
)
def test_a_format_is_what_it_says(form: str, good: str, bad: str) -> None:
    judged = Judged({"field": "email", "format": form})
    assert judged.passes(email=good.encode())
    assert not judged.passes(email=bad.encode())


def test_null_breaks_required_alone_and_an_absent_value_nothing() -> None:
    rules = ({"field": "email", "format": "email"}, {"field": "age", "range": [0, 1]})
    assert Judged(*rules).passes(email=None, age=None)
    required = Judged({"field": "email", "required": True}, {"expr": "email.contains('@')"})
    assert required.row(Op.UPDATE, email=ABSENT).kind == UPSERT


def test_a_delete_is_not_judged() -> None:
    assert Judged({"field": "age", "range": [0, 1]}).row(Op.DELETE).kind == DELETE


def test_the_policy_is_the_rule_s_own_or_the_table_s() -> None:
    rules = (
        {"field": "age", "range": [0, 150], "on_invalid": "dead_letter"},
        {"field": "email", "required": True},
        {"field": "paid", "range": [0, None], "on_invalid": "stop"},
    )
    judged = Judged(*rules, on_invalid="skip")
    assert judged.row(age=b"200", email=None).kind == POISON
    assert judged.row(email=None, paid=b"-1.00").kind == SKIP
    with pytest.raises(Stop, match=r"public\.people breaks the rule `paid\.range`"):
        judged.row(paid=b"-1.00")


def test_broken_rules_are_counted_by_table_and_rule() -> None:
    rules = (
        {"field": "age", "range": [0, 150]},
        {"field": "email", "required": True, "name": "mail", "on_invalid": "skip"},
        {"expr": "paid > 0.0"},
    )
    judged = Judged(*rules)
    for cells in ({"age": b"-1"}, {"age": b"-2"}, {"email": None}, {"paid": b"0.00"}, {}):
        judged.row(**cells)
    table = "public.people"
    counted = {(table, "age.range"): 2, (table, "mail"): 1, (table, "paid > 0.0"): 1}
    assert judged.tally.drain() == counted
    assert judged.tally.drain() == {}


@pytest.mark.parametrize(
    "rule",
    [
        {"field": "age"},
        {"field": "age", "required": True, "unique": True},
        {"field": "age", "required": False},
        {"field": "age", "expr": "age > 1"},
        {"required": True},
        {"field": "age", "regex": "("},
        {"field": "age", "format": "shoe"},
        {"expr": "age >"},
        {"field": "age", "range": [1]},
    ],
)
def test_a_rule_that_is_none_is_refused_where_it_stands(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TableMap.model_validate({"rules": [rule]})


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"field": "nothing", "required": True}, "nothing is no column"),
        ({"field": "email", "range": ["a", "b"]}, "number or a time"),
        ({"field": "age", "range": ["x", None]}, "is no range of age"),
        ({"field": "age", "range": [2, 1]}, "the least is above"),
        ({"field": "age", "range": [None, None]}, "number or a time"),
        ({"expr": "age + 1"}, "not true or false"),
        ({"expr": "nothing > 1"}, "names nothing"),
    ],
)
def test_a_rule_that_the_table_cannot_have_says_where(rule: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Judged({"field": "age", "required": True}, rule)
    assert f"tables.{TOPIC}.rules[1]" in str(caught.value)
    keyless = TableSchema(PEOPLE.table, PEOPLE.columns)
    mapping = TableMap.model_validate({"rules": [{"field": "age", "unique": True}]})
    with pytest.raises(ConfigError, match="without a key"):
        MappedTable.bind(keyless, TOPIC, mapping)


class Batch:
    """Events of one transaction, judged together for unique ages."""

    def __init__(self, **options: Any) -> None:
        rule = {"field": "age", "unique": True, **options}
        mapping = TableMap.model_validate({"rules": [rule]})
        bound = MappedTable.bind(PEOPLE, TOPIC, mapping)
        self.tally = Tally()
        self._schema = bound.schema
        self._screen = Screen(self.tally)
        assert bound.rules is not None
        self._screen.add(bound.schema, bound.rules)
        self.events: list[Event] = []

    def add(self, kind: int, key: int = 0, age: Cell = None) -> None:
        event = Event(kind, self._schema, Stamp(1, 1), snapshot=False, message=NO_MESSAGE)
        event.key = (b"%d" % key,)
        if kind == UPSERT:
            event.row = [event.key[0], None, age, None, None, None, None]
        self.events.append(event)

    def judged(self) -> list[int]:
        return [event.kind for event in self._screen(self.events)]


def test_a_value_that_two_rows_of_a_transaction_have_is_refused_in_the_second() -> None:
    batch = Batch()
    batch.add(UPSERT, 1, b"7")
    batch.add(UPSERT, 2, b"7")
    batch.add(UPSERT, 1, b"7")
    batch.add(UPSERT, 3, None)
    batch.add(UPSERT, 4, None)
    assert batch.judged() == [UPSERT, POISON, UPSERT, UPSERT, UPSERT]
    assert "rule `age.unique`: age is there twice" in str(batch.events[1].error)
    assert batch.tally.drain() == {("public.people", "age.unique"): 1}


def test_a_value_may_be_handed_from_row_to_row_inside_a_transaction() -> None:
    batch = Batch()
    batch.add(UPSERT, 1, b"7")
    batch.add(UPSERT, 1, b"8")
    batch.add(UPSERT, 2, b"7")
    batch.add(DELETE, 2)
    batch.add(UPSERT, 3, b"7")
    batch.add(TRUNCATE)
    batch.add(UPSERT, 4, b"7")
    batch.add(UPSERT, 4, ABSENT)
    assert POISON not in batch.judged()


def test_a_row_that_is_there_twice_may_be_skipped_or_stop_the_sink() -> None:
    skipping, stopping = Batch(on_invalid="skip"), Batch(on_invalid="stop")
    for batch in (skipping, stopping):
        batch.add(UPSERT, 1, b"7")
        batch.add(UPSERT, 2, b"7")
    assert skipping.judged() == [UPSERT]
    with pytest.raises(Stop, match="age is there twice"):
        stopping.judged()
