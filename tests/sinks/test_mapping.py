"""What a mapping makes of a table: selection, columns, key, casts."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from cdc.errors import ConfigError, DataError
from schemas.table import Column, TableId, TableSchema, Type
from sinks.binding import MappedTable
from sinks.cast import CASTS, cast, json_path
from sinks.mapping import Selection, TableMap, Tables

CUSTOMERS = TableSchema(
    TableId("public", "customers"),
    (
        Column("id", Type("int64", "postgres bigint"), nullable=False),
        Column("full_name", Type("string", "postgres text")),
        Column("created_at", Type("timestamptz", "postgres timestamp with time zone")),
        Column("attrs", Type("json", "postgres jsonb")),
    ),
    ("id",),
)
TOPIC = "shopdb.public.customers"


def selection(tables: Any) -> Selection:
    return Selection(TypeAdapter(Tables).validate_python(tables))


def bind(**options: Any) -> MappedTable:
    return MappedTable.bind(CUSTOMERS, TOPIC, TableMap.model_validate(options))


def test_a_list_of_globs_takes_what_matches_and_is_not_excluded() -> None:
    chosen = selection(["shopdb.public.*", "!shopdb.public.audit_*"])
    assert chosen.takes(TOPIC)
    assert not chosen.takes("shopdb.public.audit_log")
    assert not chosen.takes("otherdb.public.customers")


def test_an_exact_name_wins_over_a_glob_and_an_exclusion_over_both() -> None:
    tables = {"shopdb.*": {"to": "all.{table}"}, TOPIC: {"to": "crm.clients"}, "!*.secret": None}
    chosen = selection(tables)
    assert chosen.mappings(TOPIC) == [TableMap(to="crm.clients")]
    assert chosen.mappings("shopdb.public.orders") == [TableMap(to="all.{table}")]
    assert not chosen.takes("shopdb.public.secret")


def test_a_glob_takes_tables_and_not_what_a_source_writes_beside_them() -> None:
    chosen = selection(["shopdb.*"])
    assert not chosen.takes("shopdb.transaction")
    assert not chosen.takes("shopdb.message")
    assert chosen.takes("shopdb.public.transaction")
    assert not selection(["*"]).takes("__debezium-heartbeat.shopdb")


def test_a_column_is_cast_where_the_mapping_says_what_it_is() -> None:
    fields = {
        "id": "id",
        "name": {"from": "full_name", "as": "text"},
        "at": {"from": "created_at"},
        "since": {"expr": "string(created_at)"},
        "rounded": {"from": "id", "scale": 0},
        "kind": {"value": 1},
    }
    assert bind(fields=fields).schema.cast == ("name", "rounded", "kind")


def test_without_fields_every_column_travels_as_it_is() -> None:
    assert bind().schema == CUSTOMERS


def test_fields_select_rename_and_cast() -> None:
    fields = {
        "client_id": "id",
        "name": "full_name",
        "signed_up": {"from": "created_at", "as": "date"},
    }
    schema = bind(to="crm.clients", fields=fields).schema
    assert schema.table == TableId("crm", "clients")
    assert [column.name for column in schema.columns] == ["client_id", "name", "signed_up"]
    assert schema.column("signed_up").type == Type("date", "postgres date")
    assert schema.key == ("client_id",)


def test_the_target_name_may_be_a_template() -> None:
    assert bind(to="{source}_{schema}.{table}").schema.table == TableId(
        "shopdb_public", "customers"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fields": {"id": "id", "x": "nothing"}}, "no column 'nothing'"),
        ({"fields": {"name": "full_name"}}, "key column id is not mapped"),
        ({"fields": {"id": {"path": "attrs.id"}}}, "key column id is not mapped"),
        ({"key": ["nowhere"]}, "nowhere is no column"),
        ({"to": "{nothing}.x"}, "not a table name"),
    ],
)
def test_a_mapping_that_cannot_be_says_where(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        bind(**options)
    assert TOPIC in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("field", [{}, {"from": "a", "value": 1}, {"from": "a", "as": "money"}])
def test_a_field_has_one_origin_and_a_known_cast(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TableMap.model_validate({"fields": {"x": field}})


@pytest.mark.parametrize(
    ("logical", "name", "text", "wanted"),
    [
        ("timestamptz", "date", b"2026-01-31 08:00:00+00", b"2026-01-31"),
        ("timestamptz", "date", b"infinity", b"infinity"),
        ("timestamp", "date", b"0044-03-15 08:00:00 BC", b"0044-03-15 BC"),
        ("timestamp", "time", b"2026-01-31 08:00:00.5", b"08:00:00.5"),
        ("timestamp", "timestamptz", b"2026-01-31 08:00:00", b"2026-01-31 08:00:00+00"),
        ("timestamptz", "timestamp", b"2026-01-31 08:00:00+00", b"2026-01-31 08:00:00"),
        ("decimal", "int", b"12.00", b"12"),
        ("string", "bigint", b"9007199254740993", b"9007199254740993"),
        ("boolean", "text", b"t", b"true"),
        ("boolean", "int", b"f", b"0"),
        ("int64", "text", b"7", b"7"),
    ],
)
def test_a_cast_brings_one_text_to_the_other(
    logical: str, name: str, text: bytes, wanted: bytes
) -> None:
    kind, convert = cast(Type(logical), name)
    assert kind == CASTS[name]
    assert (text if convert is None else convert(text)) == wanted


@pytest.mark.parametrize(("logical", "text"), [("decimal", b"12.50"), ("string", b"NaN")])
def test_a_cast_that_would_lose_something_is_refused(logical: str, text: bytes) -> None:
    _, convert = cast(Type(logical), "int")
    assert convert is not None
    with pytest.raises(DataError):
        convert(text)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (["sku"], b"A1"),
        (["size", "0"], b"1.10"),
        (["size", "7"], None),
        (["deep", "flag"], b"t"),
        (["deep"], b'{"flag":true}'),
        (["big"], b"123456789012345678901234567890"),
        (["nothing"], None),
        (["null"], None),
    ],
)
def test_a_path_reads_a_place_inside_json(path: list[str], wanted: bytes | None) -> None:
    text = b"""{"sku": "A1", "size": [1.10], "deep": {"flag": true}, "null": null,
               "big": 123456789012345678901234567890}"""
    assert json_path(path, None)(text) == wanted
