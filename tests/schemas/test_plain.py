"""Records as a person reads them."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from schema_strategies import rows, tables
from schemas.avro import envelope_schema, key_schema, message_schema
from schemas.change import ABSENT, Change, Op, Origin, Rows
from schemas.errors import DataError
from schemas.messages import MESSAGES, message_record
from schemas.plain import PlainReader
from schemas.plan import Plan, SourceName
from schemas.table import Column, TableId, TableSchema, Type
from schemas.wire import frame

SOURCE = SourceName("0.1.0", "postgres", "shop")
ORIGIN = Origin(1, 2, 3_000, "77")
COLUMNS = {
    "id": Type("int64"),
    "full name": Type("string"),
    "total": Type("decimal", precision=10, scale=2),
    "on": Type("date"),
    "at": Type("timestamptz"),
    "local": Type("timestamp"),
    "ratio": Type("float64"),
    "raw": Type("bytes"),
    "tags": Type("text", "postgres text[]"),
    "ok": Type("boolean"),
}
TABLE = TableSchema(
    TableId("public", "orders"),
    tuple(Column(name, kind) for name, kind in COLUMNS.items()),
    ("id",),
)


def shown(table: TableSchema, change: Change) -> tuple[Any, Any]:
    plan = Plan(table, table, SOURCE, (1 if table.key else None, 2))
    record = next(iter(plan.records(Rows(table, "changes", ORIGIN, [change], [0]), 9)))
    assert record.value is not None
    value = PlainReader(envelope_schema(table, "t")).read(record.value)
    key = PlainReader(key_schema(table, "t")).read(record.key) if record.key else None
    return key, value


def test_a_row_looks_as_it_does_in_the_source() -> None:
    row = (
        *(b"7", b"Ann", b"12.50", b"2024-02-29", b"2024-02-29 12:00:00.5+00"),
        *(b"2024-02-29 12:00:00", b"0.5", b"\\x00ff", b"{a,b}", b"t"),
    )
    key, value = shown(TABLE, Change(Op.CREATE, None, row))
    assert key == {"id": 7}
    assert (value["op"], value["before"], value["ts_ms"]) == ("c", None, 9)
    assert value["after"] == {
        "id": 7,
        "full name": "Ann",
        "total": "12.50",
        "on": "2024-02-29",
        "at": "2024-02-29T12:00:00.5Z",
        "local": "2024-02-29T12:00:00",
        "ratio": 0.5,
        "raw": "\\x00ff",
        "tags": "{a,b}",
        "ok": True,
    }


def test_absent_columns_are_left_out_and_exact_texts_stand_in_their_column() -> None:
    row = (b"7", ABSENT, b"NaN", b"infinity", None, None, b"-Infinity", None, None, None)
    _, value = shown(TABLE, Change(Op.CREATE, None, row))
    after = value["after"]
    assert "full name" not in after
    assert value["absent_after"] == ["full name"]
    assert (after["total"], after["on"], after["ratio"]) == ("NaN", "infinity", "-Infinity")
    assert after["at"] is None


@given(st.data())
def test_every_record_is_json(data: st.DataObject) -> None:
    table = data.draw(tables())
    row = data.draw(rows(table, absent=True))
    _, value = shown(table, Change(Op.CREATE, None, row))
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    absent = [c.name for c, cell in zip(table.columns, row, strict=True) if cell is ABSENT]
    assert sorted(value["after"]) == sorted({c.name for c in table.columns} - set(absent))


def test_a_logical_message_is_shown_with_its_prefix() -> None:
    run = Rows(MESSAGES, "changes", ORIGIN, [Change(Op.MESSAGE, message=("p", b"\x01"))], [0])
    (record,) = message_record(SOURCE, 3, run, 0)
    assert record.value is not None
    value = PlainReader(message_schema("t")).read(record.value)
    assert value["message"] == {"prefix": "p", "content": "\\x01"}


def test_a_foreign_record_is_shown_by_its_own_logical_types() -> None:
    item = {
        "type": "record",
        "name": "Item",
        "namespace": "x",
        "fields": [{"name": "n", "type": "int"}],
    }
    fields = [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "items", "type": {"type": "array", "items": item}},
        {"name": "one", "type": ["null", "x.Item"]},
        {"name": "more", "type": {"type": "map", "values": "double"}},
        {"name": "either", "type": ["null", "int", "string"]},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A"]}},
    ]
    schema = {"type": "record", "name": "Order", "fields": fields}
    record = {
        "at": 0,
        "items": [{"n": 1}],
        "one": {"n": 2},
        "more": {"a": float("nan")},
        "either": "x",
        "kind": "A",
    }
    stream = io.BytesIO()
    schemaless_writer(stream, parse_schema(schema), record)
    value = PlainReader(schema).read(frame(1) + stream.getvalue())
    assert value == {**record, "at": "1970-01-01T00:00:00Z", "more": {"a": "NaN"}}


@pytest.mark.parametrize("payload", [b"", b"\x02", b"\xff" * 12])
def test_what_does_not_fit_its_schema_is_the_fault_of_one_record(payload: bytes) -> None:
    with pytest.raises(DataError, match="does not fit its schema"):
        PlainReader(envelope_schema(TABLE, "t")).read(frame(1) + payload)
