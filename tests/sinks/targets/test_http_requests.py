"""What is sent to an HTTP endpoint, and what its answers mean; no Kafka is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from pydantic import ValidationError

from cdc.errors import ConfigError
from fix_http import Bench, Receiver
from schemas.change import ABSENT, Cell, Stamp
from schemas.table import Column, TableId, TableSchema, Type
from schemas.types import LOGICAL
from sinks.documents import Document
from sinks.journal import FACTS, KEY, POSITION, ROW_KEY
from sinks.target import Mapped, RowsRefused
from sinks.targets.http import Config
from sinks.testing import ITEMS, span
from sinks.testing_changes import CHANGES, changed

URL = "http://127.0.0.1:1/api"
PAGE = Path("sinks/targets/http.md")


Make = Callable[..., Bench]
PEN = changed(1, b"7", b"pen", b"1.50")


def table(*columns: Column, key: Sequence[str] = ("id",)) -> TableSchema:
    names = msgspec.json.encode(list(key)).decode()
    return TableSchema(
        TableId("crm", "orders"), (*columns, *FACTS, POSITION), KEY, ((ROW_KEY, names),)
    )


# What is sent


def test_each_deed_has_its_request(bench: Make, receiver: Receiver) -> None:
    bench().send(
        PEN,
        changed(2, b"7", ABSENT, b"2.00"),
        changed(3, b"7", ABSENT, ABSENT, op="d"),
    )
    assert [one[:2] for one in bench().sent()] == [
        ("PUT", "/items/7"),
        ("PATCH", "/items/7"),
        ("DELETE", "/items/7"),
    ]
    bodies = [one.body for one in receiver.asked]
    assert bodies == [{"id": 7, "name": "pen", "price": "1.50"}, {"id": 7, "price": "2.00"}, ""]


def test_the_key_of_a_request_is_the_place_of_its_change_in_the_source(
    bench: Make, receiver: Receiver
) -> None:
    bench().send(changed(9, b"7", b"pen", None, at=Stamp(2, 27393048, 3, 1)))
    assert receiver.asked[0].key == "shop.public.items:2-27393048-3-1"


def test_a_batch_has_one_request_whose_items_keep_their_keys(
    bench: Make, receiver: Receiver
) -> None:
    one = bench(batch=2, batch_path="/changes")
    one.send(*(changed(n, b"%d" % n, b"pen", None) for n in range(3)))
    assert [(a.method, a.path, len(a.body)) for a in receiver.asked] == [
        ("POST", "/api/changes", 2),
        ("POST", "/api/changes", 1),
    ]
    first = receiver.asked[0].body[0]
    assert first == {
        "key": "shop.public.items:1-100-0-0",
        "op": "upsert",
        "path": "/items/0",
        "body": {"id": 0, "name": "pen", "price": None},
    }


def test_a_batch_that_is_cut_otherwise_has_another_key(bench: Make, receiver: Receiver) -> None:
    rows = [changed(n, b"%d" % n, b"pen", None) for n in range(3)]
    for cut in (rows[:2], rows[:2], rows[1:], rows[:1]):
        bench(batch=5).send(*cut)
    one, same, other, first = (asked.key for asked in receiver.asked)
    assert one == same
    assert len({one, other, first}) == 3


def test_a_batch_that_is_refused_is_halved_until_one_change_is_named(
    bench: Make, receiver: Receiver
) -> None:
    receiver.judge = lambda asked: (
        (422, {}, b"no such name") if any(i["body"]["name"] == "bad" for i in asked.body) else None
    )
    texts = [b"a", b"b", b"bad", b"d"]
    rows = [changed(n, b"%d" % n, text, None) for n, text in enumerate(texts)]
    one = bench(batch=10)
    with pytest.raises(RowsRefused, match="no such name") as caught:
        one.send(*rows)
    assert list(caught.value.rows) == [(ITEMS.table, tuple(rows[2][6:9]))]
    one.send(rows[0], rows[1], rows[3])
    assert sorted(receiver.documents) == ["/api/items/0", "/api/items/1", "/api/items/3"]
    assert sum(len(asked.body) for asked in receiver.asked) == 4 + 2 + 2 + 1 + 1


def test_changes_go_in_the_order_of_their_source_over_all_tables(
    bench: Make, receiver: Receiver
) -> None:
    other = table(*ITEMS.columns)
    one = bench(upsert={"method": "PUT", "path": "/{$schema}.{$table}/{$key}"})
    one.delivery.prepare(other)
    place = list(PEN[6:9])

    def at(ordinal: int, topic: bytes) -> Sequence[Cell]:
        row = changed(ordinal, b"%d" % ordinal, b"x", None)
        return [*row[:6], topic, *place[1:2], b"%d" % ordinal, row[9]]

    step = [
        Mapped(CHANGES, [at(1, b"s.items"), at(4, b"s.items")], []),
        Mapped(other, [at(2, b"s.orders"), at(3, b"s.orders")], []),
    ]
    one.delivery.send(step)
    assert [one[1] for one in one.sent()] == [
        "/shop.items/1",
        "/crm.orders/2",
        "/crm.orders/3",
        "/shop.items/4",
    ]


def test_rows_of_a_snapshot_stay_behind_those_that_came_before_them(
    bench: Make, receiver: Receiver
) -> None:
    old = changed(2, b"7", b"read", None, op="r", at=Stamp(1, 5, 0))
    one = bench()
    one.delivery.begin([span(None, 3)])
    one.send(PEN, old)
    assert [asked.body["name"] for asked in receiver.asked] == ["pen", "read"]
    [moved] = one.delivery.progress()
    assert moved.end.offset == 3
    assert moved.end.stamp == Stamp(1, 100, 1)


# Templates


def test_a_value_can_never_become_a_path(bench: Make, receiver: Receiver) -> None:
    one = bench(upsert={"method": "PUT", "path": "/items/{name}/x?q={price}"})
    one.send(changed(1, b"1", b"../a b/%2e?#&=\xc3\xbc", b"1.50"))
    assert receiver.asked[0].path == "/api/items/..%2Fa%20b%2F%252e%3F%23%26%3D%C3%BC/x?q=1.50"
    for n, text in enumerate([b"", b".", b"..", None]):
        with pytest.raises(RowsRefused, match="no path can hold"):
            one.send(changed(n + 5, b"1", text, None))


def test_a_key_of_several_columns_is_joined_by_commas(bench: Make) -> None:
    schema = table(Column("a", Type("string")), Column("b", Type("int64")), key=("b", "a"))
    one = bench()
    one.send((b"x,y/z", b"7", *PEN[3:]), schema=schema)
    assert one.sent()[0][1] == "/orders/7,x%2Cy%2Fz"


def test_a_body_keeps_the_types_of_what_it_is_made_of(bench: Make, receiver: Receiver) -> None:
    body = {
        "customer": {"id": "{id}", "called": "no. {id}: {name}"},
        "tags": ["{name}", "new", 1, None],
        "price": "{price}",
        "braces": "{{}}",
        "what": "{$op} {$table} {$at}",
        "key": "{$name}",
        "all": "{$row}",
    }
    one = bench(
        upsert={"method": "POST", "path": "/", "body": body},
        partial={"method": "POST", "path": "/", "body": body},
    )
    one.send(changed(1, b"7", b'"}{', None))
    assert receiver.asked[0].body == {
        "customer": {"id": 7, "called": 'no. 7: "}{'},
        "tags": ['"}{', "new", 1, None],
        "price": None,
        "braces": "{}",
        "what": "upsert items 2026-01-31T08:00:00Z",
        "key": "shop.public.items:1-100-1-0",
        "all": {"id": 7, "name": '"}{', "price": None},
    }
    one.send(changed(2, b"8", b"cup", ABSENT))
    assert "price" not in receiver.asked[1].body
    with pytest.raises(RowsRefused, match="the log did not carry it"):
        one.send(changed(3, b"9", ABSENT, None))


@pytest.mark.parametrize("path", ["/{}", "/{id!r}", "/{id:>9}", "/{id", "id"])
def test_a_placeholder_is_a_name_and_nothing_else(path: str) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate(
            {"url": URL, "tables": ["s.*"], "upsert": {"method": "PUT", "path": path}}
        )


@pytest.mark.parametrize(
    "form",
    [
        {"path": "/{nmae}"},
        {"path": "/{id.__class__}"},
        {"path": "/", "body": {"a": [{"b": "{nmae}"}]}},
    ],
)
def test_a_name_that_is_no_column_stops_the_sink(bench: Make, form: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is no column") as caught:
        bench(upsert={"method": "PUT", **form})
    assert "name" in caught.value.hint


def test_a_table_without_a_key_needs_a_path_of_its_own(bench: Make) -> None:
    schema = table(Column("note", Type("string")), key=())
    with pytest.raises(RowsRefused, match=r"\{\$key\}"):
        bench().send((b"x", *PEN[3:]), schema=schema)
    one = bench(upsert={"method": "POST", "path": "/notes"})
    one.send((b"x", *PEN[3:]), schema=schema)
    assert one.sent() == [("POST", "/notes", {"note": "x"})]


def test_a_truncation_is_refused_skipped_or_sent(bench: Make) -> None:
    emptied = changed(1, None, None, None, op="t")
    with pytest.raises(RowsRefused, match=r"a truncate of .* has no request"):
        bench().send(emptied)
    bench(truncate="skip").send(emptied)
    one = bench(truncate={"method": "POST", "path": "/{$table}/clear"})
    one.send(emptied)
    assert one.sent() == [("POST", "/items/clear", None)]


VALUES: dict[str, dict[bytes, object]] = {
    "boolean": {b"t": True, b"f": False},
    "int16": {b"-5": -5},
    "int32": {b"2147483647": 2147483647},
    "int64": {b"-9223372036854775808": -(2**63)},
    "float32": {b"0.1": 0.1},
    "float64": {b"5e-324": 5e-324, b"NaN": "NaN", b"-Infinity": "-Infinity"},
    "decimal": {b"12345678901234567890.0000000001": ..., b"NaN": ...},
    "date": {b"2026-01-31": ..., b"infinity": ..., b"0044-03-15 BC": ...},
    "time": {b"24:00:00": ...},
    "timestamp": {
        b"2026-01-31 08:00:00.5": "2026-01-31T08:00:00.5",
        b"0044-03-15 08:00:00 BC": ...,
    },
    "timestamptz": {b"2026-01-31 08:00:00+00": "2026-01-31T08:00:00Z", b"-infinity": ...},
    "bytes": {b"\\x00ff0a": "AP8K", b"\\x": ""},
    "uuid": {b"0e37df36-f698-11e6-8dd4-cb9ced3df976": ...},
    "string": {b"007": ..., b"": ...},
    "json": {b'{"a": 1.10}': {"a": 1.1}},
    "enum": {b"1": ...},
    "text": {b"{1,2}": ...},
}


@pytest.mark.parametrize("kind", LOGICAL)
def test_a_value_of_each_logical_type_has_its_form_in_json(
    bench: Make, receiver: Receiver, kind: str
) -> None:
    schema = table(Column("id", Type("int64")), Column("v", Type(kind)))
    texts = list(VALUES[kind])
    bench().send(
        *((b"1", text, *changed(n, b"", b"", b"")[3:]) for n, text in enumerate(texts)),
        schema=schema,
    )
    wanted = [text.decode() if to is ... else to for text, to in VALUES[kind].items()]
    assert [asked.body["v"] for asked in receiver.asked] == wanted


def test_json_stays_as_it_was_written() -> None:
    document = Document([Column("v", Type("json"))]).members([b'{"a": 1.10}'])
    assert orjson.dumps(document) == b'{"v":{"a": 1.10}}'


def test_a_value_that_is_none_of_its_type_is_refused(bench: Make) -> None:
    with pytest.raises(RowsRefused, match="none of its type"):
        bench().send(changed(1, b"x", b"pen", None))
