"""What changed between two versions of a table, and what of it breaks readers."""

from __future__ import annotations

import io
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given

from schema_strategies import tables
from schemas.avro import envelope_schema, key_schema, message_schema
from schemas.evolution import Difference, avro_differences, breaking, differences
from schemas.table import Column, TableId, TableSchema, Type

TABLE = TableId("public", "orders")
ID = Column("id", Type("int64", "postgres bigint"))


def numeric(precision: int, scale: int) -> Type:
    return Type("decimal", f"postgres numeric({precision},{scale})", precision, scale)


def table(*columns: Column, key: tuple[str, ...] = ("id",)) -> TableSchema:
    return TableSchema(TABLE, (ID, *columns), key)


def retyped(old: Type, new: Type) -> Difference:
    (found,) = differences(table(Column("v", old)), table(Column("v", new)))
    assert found.kind == "retyped"
    return found


@given(tables())
def test_a_table_does_not_differ_from_itself(same: TableSchema) -> None:
    assert differences(same, same) == []
    assert breaking(envelope_schema(same, "t"), envelope_schema(same, "t")) == []


def test_an_added_and_a_dropped_column_break_nobody() -> None:
    small = table()
    large = table(Column("v", numeric(10, 2)))
    (added,) = differences(small, large)
    (dropped,) = differences(large, small)
    assert added == Difference("added", "v", "column v numeric(10,2) was added")
    assert dropped == Difference("dropped", "v", "column v numeric(10,2) was dropped")


def test_a_column_in_the_place_of_another_may_be_a_rename() -> None:
    (found,) = differences(table(Column("a", Type("string"))), table(Column("b", Type("string"))))
    assert (found.kind, found.column, found.breaks) == ("renamed", "b", False)
    assert "a is gone and b" in found.sentence


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (numeric(10, 2), numeric(10, 3), "scale 2 read as 3"),
        (numeric(12, 2), numeric(10, 2), "more digits"),
        (Type("timestamp"), Type("timestamptz"), "timestamp cannot be read as timestamptz"),
        (Type("date"), Type("timestamp"), "date cannot be read as timestamp"),
        (Type("int64"), Type("int32"), "int64 cannot be read as int32"),
        (Type("int64"), Type("float64"), "int64 cannot be read as float64"),
        (Type("int64"), Type("timestamp"), "int64 cannot be read as timestamp"),
        (Type("string"), Type("bytes"), "string cannot be read as bytes"),
        (Type("string"), Type("uuid"), "string cannot be read as uuid"),
        (Type("int32"), Type("string"), "int32 cannot be read as string"),
        (Type("text", "postgres inet"), Type("text", "postgres interval"), "inet is not that"),
        (Type("text", "postgres numeric"), numeric(10, 2), "text cannot be read as decimal"),
    ],
)
def test_a_retype_that_changes_what_a_value_means_breaks(old: Type, new: Type, why: str) -> None:
    found = retyped(old, new)
    assert found.breaks
    assert why in found.sentence


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (numeric(10, 2), numeric(12, 2)),
        (Type("int16"), Type("int32")),
        (Type("int32"), Type("int64")),
        (Type("int32"), Type("float64")),
        (Type("float32"), Type("float64")),
        (Type("json"), Type("string")),
        (Type("uuid"), Type("string")),
        (Type("string", "postgres varchar(10)"), Type("string", "postgres varchar(20)")),
        (Type("text", "postgres bit(3)"), Type("text", "postgres bit(5)")),
        (Type("enum", labels=("a",)), Type("enum", labels=("a", "b"))),
    ],
)
def test_a_retype_that_holds_every_old_value_breaks_nobody(old: Type, new: Type) -> None:
    assert not retyped(old, new).breaks


def test_the_sentence_of_a_retype_names_both_types_as_the_source_does() -> None:
    told = "column v was numeric(10,2) and is numeric(10,3): scale 2 read as 3 is another number"
    assert retyped(numeric(10, 2), numeric(10, 3)).sentence == told


def test_a_new_label_of_an_enum_is_told() -> None:
    old, new = (
        Type("enum", "postgres public.mood", labels=labels) for labels in (("sad",), ("sad", "ok"))
    )
    told = "the labels of column v were 'sad' and are 'sad', 'ok'"
    assert retyped(old, new).sentence == told


def test_another_key_breaks() -> None:
    wide = Column("region", Type("string"))
    (found,) = differences(table(wide), table(wide, key=("id", "region")))
    assert (found.kind, found.breaks) == ("key", True)
    assert found.sentence == "the key was (id) and is (id, region)"


def test_the_same_key_in_another_order_breaks() -> None:
    wide = Column("region", Type("string"))
    (found,) = differences(table(wide, key=("id", "region")), table(wide, key=("region", "id")))
    assert found.breaks


def test_a_wider_key_column_breaks_since_old_keys_would_move() -> None:
    small = TableSchema(TABLE, (Column("id", Type("int32")),), ("id",))
    large = TableSchema(TABLE, (Column("id", Type("int64")),), ("id",))
    (found,) = differences(small, large)
    assert found.breaks
    assert "other partitions" in found.sentence


def test_a_key_column_that_stays_the_same_in_avro_breaks_nobody() -> None:
    small = TableSchema(TABLE, (Column("id", Type("int16")),), ("id",))
    large = TableSchema(TABLE, (Column("id", Type("int32")),), ("id",))
    assert [found.breaks for found in differences(small, large)] == [False]


def test_nullability_and_defaults_are_told_and_break_nobody() -> None:
    old = table(Column("v", Type("int32"), nullable=True, default=None))
    new = table(Column("v", Type("int32"), nullable=False, default="0"))
    found = differences(old, new)
    assert [(f.kind, f.breaks) for f in found] == [("nullability", False), ("default", False)]


def test_key_schemas_are_compared_field_by_field() -> None:
    old = key_schema(TableSchema(TABLE, (Column("id", Type("int32")),), ("id",)), "t")
    new = key_schema(TableSchema(TABLE, (Column("id", Type("int64")),), ("id",)), "t")
    (found,) = breaking(old, new)
    assert found.sentence == "field id was int and is long"


def test_a_key_that_grows_breaks() -> None:
    region = Column("region", Type("string"))
    old = key_schema(table(region), "t")
    new = key_schema(table(region, key=("id", "region")), "t")
    assert [f.sentence for f in breaking(old, new)] == ["field region was added without a default"]


def test_a_key_that_shrinks_breaks() -> None:
    region = Column("region", Type("string"))
    old = key_schema(table(region, key=("id", "region")), "t")
    new = key_schema(table(region), "t")
    assert [f.sentence for f in breaking(old, new)] == ["field region was dropped from the key"]


def test_spelling_and_properties_of_an_avro_type_are_no_difference() -> None:
    old = {"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "string"}}]}
    new = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "string", "doc": "x"}]}
    assert avro_differences(old, new) == []


def test_a_table_cannot_become_messages() -> None:
    (found,) = breaking(envelope_schema(table(), "t"), message_schema("t"))
    assert "Envelope became MessageEnvelope" in found.sentence


def test_what_is_called_harmless_is_read_by_avro_with_the_new_schema() -> None:
    old = table(
        Column("a", Type("int32")), Column("gone", Type("date")), Column("n", numeric(9, 2))
    )
    new = table(
        Column("a", Type("int64")), Column("new", Type("uuid")), Column("n", numeric(12, 2))
    )
    assert not any(found.breaks for found in differences(old, new))
    stream = io.BytesIO()
    record: dict[str, Any] = {"id": 1, "a": 2, "gone": None, "n": None}
    schemas = [parse_schema(_row(envelope_schema(version, "t"))) for version in (old, new)]
    schemaless_writer(stream, schemas[0], record)
    stream.seek(0)
    assert schemaless_reader(stream, *schemas) == {"id": 1, "a": 2, "new": None, "n": None}


def _row(envelope: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = envelope["fields"][0]["type"][1]
    return row
