"""What a plan writes is what fastavro reads: cells, absences, exact texts, keys, tombstones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from fastavro import parse_schema
from hypothesis import given
from hypothesis import strategies as st

from envelopes import cells_of, envelope_reader, read
from schema_strategies import rows, tables
from schemas.avro import escape, key_schema, raw_schema
from schemas.change import ABSENT, Cell, Change, Op, Origin, Row, Rows
from schemas.plan import Plan, Record, SourceName
from schemas.table import Column, TableId, TableSchema, Type
from schemas.types import LOGICAL
from schemas.wire import schema_id

TOPIC = "shop.public.orders"
SOURCE = SourceName("0.1.0", "postgres", "shop", "shopdb")
ORIGIN = Origin(3, 0x16B374D8, 1_700_000_000_123_456, "742")
KEY_ID, VALUE_ID = 7, 70_000

ORDERS = TableSchema(
    TableId("public", "orders"),
    (
        Column("id", Type("int64")),
        Column("total", Type("decimal", precision=10, scale=2)),
        Column("note", Type("string")),
    ),
    ("id",),
)


def plan_of(table: TableSchema) -> Plan:
    return Plan(table, table, SOURCE, (KEY_ID if table.key else None, VALUE_ID))


def written(table: TableSchema, *items: Change) -> list[Record]:
    run = Rows(table, "changes", ORIGIN, list(items), range(5, 5 + len(items)))
    return list(plan_of(table).records(run, 1_700_000_000_999))


def pgoutput(table: TableSchema, *items: bytes) -> list[Record]:
    run = Rows(table, "pgoutput", ORIGIN, list(items), range(len(items)))
    return list(plan_of(table).records(run, 0))


def tuple_data(*cells: Cell) -> bytes:
    out = len(cells).to_bytes(2, "big")
    for cell in cells:
        if cell is None:
            out += b"n"
        elif cell is ABSENT:
            out += b"u"
        else:
            out += b"t" + len(cell).to_bytes(4, "big") + cell
    return out


def value_of(table: TableSchema, record: Record) -> dict[str, Any]:
    assert record.value is not None
    assert schema_id(record.value) == VALUE_ID
    return read(envelope_reader(table), record.value)


def key_of(table: TableSchema, record: Record) -> dict[str, Any]:
    assert record.key is not None
    assert schema_id(record.key) == KEY_ID
    return read(parse_schema(raw_schema(key_schema(table, TOPIC))), record.key)


def key_cells(table: TableSchema, row: Sequence[Cell]) -> list[Cell]:
    return [row[index] for index in table.key_indexes()]


@given(st.data())
def test_every_cell_of_every_change_is_read_back(data: st.DataObject) -> None:
    table = data.draw(tables())
    before = data.draw(rows(table, absent=True))
    after = data.draw(rows(table, absent=True))
    (created,) = written(table, Change(Op.CREATE, None, after))
    deleted, *tombstone = written(table, Change(Op.DELETE, before))
    assert cells_of(table, value_of(table, created), "after") == list(after)
    assert cells_of(table, value_of(table, deleted), "before") == list(before)
    assert tombstone == ([Record(deleted.key, None)] if table.key else [])


@given(st.data())
def test_the_key_holds_the_key_cells_in_key_order(data: st.DataObject) -> None:
    table = data.draw(tables().filter(lambda table: bool(table.key)))
    row = data.draw(rows(table))
    (record,) = written(table, Change(Op.READ, None, row))
    key = key_of(table, record)
    assert list(key) == [escape(name) for name in table.key]
    for name, cell in zip(table.key, key_cells(table, row), strict=True):
        logical = LOGICAL[table.column(name).type.logical]
        decode = str.encode if logical.lossy else logical.decode(table.column(name).type)
        assert decode(key[escape(name)]) == cell


def test_the_source_block_places_the_record() -> None:
    _, second = written(ORDERS, *[Change(Op.CREATE, None, (b"1", None, None))] * 2)
    envelope = value_of(ORDERS, second)
    assert envelope["source"] == {
        "version": "0.1.0",
        "connector": "postgres",
        "name": "shop",
        "db": "shopdb",
        "schema": "public",
        "table": "orders",
        "snapshot": "false",
        "ts_ms": 1_700_000_000_123,
        "txId": "742",
        "incarnation": 3,
        "commit": 0x16B374D8,
        "ordinal": 6,
        "sub": 0,
    }
    assert (envelope["op"], envelope["ts_ms"]) == ("c", 1_700_000_000_999)
    assert envelope["transaction"] is None


def test_a_snapshot_row_says_so() -> None:
    origin = Origin(1, 9, 0, snapshot=True)
    run = Rows(ORDERS, "copy", origin, [b"1\t\\N\ta\\tb"], [0])
    (record,) = plan_of(ORDERS).records(run, 0)
    envelope = value_of(ORDERS, record)
    assert (envelope["op"], envelope["source"]["snapshot"]) == ("r", "incremental")
    assert envelope["after"] == {"id": 1, "total": None, "note": "a\tb"}


def test_a_key_change_is_delete_tombstone_create_with_growing_sub() -> None:
    change = Change(Op.UPDATE, (b"1", b"1.00", b"x"), (b"2", b"1.00", b"x"))
    gone, tombstone, made = written(ORDERS, change)
    assert [key_of(ORDERS, record)["id"] for record in (gone, tombstone, made)] == [1, 1, 2]
    assert tombstone.value is None
    old, new = value_of(ORDERS, gone), value_of(ORDERS, made)
    assert (old["op"], old["source"]["sub"], old["after"]) == ("d", 0, None)
    assert (new["op"], new["source"]["sub"], new["before"]) == ("c", 2, None)


def test_a_delete_under_a_key_tuple_has_absent_columns_not_nulls() -> None:
    deleted, tombstone = pgoutput(ORDERS, b"DK" + tuple_data(b"1", None, None))
    envelope = value_of(ORDERS, deleted)
    assert envelope["before"] == {"id": 1, "total": None, "note": None}
    assert envelope["absent_before"] == ["total", "note"]
    assert tombstone == Record(deleted.key, None)


def test_a_delete_under_full_identity_has_its_nulls() -> None:
    deleted, _ = pgoutput(ORDERS, b"DO" + tuple_data(b"1", None, b"x"))
    envelope = value_of(ORDERS, deleted)
    assert envelope["before"] == {"id": 1, "total": None, "note": "x"}
    assert envelope["absent_before"] is None


def test_an_unchanged_toast_value_is_absent_unless_the_old_row_has_it() -> None:
    after = tuple_data(b"1", b"2.00", ABSENT)
    (alone,) = pgoutput(ORDERS, b"UN" + after)
    (full,) = pgoutput(ORDERS, b"UO" + tuple_data(b"1", b"1.00", b"long") + b"N" + after)
    assert value_of(ORDERS, alone)["absent_after"] == ["note"]
    assert value_of(ORDERS, full)["absent_after"] is None
    assert value_of(ORDERS, full)["after"]["note"] == "long"


def test_a_key_change_under_a_key_tuple_deletes_the_old_key() -> None:
    item = b"UK" + tuple_data(b"1", None, None) + b"N" + tuple_data(b"2", b"3.00", b"x")
    gone, _, made = pgoutput(ORDERS, item)
    assert value_of(ORDERS, gone)["absent_before"] == ["total", "note"]
    assert value_of(ORDERS, made)["after"] == {"id": 2, "total": b"\x01\x2c", "note": "x"}


def test_a_truncate_has_neither_key_nor_rows() -> None:
    (record,) = pgoutput(ORDERS, b"T")
    envelope = value_of(ORDERS, record)
    assert record.key is None
    assert (envelope["op"], envelope["before"], envelope["after"]) == ("t", None, None)


def test_a_value_without_a_native_form_is_null_in_the_column_and_text_beside_it() -> None:
    (record,) = written(ORDERS, Change(Op.CREATE, None, (b"1", b"NaN", None)))
    envelope = value_of(ORDERS, record)
    assert envelope["after"]["total"] is None
    assert envelope["exact_after"] == {"total": "NaN"}


def test_a_table_without_a_key_has_null_keys_and_no_tombstones() -> None:
    table = TableSchema(ORDERS.table, ORDERS.columns)
    (record,) = written(table, Change(Op.DELETE, (b"1", b"1.00", None)))
    assert record.key is None


@pytest.mark.parametrize("cell", [None, ABSENT])
def test_a_key_without_a_value_is_refused(cell: Cell) -> None:
    with pytest.raises(ValueError, match="key column id"):
        written(ORDERS, Change(Op.CREATE, None, (cell, None, None)))


@pytest.mark.parametrize("row", [(b"1", None), (b"1", None, None, None)])
def test_a_row_of_another_width_is_refused(row: Row) -> None:
    with pytest.raises(ValueError, match="3 columns"):
        written(ORDERS, Change(Op.CREATE, None, row))


def test_columns_are_left_out_and_masked_before_anything_is_written() -> None:
    published = TableSchema(ORDERS.table, (ORDERS.columns[2], ORDERS.columns[0]), ("id",))
    plan = Plan(ORDERS, published, SOURCE, (KEY_ID, VALUE_ID), {"note": lambda _: b"***"})
    run = Rows(ORDERS, "changes", ORIGIN, [Change(Op.CREATE, None, (b"1", b"2.00", b"me"))], [0])
    (record,) = plan.records(run, 0)
    assert value_of(published, record)["after"] == {"note": "***", "id": 1}
    assert b"me" not in (record.value or b"")
