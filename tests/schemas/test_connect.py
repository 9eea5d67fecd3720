"""Rows as Debezium's JSON: what the recorded topics of tests/interchange do not hold."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from schemas.change import ABSENT, Cell, Change, Op, Origin, Rows
from schemas.connect_plan import ConnectPlan
from schemas.connect_types import UNAVAILABLE, form_of
from schemas.plan import Message, SourceName
from schemas.table import Column, TableId, TableSchema, Type

TEXT, INT = Type("string", "postgres text"), Type("int32", "postgres integer")
NUMERIC = Type("decimal", "postgres numeric(10,2)", 10, 2)


def table(*columns: Column, key: tuple[str, ...] = ("id",)) -> TableSchema:
    return TableSchema(
        TableId("public", "orders"), (Column("id", INT, nullable=False), *columns), key
    )


def written(schema: TableSchema, *changes: Change, schemas: bool = False) -> list[Message]:
    plan = ConnectPlan(
        schema,
        schema,
        SourceName("1", "postgres", "shop", "db"),
        "shop.public.orders",
        {},
        schemas=schemas,
    )
    origin = Origin(1, 900, 1_700_000_000_123_456, "77")
    out: list[Message] = []
    size = plan.write(
        Rows(schema, "changes", origin, list(changes), range(1, len(changes) + 1)), 5, out
    )
    assert size == sum(len(message["value"] or b"") for message in out)
    return out


def payload(message: Message) -> Any:
    return orjson.loads(message["value"])


def value(kind: Type, text: str) -> Any:
    return form_of(kind).value(text.encode())


def insert(*cells: Cell) -> Change:
    return Change(Op.CREATE, None, cells)


def test_a_create_has_its_row_and_says_where_it_is_from() -> None:
    [message] = written(table(Column("note", TEXT)), insert(b"1", b"a"))
    assert message["key"] == b'{"id":1}'
    assert payload(message) == {
        "before": None,
        "after": {"id": 1, "note": "a"},
        "source": {
            "version": "1",
            "connector": "postgresql",
            "name": "shop",
            "ts_ms": 1_700_000_000_123,
            "snapshot": "false",
            "db": "db",
            "sequence": '["900","1"]',
            "ts_us": 1_700_000_000_123_456,
            "ts_ns": 1_700_000_000_123_456_000,
            "schema": "public",
            "table": "orders",
            "txId": 77,
            "lsn": 900,
            "xmin": None,
            "origin": None,
            "origin_lsn": None,
        },
        "transaction": None,
        "op": "c",
        "ts_ms": 5,
        "ts_us": 5_000,
        "ts_ns": 5_000_000,
    }


def test_a_key_change_is_three_records_whose_headers_name_one_another() -> None:
    change = Change(Op.UPDATE, (b"1", ABSENT), (b"2", b"a"))
    gone, tombstone, come = written(table(Column("note", TEXT, nullable=False)), change)
    assert [payload(gone)["op"], tombstone["value"], payload(come)["op"]] == ["d", None, "c"]
    assert payload(gone)["before"] == {"id": 1, "note": ""}
    assert gone["headers"] == tombstone["headers"] == [("__debezium.newkey", b'{"id":2}')]
    assert come["headers"] == [("__debezium.oldkey", b'{"id":1}')]


def test_only_a_key_change_has_headers_and_a_table_without_a_key_no_tombstone() -> None:
    keyless = written(table(key=()), insert(b"1"), Change(Op.DELETE, (b"1",), None))
    assert [(one["key"], payload(one)["op"]) for one in keyless] == [(None, "c"), (None, "d")]
    keyed = written(table(), Change(Op.DELETE, (b"1",), None), Change(Op.TRUNCATE))
    assert [one["key"] for one in keyed] == [b'{"id":1}', b'{"id":1}', None]
    assert not any("headers" in one for one in (*keyless, *keyed))


@pytest.mark.parametrize(
    ("kind", "placeholder"),
    [
        (TEXT, UNAVAILABLE),
        (Type("bytes", "postgres bytea"), "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="),
        (Type("text", "postgres text[]"), [UNAVAILABLE]),
        (Type("text", "postgres bigint[]"), list(UNAVAILABLE.encode())),
        (Type("text", "postgres public.hstore"), {UNAVAILABLE: UNAVAILABLE}),
    ],
)
def test_a_value_that_was_not_sent_has_a_placeholder(kind: Type, placeholder: Any) -> None:
    [message] = written(table(Column("big", kind)), Change(Op.UPDATE, None, (b"1", ABSENT)))
    assert payload(message)["after"]["big"] == placeholder


@pytest.mark.parametrize("kind", [NUMERIC, Type("text", "postgres numeric")])
def test_a_value_that_was_not_sent_is_never_null(kind: Type) -> None:
    with pytest.raises(ValueError, match=r"column big was not sent.*REPLICA IDENTITY FULL"):
        written(table(Column("big", kind)), Change(Op.UPDATE, None, (b"1", ABSENT)))


def test_a_key_is_spelled_as_connect_spells_it_in_every_byte() -> None:
    schema = table(Column("code", TEXT, nullable=False), key=("code", "id"))
    [message] = written(schema, insert(b"1", 'ü😀\x0b\x1f"\\u000b/\u2028\x7f'.encode()))
    wanted = '{"code":"ü\\uD83D\\uDE00\\u000B\\u001F\\"\\\\u000b/\u2028\x7f","id":1}'
    assert message["key"] == wanted.encode()


def test_a_mask_is_applied_before_the_value_is_made() -> None:
    read = table(Column("mail", TEXT), Column("secret", TEXT))
    published = table(Column("mail", Type("string")))
    name = SourceName("1", "postgres", "shop", "db")
    masks = {"mail": lambda cell: b"***" + cell[-1:]}
    plan = ConnectPlan(read, published, name, "shop.public.orders", masks, schemas=False)
    out: list[Message] = []
    row = insert(b"1", b"a@b", b"x")
    plan.write(Rows(read, "changes", Origin(1, 2, 3), [row], [1]), 0, out)
    assert payload(out[0])["after"] == {"id": 1, "mail": "***b"}


@pytest.mark.parametrize(
    ("native", "text", "json"),
    [
        ("time with time zone", "01:30:00.5+05:45", "19:45:00.5Z"),
        ("bit(1)", "1", True),
        ("bit varying(12)", "100000001", "AQE="),
        ("money", "$1.00", "$1.00"),
        ("interval", "-1 years -1 mons +2 days -00:00:00.5", "P-1Y-1M2DT0H0M-0.5S"),
        ("interval", "00:00:00", "P0Y0M0DT0H0M0S"),
        ("timestamp(3) without time zone[]", '{"2024-01-01 00:00:00",NULL}', [1704067200000, None]),
        ("numeric(4,1)[]", "{1.5,-12.8}", ["Dw==", "gA=="]),
        ("public.hstore", '"a\\"b"=>"", "n"=>NULL', {'a"b': "", "n": None}),
        ("text[]", '{"a\\\\\\"b",null,"null",c d}', ['a\\"b', None, "null", "c d"]),
    ],
)
def test_a_type_that_is_text_here_has_its_own_form(native: str, text: str, json: Any) -> None:
    assert value(Type("text", f"postgres {native}"), text) == json


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (NUMERIC, "NaN"),
        (Type("text", "postgres numeric"), "Infinity"),
        (Type("text", "postgres integer[]"), "{{1,2},{3,4}}"),
        (Type("text", "postgres integer[]"), "[0:1]={1,2}"),
        (Type("timestamp", "postgres timestamp without time zone"), "294276-12-31 23:59:59.999999"),
        (Type("date", "postgres date"), "no day"),
        (Type("text", "postgres time with time zone"), "24:00:00+00"),
        (Type("text", "postgres interval"), "no time"),
    ],
)
def test_what_has_no_form_there_is_refused(kind: Type, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of them stops the source by name
        value(kind, text)
