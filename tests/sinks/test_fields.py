"""What a field can say: formats, units, lookups, defaults; and what becomes of other columns."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cdc.errors import ConfigError
from mapped import ORDERS, reader, through
from schemas.change import ABSENT, Cell, Change, Op
from schemas.table import Column, TableId, TableSchema, Type
from sinks.decode import POISON, Event
from sinks.formats import rounded, unit_converter
from sinks.mapping import TableMap

TEXTS = TableSchema(
    TableId("public", "texts"),
    (
        Column("id", Type("int64")),
        Column("said", Type("string")),
        Column("grams", Type("int32")),
        Column("attrs", Type("json")),
        Column("secret", Type("string")),
    ),
    ("id",),
)


def field(said: Cell, **options: Any) -> Event:
    """The event of a row in which one field reads the text column."""
    row = (b"1", said, b"1500", b'{"sku": "A1", "size": {"w": 2}}', b"x")
    mapping = {"fields": {"id": "id", "x": {"from": "said", **options}}}
    [event] = through(TEXTS, Change(Op.CREATE, None, row), mapping)
    return event


def cell(said: Cell, **options: Any) -> Cell:
    event = field(said, **options)
    assert event.error is None, event.error
    assert event.row is not None
    return event.row[1]


@pytest.mark.parametrize(
    ("text", "as_", "form", "wanted"),
    [
        (b"31.01.2026", "date", "%d.%m.%Y", b"2026-01-31"),
        (b"1/2/0987", "date", "%d/%m/%Y", b"0987-02-01"),
        (b"8:05 PM", "time", "%I:%M %p", b"20:05:00"),
        (b"20260131T080000", "timestamp", "%Y%m%dT%H%M%S", b"2026-01-31 08:00:00"),
        (b"2026-01-31T08:00:00.25+0100", "timestamptz", "%Y-%m-%dT%H:%M:%S.%f%z",
         b"2026-01-31 07:00:00.25+00"),
        (b"1769846400", "timestamptz", "epoch_s", b"2026-01-31 08:00:00+00"),
        (b"1769846400123", "timestamp", "epoch_ms", b"2026-01-31 08:00:00.123"),
        (b"-1", "date", "epoch_us", b"1969-12-31"),
        (b"-1.234.567,89", "numeric", "1.234,56", b"-1234567.89"),
        (b"1,234", "int", "1,234.56", b"1234"),
        (b"1'000.5", "float", "1'234.56", b"1000.5"),
        (b"0,5", "numeric", "1234,56", b"0.5"),
        (b"Yes", "bool", "yes|y/no|n", b"t"),
        (b"0", "bool", "1/0", b"f"),
    ],
)  # fmt: skip
def test_a_format_reads_what_the_source_writes(
    text: bytes, as_: str, form: str, wanted: bytes
) -> None:
    assert cell(text, **{"as": as_, "format": form}) == wanted


@pytest.mark.parametrize(
    ("text", "as_", "form"),
    [
        (b"2026-01-31", "date", "%d.%m.%Y"),
        (b"soon", "timestamptz", "epoch_s"),
        (b"1.2.3", "numeric", "1.234,56"),
        (b"1,5", "int", "1,234.56"),
        (b"maybe", "bool", "yes/no"),
    ],
)
def test_a_text_that_is_not_written_so_is_poison(text: bytes, as_: str, form: str) -> None:
    event = field(text, **{"as": as_, "format": form})
    assert event.kind == POISON
    assert text.decode() in str(event.error)


@pytest.mark.parametrize(
    "options",
    [
        {"as": "uuid", "format": "%d"},
        {"as": "date", "format": "day"},
        {"as": "numeric", "format": "1234"},
        {"as": "numeric", "format": "1.234.56"},
        {"as": "bool", "format": "yes"},
        {"format": "%d.%m.%Y"},
        {"unit": "g->s"},
        {"unit": "kg"},
        {"scale": -1},
    ],
)
def test_a_field_that_can_never_be_is_refused_where_it_stands(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TableMap.model_validate({"fields": {"x": {"from": "said", **options}}})
    with pytest.raises(ValidationError, match="a constant has no"):
        TableMap.model_validate({"fields": {"x": {"value": 1, "default": 2}}})


def test_a_unit_is_converted_exactly_and_rounded_where_that_is_asked_for() -> None:
    fields = {
        "id": "id",
        "kg": {"from": "grams", "unit": "g->kg"},
        "lb": {"from": "grams", "unit": "g->lb", "scale": 3},
        "whole": {"expr": "double(grams) / 1000.0", "scale": 0, "as": "int"},
    }
    decoder = reader(TEXTS, {"fields": fields})
    row = (b"1", b"", b"1500", None, None)
    [event] = through(TEXTS, Change(Op.CREATE, None, row), {"fields": fields})
    assert event.row == [b"1", b"1.5", b"3.307", b"2"]
    types = [decoder.schema.column(name).type.native for name in ("kg", "lb", "whole")]
    assert types == ["postgres numeric", "postgres numeric", "postgres integer"]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**15),
                   max_value=10**15))  # fmt: skip
def test_a_unit_there_and_back_is_the_same_number(number: Decimal) -> None:
    text = format(number, "f").encode()
    for there, back in (("kg->mg", "mg->kg"), ("in->cm", "cm->in"), ("GiB->B", "B->GiB")):
        converted = unit_converter(back)(unit_converter(there)(text) or b"")
        assert Decimal((converted or b"").decode()) == number


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12),
       st.integers(0, 6))  # fmt: skip
def test_rounding_moves_a_number_by_half_a_digit_at_most(number: Decimal, scale: int) -> None:
    text = rounded(scale)(format(number, "f").encode())
    assert text is not None
    assert abs(Decimal(text.decode()) - number) <= Decimal(5).scaleb(-scale - 1)
    assert len(text.decode().partition(".")[2]) == scale


def test_a_lookup_reads_csv_and_json(tmp_path: Path) -> None:
    table = tmp_path / "countries.csv"
    table.write_text('code,name,zone\nDE,Germany,eu\n"US","United States, the",us\n')
    named = {"file": str(table), "key": "code", "value": "zone"}
    plain = tmp_path / "c.json"
    plain.write_text('{"DE": 49, "US": 1}')
    objects = tmp_path / "o.json"
    objects.write_text('[{"k": "DE", "v": true}]')
    assert cell(b"US", lookup=str(table)) == b"United States, the"
    assert cell(b"DE", lookup=named) == b"eu"
    assert cell(b"DE", **{"lookup": str(plain), "as": "int"}) == b"49"
    assert cell(b"DE", lookup={"file": str(objects), "key": "k", "value": "v"}) == b"t"


def test_a_lookup_that_has_changed_is_read_anew_when_the_sink_begins_again(tmp_path: Path) -> None:
    table = tmp_path / "countries.csv"
    table.write_text("code,name\nDE,Germany\n")
    assert cell(b"DE", lookup=str(table)) == b"Germany"
    table.write_text("code,name\nDE,Deutschland\n")
    assert cell(b"DE", lookup=str(table)) == b"Deutschland"


def test_what_a_lookup_does_not_find_is_poison_or_the_default(tmp_path: Path) -> None:
    table = tmp_path / "countries.csv"
    table.write_text("code,name\nDE,Germany\n")
    event = field(b"XX", lookup=str(table))
    assert event.kind == POISON
    assert f"'XX' is not in {table}" in str(event.error)
    assert cell(b"XX", lookup=str(table), default="elsewhere") == b"elsewhere"
    assert cell(None, lookup=str(table)) is None
    assert cell(None, lookup=str(table), default="elsewhere") == b"elsewhere"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.csv", None, "No such file"),
        ("one.csv", "code\nDE\n", "fewer than two columns"),
        ("twice.csv", "code,name\nDE,a\nDE,b\n", "DE is there twice"),
        ("torn.json", '{"DE": ', "lookup"),
        ("list.json", "[]", "needs `key` and `value`"),
        ("short.csv", "a,b\nDE\n", "lookup"),
    ],
)
def test_a_lookup_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=says) as caught:
        field(b"DE", lookup=str(path))
    assert name in str(caught.value)


def test_a_default_stands_for_null_and_not_for_what_is_absent() -> None:
    assert cell(None, default="none") == b"none"
    assert cell(b"said", default="none") == b"said"
    mapping = {"fields": {"id": "id", "x": {"from": "note", "default": "none"}}}
    [event] = through(ORDERS, Change(Op.UPDATE, None, (b"1", ABSENT, None)), mapping)
    assert event.row == [b"1", ABSENT]


def test_rest_takes_every_column_that_no_field_takes() -> None:
    mapping = {"rest": True, "fields": {"client": "said", "kg": {"from": "grams", "unit": "g->kg"}}}
    names = [column.name for column in reader(TEXTS, mapping).schema.columns]
    assert names == ["id", "attrs", "secret", "client", "kg"]
    replaced = {"rest": True, "fields": {"said": {"expr": "said.lowerAscii()"}}}
    names = [column.name for column in reader(TEXTS, replaced).schema.columns]
    assert names == ["id", "grams", "attrs", "secret", "said"]


def test_columns_are_renamed_dropped_and_flattened() -> None:
    mapping = {
        "rename": {"id": "text_id", "said": "words"},
        "drop": ["sec*", "grams"],
        "flatten": {"attrs": ["sku", "size.w"]},
    }
    row = (b"1", b"a", b"1", b'{"sku": "A1", "size": {"w": 2}}', b"hidden")
    [event] = through(TEXTS, Change(Op.CREATE, None, row), mapping)
    assert event.schema is not None
    names = [column.name for column in event.schema.columns]
    assert names == ["text_id", "words", "attrs_sku", "attrs_size_w"]
    assert event.row == [b"1", b"a", b"A1", b"2"]
    assert event.schema.key == ("text_id",)


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"rename": {"nothing": "x"}}, "rename: the topic has no column 'nothing'"),
        ({"flatten": {"nothing": ["x"]}}, "flatten: the topic has no column 'nothing'"),
        ({"rename": {"said": "secret"}}, "two columns would be called secret"),
        ({"drop": ["id"]}, "key column id is not mapped"),
    ],
)
def test_a_choice_of_columns_that_cannot_be_says_where(mapping: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        reader(TEXTS, mapping)
    assert caught.value.hint


FUNCTIONS = """
import decimal

def label(said, grams, amount=None):
    assert amount is None or isinstance(amount, decimal.Decimal)
    return None if said is None else f"{said}:{grams}"

def broken(said):
    raise ValueError("no such thing")

answer = 42
"""


@pytest.fixture
def shop_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the folder the worker was started in."""
    name = f"shop_rules_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    return name


def called(function: str, of: list[str], said: Cell = b"a", **options: Any) -> Event:
    row = (b"1", said, b"1500", None, None)
    mapping = {"fields": {"id": "id", "x": {"python": function, "of": of, **options}}}
    [event] = through(TEXTS, Change(Op.UPDATE, None, row), mapping)
    return event


def test_a_python_function_makes_a_column_of_others(shop_rules: str) -> None:
    text = {"as": "text"}
    event = called(f"{shop_rules}:label", ["said", "grams"], **text)
    assert event.row == [b"1", b"a:1500"]
    assert called(f"{shop_rules}:label", ["said", "grams"], None, **text).row == [b"1", None]
    assert called(f"{shop_rules}:label", ["said"], ABSENT, **text).row == [b"1", ABSENT]
    assert called("math:floor", ["grams"], **{"as": "bigint"}).row == [b"1", b"1500"]


def test_what_a_python_function_raises_refuses_the_row(shop_rules: str) -> None:
    event = called(f"{shop_rules}:broken", ["said"], **{"as": "text"})
    assert event.kind == POISON
    assert f"{shop_rules}:broken: ValueError: no such thing" in str(event.error)
    event = called(f"{shop_rules}:label", ["said", "grams"], ABSENT, **{"as": "text"})
    assert event.kind == POISON
    assert "needs said" in str(event.error)


@pytest.mark.parametrize(
    ("function", "of", "says"),
    [
        ("{}:nothing", ["said"], "cannot be imported: AttributeError"),
        ("nowhere_at_all:f", ["said"], "cannot be imported: ModuleNotFoundError"),
        ("{}:answer", ["said"], "is no function"),
        ("{}:label", ["nothing"], "the topic has no column nothing"),
    ],
)
def test_a_python_function_that_is_not_there_stops_at_the_schema(
    shop_rules: str, function: str, of: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        called(function.format(shop_rules), of, **{"as": "text"})
    assert "fields.x.python" in str(caught.value)


@pytest.mark.parametrize(
    "field",
    [
        {"python": "/tmp/rules.py:f", "of": ["said"]},
        {"python": "rules", "of": ["said"]},
        {"python": "rules:f.g", "of": ["said"]},
        {"python": "rules:f"},
        {"from": "said", "of": ["said"]},
    ],
)
def test_reading_a_pipeline_file_imports_nothing_and_refuses_other_names(
    field: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError):
        TableMap.model_validate({"fields": {"x": field}})
    fine = {"python": "nowhere_at_all:f", "of": ["said"], "as": "text"}
    assert TableMap.model_validate({"fields": {"x": fine}})
