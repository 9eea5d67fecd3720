"""Both executors write the same bytes, and refuse the same rows with the same words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasty_values import VALUES as NASTY
from schema_strategies import rows, tables, texts, types
from schemas import executor
from schemas.change import ABSENT, Cell, Form, Origin, Rows
from schemas.errors import ConfigError
from schemas.forms import copy_line
from schemas.plan import Plan, SourceName
from schemas.table import Column, TableId, TableSchema, Type

SOURCE = SourceName("0.1.0", "postgres", "shop", "shopdb")
ORIGIN = Origin(3, 0x16B374D8, 1_700_000_000_123_456, "742")
NOW = 1_700_000_000_999
ORDERS = TableSchema(
    TableId("public", "orders"),
    (
        Column("id", Type("int64")),
        Column("total", Type("decimal", precision=10, scale=2)),
        Column("note", Type("string")),
        Column("at", Type("timestamptz")),
    ),
    ("id",),
)


def plan_of(table: TableSchema) -> Plan:
    return Plan(table, table, SOURCE, (7 if table.key else None, 70_000))


def outcome(write: Any) -> Any:
    """What was written, or what it was refused with."""
    try:
        return write()
    except ValueError as error:
        return type(error), str(error)


def assert_same(
    table: TableSchema, form: Form, items: list[bytes], plan: Plan | None = None
) -> Any:
    """Run both executors; return what they made of the items."""
    plan = plan or plan_of(table)
    assert form in plan._writers, "not built: make compile"
    run = Rows(table, form, ORIGIN, items, range(70, 70 + len(items)))
    sizes: list[int] = []

    def compiled() -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        sizes.append(plan.write(run, NOW, out))
        return out

    def plain() -> list[dict[str, Any]]:
        return [{"key": key, "value": value} for key, value in plan.records(run, NOW)]

    found = outcome(compiled)
    assert found == outcome(plain)
    if sizes:
        assert sizes == [sum(len(message["value"] or b"") for message in found)]
    return found


def tuple_data(cells: Sequence[Cell]) -> bytes:
    out = len(cells).to_bytes(2, "big")
    for cell in cells:
        if cell is None:
            out += b"n"
        elif cell is ABSENT:
            out += b"u"
        else:
            out += b"t" + len(cell).to_bytes(4, "big") + cell
    return out


@st.composite
def messages(draw: st.DrawFn, table: TableSchema) -> bytes:
    new, old = (tuple_data(draw(rows(table, absent=True))) for _ in range(2))
    if draw(st.booleans()):
        old = new
    forms = [b"IN" + new, b"UN" + new, b"UK" + old + b"N" + new, b"UO" + old + b"N" + new]
    return draw(st.sampled_from([*forms, b"DK" + old, b"DO" + old, b"T"]))


@settings(max_examples=200)
@given(st.data())
def test_a_run_of_pgoutput_is_the_same_to_the_byte(data: st.DataObject) -> None:
    table = data.draw(tables())
    assert_same(table, "pgoutput", data.draw(st.lists(messages(table), max_size=4)))


@settings(max_examples=100)
@given(st.data())
def test_a_run_of_copy_lines_is_the_same_to_the_byte(data: st.DataObject) -> None:
    table = data.draw(tables())
    some = data.draw(st.lists(rows(table), max_size=4))
    lines = [copy_line([c if isinstance(c, bytes) else None for c in row])[:-1] for row in some]
    assert_same(table, "copy", lines)


ODD = st.text("0123456789.-+:eE \\xabNaTfinBC_,\u00e9\u0660", max_size=32).map(str.encode)
EDGES = st.sampled_from(
    [b"", b"-", b".", b"-.5", b"1.", b"+1", b" 1", b"1_0", b"007", b"-0", b"-0.00"]
)


@st.composite
def nearly(draw: st.DrawFn, kind: Type) -> bytes:
    """A text of the type with one byte cut, added or replaced."""
    text = draw(texts(kind))
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.binary(max_size=1)) + text[at + draw(st.integers(0, 1)) :]


@settings(max_examples=1_000)
@given(st.data())
def test_a_text_that_is_no_value_of_its_type_ends_the_same(data: st.DataObject) -> None:
    kind = data.draw(types())
    table = TableSchema(ORDERS.table, (Column("a", kind), Column("b", kind)), ("a",))
    cells = [data.draw(texts(kind)), data.draw(nearly(kind) | ODD | EDGES | st.binary(max_size=12))]
    assert_same(table, "pgoutput", [b"IN" + tuple_data(cells)])


def test_every_nasty_value_is_the_same_under_every_type() -> None:
    values = [text.encode() for some in NASTY.values() for text in some]
    for logical in sorted(plan_kinds()):
        kind = Type(logical, precision=20, scale=4) if logical == "decimal" else Type(logical)
        table = TableSchema(ORDERS.table, (Column("id", Type("int64")), Column("v", kind)), ("id",))
        plan = plan_of(table)
        for value in values:
            assert_same(table, "pgoutput", [b"IN" + tuple_data([b"1", value])], plan)


def plan_kinds() -> set[str]:
    from schemas._plan import KINDS
    from schemas.types import LOGICAL

    assert KINDS.keys() - LOGICAL.keys() == {"raw"}
    return set(LOGICAL)


ROW = tuple_data([b"17", b"12.50", "Grüße".encode(), b"2026-02-03 04:05:06.789+00"])
WHOLE = [b"IN" + ROW, b"UN" + ROW, b"UK" + ROW + b"N" + ROW, b"UO" + ROW + b"N" + ROW, b"DK" + ROW]
LINE = b"17\t12.50\tx\\ty\t2026-02-03 04:05:06.789+00"
ORDERS_PLAN = plan_of(ORDERS)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Cut short, or a few bytes of it replaced."""
    data = bytearray(whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole)
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@settings(max_examples=1_500)
@given(st.sampled_from(WHOLE).flatmap(damaged) | st.binary(max_size=60))
def test_a_damaged_message_is_refused_alike_and_never_worse(item: bytes) -> None:
    assert_same(ORDERS, "pgoutput", [item], ORDERS_PLAN)


@settings(max_examples=1_000)
@given(damaged(LINE) | st.binary(max_size=60))
def test_a_damaged_line_is_refused_alike_and_never_worse(item: bytes) -> None:
    assert_same(ORDERS, "copy", [item], ORDERS_PLAN)


def test_a_length_beyond_the_message_is_refused() -> None:
    for claimed in (2, 0x7FFFFFFF, 0xFFFFFFFF):
        item = b"IN\x00\x04t" + claimed.to_bytes(4, "big") + b"1"
        kind, _ = assert_same(ORDERS, "pgoutput", [item])
        assert kind is ValueError


def test_a_masked_column_goes_through_its_mask() -> None:
    hidden = TableSchema(ORDERS.table, (ORDERS.columns[0], Column("note", Type("string"))), ("id",))
    plan = Plan(ORDERS, hidden, SOURCE, (7, 8), {"note": lambda cell: cell[:1] + b"***"})
    [message] = assert_same(ORDERS, "pgoutput", [b"IN" + ROW], plan)
    assert b"G***" in message["value"]
    assert b"12.50" not in message["value"]


def test_ordinals_that_do_not_fit_their_items_are_refused() -> None:
    for form, item in (("pgoutput", b"IN" + ROW), ("copy", LINE)):
        with pytest.raises(ValueError, match="zip"):
            ORDERS_PLAN.write(Rows(ORDERS, form, ORIGIN, [item], ()), NOW, [])


def test_a_value_of_megabytes_does_not_stay_in_memory_and_is_the_same() -> None:
    long = b"x" * 3_000_000
    row = tuple_data([b"17", b"12.50", long, None])
    [message] = assert_same(ORDERS, "pgoutput", [b"IN" + row])
    assert long in message["value"]


def test_the_environment_chooses_the_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(executor.SWITCH, "plain")
    assert plan_of(ORDERS)._writers == {}
    monkeypatch.setenv(executor.SWITCH, "compiled")
    assert plan_of(ORDERS)._writers
    monkeypatch.setenv(executor.SWITCH, "fast")
    with pytest.raises(ConfigError, match="auto, plain and compiled"):
        plan_of(ORDERS)


def test_an_executor_that_is_demanded_and_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert executor.compiled("schemas._missing") is None
    monkeypatch.setenv(executor.SWITCH, "compiled")
    with pytest.raises(ConfigError, match="no compiled executor") as raised:
        executor.compiled("schemas._missing")
    assert "make compile" in raised.value.hint
