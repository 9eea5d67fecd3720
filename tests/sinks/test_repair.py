"""`cdc dead replay --fix`: a record with some values changed is a record like any other."""

from __future__ import annotations

from typing import Any

import pytest

from cdc.errors import ConfigError, DataError
from mapped import ORDERS, TOPIC, payloads, reader
from schemas.avro import envelope_schema
from schemas.change import ABSENT, Cell, Change, Op
from schemas.table import Column, TableId, TableSchema, Type
from sinks.decode import Event
from sinks.repair import Repair

NO_MESSAGE: Any = None
TYPED = TableSchema(
    TableId("public", "typed"),
    (
        Column("id", Type("int64")),
        Column("day", Type("date")),
        Column("at", Type("timestamp")),
        Column("amount", Type("decimal", "", 12, 2)),
        Column("attrs", Type("json")),
        Column("flag", Type("boolean")),
    ),
    ("id",),
)


def repaired(table: TableSchema, fix: str, change: Change) -> Event:
    [payload] = payloads(table, change)
    repair = Repair(fix, lambda _: envelope_schema(table, TOPIC))
    return reader(table).read(NO_MESSAGE, repair.repaired(payload))


def order(*cells: Cell) -> Change:
    return Change(Op.UPDATE, None, cells)


def test_the_named_columns_are_changed_and_no_others() -> None:
    fix = '{"note": note.substring(0, 4), "amount": null}'
    event = repaired(ORDERS, fix, order(b"1", b"too long", b"2.00"))
    assert event.row == [b"1", b"too ", None]
    assert event.stamp is not None
    assert event.stamp.commit == 77


@pytest.mark.parametrize(
    ("fix", "place", "wanted"),
    [
        ("""{"day": timestamp("2026-01-31T08:00:00Z")}""", 1, b"2026-01-31"),
        ("""{"at": timestamp("2026-01-31T08:00:00Z")}""", 2, b"2026-01-31 08:00:00"),
        ("""{"amount": 1.5}""", 3, b"1.50"),
        ("""{"amount": "NaN"}""", 3, b"NaN"),
        ("""{"attrs": {"a": [1]}}""", 4, b'{"a":[1]}'),
        ("""{"flag": !flag}""", 5, b"f"),
    ],
)
def test_a_value_takes_the_form_of_its_column(fix: str, place: int, wanted: bytes) -> None:
    row = (b"1", None, None, None, None, b"t")
    event = repaired(TYPED, fix, Change(Op.CREATE, None, row))
    assert event.row is not None
    assert event.row[place] == wanted


def test_a_value_that_was_not_sent_can_be_given_and_others_stay_absent() -> None:
    event = repaired(ORDERS, '{"note": "given"}', order(b"1", ABSENT, ABSENT))
    assert event.row == [b"1", b"given", ABSENT]
    event = repaired(ORDERS, '{"amount": 3}', order(b"1", ABSENT, b"NaN"))
    assert event.row == [b"1", ABSENT, b"3.00"]


def test_a_delete_has_nothing_to_repair() -> None:
    [payload] = payloads(ORDERS, Change(Op.DELETE, (b"1", ABSENT, ABSENT), None))
    repair = Repair('{"note": "x"}', lambda _: envelope_schema(ORDERS, TOPIC))
    assert repair.repaired(payload) == payload


@pytest.mark.parametrize(
    ("fix", "says"),
    [
        ("{", "is no CEL expression"),
        ('{"id": 2}', "id is a column of the key"),
        ('{"nothing": 2}', "nothing is no column of the topic"),
        ('{"note": nothing}', "names nothing"),
        ("note", "gives text, not the columns"),
    ],
)
def test_a_repair_that_cannot_be_is_refused(fix: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        repaired(ORDERS, fix, order(b"1", b"x", None))


@pytest.mark.parametrize("fix", ['{"flag": "maybe"}', '{"flag": 1 / 0 == 1}'])
def test_a_row_that_cannot_be_repaired_says_so(fix: str) -> None:
    row = (b"1", None, None, None, None, b"t")
    with pytest.raises(DataError, match="--fix"):
        repaired(TYPED, fix, Change(Op.CREATE, None, row))
