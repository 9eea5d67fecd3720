"""CEL in a mapping: computed columns and filters, their types, NULL, absent values, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.config import InvalidPipeline, parse_pipeline
from cdc.errors import ConfigError
from mapped import ORDERS, TOPIC, reader, through
from schemas.change import ABSENT, Cell, Change, Op
from schemas.table import Column, TableId, TableSchema, Type
from sinks.binding import MappedTable
from sinks.cast import CASTS
from sinks.debezium_table import BoundTable
from sinks.decode import DELETE, POISON, SKIP, UPSERT, Event
from sinks.expression import Expression
from sinks.mapping import TableMap

WIDE = TableSchema(
    TableId("public", "wide"),
    (
        Column("id", Type("int64")),
        Column("flag", Type("boolean")),
        Column("rate", Type("float64")),
        Column("exact", Type("decimal", "", 30, 2)),
        Column("free", Type("text", "postgres numeric")),
        Column("day", Type("date")),
        Column("at", Type("timestamptz")),
        Column("local", Type("timestamp")),
        Column("raw", Type("bytes")),
        Column("attrs", Type("json")),
        Column("name", Type("string")),
        Column("total amount", Type("int32")),
        Column("package", Type("int16")),
        Column("many", Type("text", "postgres numeric[]")),
    ),
    ("id",),
)
ROW: tuple[bytes, ...] = (
    b"7",
    b"t",
    b"1.5",
    b"12.50",
    b"2.25",
    b"2026-01-31",
    b"2026-01-31 08:00:00.25+00",
    b"2026-01-31 08:00:00",
    b"\\x00ff",
    b'{"sku": "A1", "sizes": [1, 2]}',
    b"Ada",
    b"40",
    b"2",
    b"{1,2}",
)


def computed(expr: str, as_: str | None = None, row: tuple[Cell, ...] = ROW) -> Event:
    """The event of a created row with one computed column beside its key."""
    field = {"expr": expr, **({"as": as_} if as_ else {})}
    [event] = through(WIDE, Change(Op.CREATE, None, row), {"fields": {"id": "id", "x": field}})
    return event


def cell(expr: str, as_: str | None = None) -> Any:
    event = computed(expr, as_)
    assert event.error is None, event.error
    assert event.row is not None
    return event.row[1]


@pytest.mark.parametrize(
    ("expr", "kind", "wanted"),
    [
        ("id + 1", "bigint", b"8"),
        ("!flag", "bool", b"f"),
        ("rate * 2.0", "float", b"3"),
        ("many", "text", b"{1,2}"),
        ("exact + free", "float", b"14.75"),
        ("name + '!'", "text", b"Ada!"),
        ("at + duration('1h')", "timestamptz", b"2026-01-31 09:00:00.25+00"),
        ("local", "timestamptz", b"2026-01-31 08:00:00+00"),
        ("day.getFullYear()", "bigint", b"2026"),
        ("raw", "bytes", b"\\x00ff"),
        ("[id, id + 1]", "json", b"[7,8]"),
        ("name.lowerAscii().substring(1)", "text", b"da"),
        ("math.greatest(id, 3)", "bigint", b"7"),
        ("total_u20_amount + package_", "bigint", b"42"),
        ("[1, 2].map(x, x + id)", "json", b"[8,9]"),
        ("name == 'Ada' ? 'yes' : 'no'", "text", b"yes"),
    ],
)
def test_an_expression_has_the_type_and_the_text_of_its_result(
    expr: str, kind: str, wanted: bytes
) -> None:
    table = reader(WIDE, {"fields": {"id": "id", "x": {"expr": expr}}}).schema
    assert table.column("x").type == CASTS[kind]
    assert cell(expr) == wanted


@pytest.mark.parametrize(
    ("expr", "as_", "wanted"),
    [
        ("rate * 2.0", "bigint", b"3"),
        ("at", "date", b"2026-01-31"),
        ("day", "timestamp", b"2026-01-31 00:00:00"),
        ("id", "text", b"7"),
        ("flag", "text", b"true"),
        ("attrs.sku", "text", b"A1"),
        ("attrs.sizes[1]", "int", b"2"),
        ("attrs", "json", b'{"sizes":[1,2],"sku":"A1"}'),
    ],
)
def test_a_result_is_cast(expr: str, as_: str, wanted: bytes) -> None:
    assert cell(expr, as_) == wanted


@given(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_characters="\0")))
def test_integers_and_texts_pass_through_an_expression_unchanged(number: int, text: str) -> None:
    try:
        encoded = text.encode()
    except UnicodeEncodeError:  # a lone surrogate is no text of a database
        return
    columns = [Column("a", Type("int64")), Column("b", Type("string"))]
    cells = {"a": b"%d" % number, "b": encoded}
    assert Expression("a", "x", columns).value(cells) == number
    assert Expression("b", "x", columns).value(cells) == text


def test_null_is_null_and_arithmetic_with_it_refuses_the_row() -> None:
    row = (ROW[0], *[None] * (len(ROW) - 1))
    assert computed("name == null ? 'none' : name", row=row).row == [b"7", b"none"]
    assert computed("name", "text", row=row).row == [b"7", None]
    refused = computed("rate * 2.0", row=row)
    assert refused.kind == POISON
    assert "`rate * 2.0`" in str(refused.error)
    said = "`name.trim()`: Function 'trim' error: null has no attribute 'strip'"
    assert str(computed("name.trim()", row=row).error).endswith(said)


def test_a_result_is_absent_where_nothing_it_reads_was_sent() -> None:
    mapping = {
        "fields": {
            "id": "id",
            "x": {"expr": "note + '!'"},
            "y": {"expr": "id > 0 || note == 'a'"},
            "z": {"expr": "amount"},
        }
    }
    [event] = through(ORDERS, Change(Op.UPDATE, None, (b"1", ABSENT, b"2.00")), mapping)
    assert event.row == [b"1", ABSENT, b"t", b"2"]
    mapping["fields"]["x"] = {"expr": "note + string(id)"}
    [event] = through(ORDERS, Change(Op.UPDATE, None, (b"1", ABSENT, b"2.00")), mapping)
    assert event.kind == POISON
    assert event.error is not None
    assert "needs note" in str(event.error)
    assert "REPLICA IDENTITY FULL" in event.error.hint


@pytest.mark.parametrize(
    ("expr", "row", "says"),
    [
        ("exact", (b"7", b"t", b"1", b"1234567890123456789012345.67"), "more digits"),
        ("1 / (id - 7)", ROW, "division by zero"),
        ("attrs.nothing", ROW, "there is no 'nothing'"),
        ("at > local", (*ROW[:6], b"infinity", *ROW[7:]), "outside the years"),
    ],
)
def test_a_row_that_an_expression_fails_for_is_poison_with_expression_and_reason(
    expr: str, row: tuple[Cell, ...], says: str
) -> None:
    whole = (*row, *ROW[len(row) :])
    event = computed(expr, "text", whole)
    assert event.kind == POISON
    assert event.schema is not None
    assert str(event.schema.table) == "public.wide"
    assert f"tables.{TOPIC}.fields.x.expr: `{expr}`" in str(event.error)
    assert says in str(event.error)


@pytest.mark.parametrize(
    ("expr", "says"),
    [
        ("nothing + 1", "names nothing, which is no column"),
        ("id + name", "cannot be"),
        ("id + 1.0", "cannot be"),
        ("unknown(id)", "'unknown'"),
        ("attrs.sku", "nobody can tell the type"),
    ],
)
def test_an_expression_that_can_never_be_stops_at_the_schema_with_its_path(
    expr: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        computed(expr)
    assert f"tables.{TOPIC}.fields.x.expr" in str(caught.value)
    assert caught.value.hint


def test_a_filter_that_is_no_condition_stops_at_the_schema() -> None:
    with pytest.raises(ConfigError, match=r"tables\.shop\.public\.orders\.where: .* not true"):
        reader(ORDERS, {"where": "id + 1"})
    keyless = TableSchema(ORDERS.table, ORDERS.columns)
    with pytest.raises(ConfigError, match="a table without a key cannot be filtered"):
        reader(keyless, {"where": "id > 1"})


def test_an_expression_that_does_not_parse_is_named_with_its_line_in_the_file() -> None:
    text = """pipeline: shop
kafka: {bootstrap: "h:1", registry: "http://r:1"}
sinks:
  crm:
    type: postgres
    url: postgresql://x/y
    tables:
      shop.public.orders:
        where: id >
        fields:
          id: id
          x: {expr: "note +* 1"}
"""
    with pytest.raises(InvalidPipeline) as caught:
        parse_pipeline(text, Path("t.yaml"), {})
    told = [(problem.line, problem.path) for problem in caught.value.problems]
    place = "sinks.crm.tables.shop.public.orders"
    assert told == [(9, f"{place}.where"), (12, f"{place}.fields.x.expr")]
    assert "`note +* 1` is no CEL expression at line 1, column 7" in str(caught.value)


PAID = {"where": "note == 'paid'"}


@pytest.mark.parametrize("op", [Op.CREATE, Op.READ, Op.UPDATE])
def test_a_row_outside_the_filter_is_deleted_whatever_happened_to_it(op: Op) -> None:
    [event] = through(ORDERS, Change(op, None, (b"1", b"open", None)), PAID)
    assert (event.kind, event.key, event.row) == (DELETE, (b"1",), None)
    [event] = through(ORDERS, Change(op, None, (b"1", b"paid", None)), PAID)
    assert (event.kind, event.row) == (UPSERT, [b"1", b"paid", None])


def test_a_delete_needs_no_filter() -> None:
    [event] = through(ORDERS, Change(Op.DELETE, (b"1", ABSENT, ABSENT), None), PAID)
    assert (event.kind, event.key) == (DELETE, (b"1",))
    [event] = through(ORDERS, Change(Op.TRUNCATE), PAID)
    assert event.kind not in (DELETE, SKIP, POISON)


def test_a_row_that_leaves_the_filter_is_deleted_under_its_old_key() -> None:
    mapping = {**PAID, "key": ["amount"]}
    change = Change(Op.UPDATE, (b"1", b"paid", b"5.00"), (b"1", b"open", b"6.00"))
    [event] = through(ORDERS, change, mapping)
    assert (event.kind, event.key) == (DELETE, (b"5.00",))


def test_a_filter_that_cannot_be_judged_refuses_the_row() -> None:
    [event] = through(ORDERS, Change(Op.UPDATE, None, (b"1", ABSENT, None)), PAID)
    assert event.kind == POISON
    assert "needs note" in str(event.error)
    [event] = through(ORDERS, Change(Op.CREATE, None, (b"1", None, None)), {"where": "note > 'a'"})
    assert event.kind == POISON


def test_a_mapping_that_computes_is_refused_for_topics_that_debezium_wrote() -> None:
    bound = MappedTable.bind(ORDERS, TOPIC, TableMap.model_validate(PAID))
    with pytest.raises(ConfigError, match="topics that Debezium wrote"):
        BoundTable(bound, {}, {}, closed=False)
