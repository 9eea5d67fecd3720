"""What a plan wrote, a decoder reads: the same cells, with NULL, absent and exact apart."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mapped import ORDERS, TOPIC, through
from schema_strategies import rows, tables
from schemas.avro import envelope_schema
from schemas.change import ABSENT, Cell, Change, Op, Origin, Rows, Stamp
from schemas.plan import Plan, SourceName
from schemas.table import TableSchema
from sinks.binding import MappedTable
from sinks.decode import DELETE, POISON, TRUNCATE, UPSERT, Decoder
from sinks.mapping import TableMap

NO_MESSAGE: Any = None


@given(st.data())
def test_every_value_of_every_type_comes_back_as_the_text_it_was(data: st.DataObject) -> None:
    table = data.draw(tables())
    row = data.draw(rows(table))
    [event] = through(table, Change(Op.CREATE, None, row))
    if event.kind == POISON:
        assert any(row[place] is None for place in table.key_indexes())
        return
    assert event.row == list(row)
    assert event.key == tuple(row[n] for n in table.key_indexes()) or not table.key
    assert event.stamp == Stamp(3, 77, 5, 0)
    assert event.ts_ms == 1_700_000_000_000


def test_null_absent_and_values_without_a_native_form_stay_apart() -> None:
    row: tuple[Cell, ...] = (b"1", ABSENT, b"NaN")
    [event] = through(ORDERS, Change(Op.UPDATE, None, row))
    assert event.row == [b"1", ABSENT, b"NaN"]
    [event] = through(ORDERS, Change(Op.UPDATE, None, (b"1", None, None)))
    assert event.row == [b"1", None, None]


def test_a_delete_needs_the_key_alone() -> None:
    [event] = through(ORDERS, Change(Op.DELETE, (b"1", ABSENT, ABSENT), None))
    assert (event.kind, event.key) == (DELETE, (b"1",))


def test_a_key_change_is_a_delete_and_a_create() -> None:
    change = Change(Op.UPDATE, (b"1", None, None), (b"2", b"moved", None))
    gone, come = through(ORDERS, change)
    assert (gone.kind, gone.key) == (DELETE, (b"1",))
    assert (come.kind, come.key) == (UPSERT, (b"2",))
    assert gone.stamp is not None
    assert come.stamp is not None
    assert gone.stamp < come.stamp


def test_a_truncate_carries_no_row() -> None:
    [event] = through(ORDERS, Change(Op.TRUNCATE))
    assert (event.kind, event.row) == (TRUNCATE, None)


def test_another_key_in_the_target_follows_an_update_of_it() -> None:
    mapping = TableMap(key=["note"])
    change = Change(Op.UPDATE, (b"1", b"old", None), (b"1", b"new", None))
    [event] = through(ORDERS, change, mapping)
    assert (event.key, event.old) == ((b"new",), (b"old",))


def test_a_delete_without_the_target_key_is_poison_with_the_remedy() -> None:
    change = Change(Op.DELETE, (b"1", ABSENT, ABSENT), None)
    [event] = through(ORDERS, change, TableMap(key=["note"]))
    assert event.kind == POISON
    assert event.error is not None
    assert "REPLICA IDENTITY FULL" in event.error.hint
    assert event.error.__traceback__ is None, "a frame holds the event, which the collector skips"


def test_an_update_of_a_keyless_table_without_its_old_row_is_poison() -> None:
    keyless = TableSchema(ORDERS.table, ORDERS.columns)
    [event] = through(keyless, Change(Op.UPDATE, None, (b"1", None, None)))
    assert event.kind == POISON


def test_fields_are_renamed_cast_and_set_also_when_values_are_absent() -> None:
    mapping = TableMap.model_validate(
        {
            "fields": {
                "tenant": {"value": 7},
                "order_id": "id",
                "whole": {"from": "amount", "as": "int"},
                "text": {"from": "note"},
            }
        }
    )
    [event] = through(ORDERS, Change(Op.CREATE, None, (b"1", b"x", b"12.00")), mapping)
    assert event.row == [b"7", b"1", b"12", b"x"]
    [event] = through(ORDERS, Change(Op.UPDATE, None, (b"1", ABSENT, b"12.00")), mapping)
    assert event.row == [b"7", b"1", b"12", ABSENT]
    [event] = through(ORDERS, Change(Op.CREATE, None, (b"1", b"x", b"12.50")), mapping)
    assert event.kind == POISON


def test_torn_bytes_are_poison_and_never_an_error() -> None:
    bound = MappedTable.bind(ORDERS, TOPIC, TableMap())
    decoder = Decoder(envelope_schema(ORDERS, TOPIC), bound)
    plan = Plan(ORDERS, ORDERS, SourceName("1", "test", "shop"), (1, 2))
    change = Change(Op.CREATE, None, (b"1", b"note", b"1.00"))
    run = Rows(ORDERS, "changes", Origin(1, 1, 1), [change], [0])
    [record] = plan.records(run, 0)
    assert record.value is not None
    for end in range(5, len(record.value) - 1):
        assert decoder.read(NO_MESSAGE, record.value[:end]).kind == POISON
