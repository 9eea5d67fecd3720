"""Names and schemas survive the way into Avro and back."""

from __future__ import annotations

import json
import re

import pytest
from fastavro import parse_schema
from hypothesis import given
from hypothesis import strategies as st

from schema_strategies import ALPHABET, IDENTIFIERS, tables
from schemas.avro import envelope_schema, escape, key_schema, message_schema, table_schema, unescape
from schemas.table import Column, TableId, TableSchema, Type

LEGAL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FRAGMENTS = st.sampled_from(["_", "_u", "u", "41", "_u41_", "_u_", "g", "5f_", "é", ".", "1", "A"])


@given(IDENTIFIERS | st.lists(FRAGMENTS).map("".join) | st.text(ALPHABET))
def test_any_name_becomes_legal_and_comes_back(name: str) -> None:
    assert LEGAL.fullmatch(escape(name))
    assert unescape(escape(name)) == name


@given(st.lists(FRAGMENTS).map("".join), st.lists(FRAGMENTS).map("".join))
def test_two_names_never_become_one(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@pytest.mark.parametrize("name", ["id", "full_name", "Id", "_x", "a1", "_u41", "user_uuid"])
def test_a_legal_name_stays_as_it_is(name: str) -> None:
    assert escape(name) == name


@given(tables())
def test_a_table_is_rebuilt_from_its_envelope(table: TableSchema) -> None:
    envelope = envelope_schema(table, "shop.public.orders")
    assert table_schema(json.loads(json.dumps(envelope))) == table


@given(tables(), st.lists(IDENTIFIERS, min_size=1, max_size=3).map(".".join))
def test_avro_accepts_every_schema(table: TableSchema, topic: str) -> None:
    parse_schema(envelope_schema(table, topic))
    parse_schema(key_schema(table, topic))
    parse_schema(message_schema(topic))


def test_names_that_differ_in_case_alone_are_two_fields() -> None:
    names = ("id", "Id", "ID")
    table = TableSchema(TableId("s", "t"), tuple(Column(n, Type("int32")) for n in names))
    row = envelope_schema(table, "t")["fields"][0]["type"][1]
    assert [field["name"] for field in row["fields"]] == list(names)


def test_the_key_schema_knows_names_and_types_alone() -> None:
    def table(**changed: object) -> TableSchema:
        column = Column("id", Type("int64", "postgres bigint"), **changed)  # type: ignore[arg-type]
        return TableSchema(TableId("s", "t"), (column, Column("x", Type("string"))), ("id",))

    plain = key_schema(table(), "t")
    assert plain["fields"] == [{"name": "id", "type": {"type": "long"}}]
    assert key_schema(table(nullable=False, default="1", generated=True), "t") == plain


def test_a_lossy_type_is_text_in_the_key() -> None:
    kinds = [Type("decimal", precision=9, scale=2), Type("date"), Type("timestamptz")]
    columns = tuple(Column(kind.logical, kind) for kind in kinds)
    key = key_schema(TableSchema(TableId("s", "t"), columns, ("date", "decimal")), "t")
    assert [field["type"] for field in key["fields"]] == [{"type": "string"}] * 2
    assert [field["name"] for field in key["fields"]] == ["date", "decimal"]


def test_every_column_outside_the_key_is_optional_whatever_the_source_says() -> None:
    columns = (
        Column("id", Type("int32"), nullable=False),
        Column("v", Type("int32"), nullable=False),
    )
    envelope = envelope_schema(TableSchema(TableId("s", "t"), columns, ("id",)), "t")
    key, value = envelope["fields"][0]["type"][1]["fields"]
    assert key["type"]["type"] == "int"
    assert value["type"][0] == "null"
    assert value["default"] is None
    assert value["cdc.nullable"] is False


def test_a_foreign_envelope_is_read_by_its_logical_types() -> None:
    row = {
        "type": "record",
        "name": "Value",
        "fields": [
            {"name": "id", "type": "int"},
            {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        ],
    }
    fields = [
        {"name": "before", "type": ["null", row]},
        {"name": "after", "type": ["null", "Value"]},
    ]
    table = table_schema({"type": "record", "name": "Envelope", "fields": fields})
    expected = (Column("id", Type("int32"), nullable=False), Column("at", Type("timestamptz")))
    assert table.columns == expected
