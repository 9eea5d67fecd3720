"""The compiled reader gives what the plain one would, for every record, whole or torn."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_strategies import VALUES, rows, tables
from schemas.avro import envelope_schema
from schemas.change import ABSENT, Cell, Change, Op, Origin, Row, Rows
from schemas.executor import SWITCH
from schemas.plan import Plan, SourceName
from schemas.table import Column, TableId, TableSchema, Type
from sinks.binding import MappedTable
from sinks.decode import DELETE, POISON, UPSERT, Decoder, Event
from sinks.lines import Read, line_reader
from sinks.mapping import TableMap
from sinks.sql import cells_of, line_of

TOPIC = "shop.public.orders"
NO_MESSAGE: Any = None
ALL_TYPES = TableSchema(
    TableId("public", "orders"),
    (
        Column("id", Type("int64")),
        Column("amount", Type("decimal", "", 12, 2)),
        *(Column(logical, Type(logical)) for logical in VALUES),
    ),
    ("id",),
)


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "compiled")


def readers(table: TableSchema, mapping: TableMap) -> tuple[Read, Read]:
    """Return the plain reader and the one that is used where there is a compiler."""
    envelope = envelope_schema(table, TOPIC)
    bound = MappedTable.bind(table, TOPIC, mapping)
    decoder = Decoder(envelope, bound)
    return decoder.read, line_reader(envelope, bound, decoder)


def values(table: TableSchema, change: Change, *, snapshot: bool = False) -> list[bytes]:
    """Return the payloads a plan writes for one change."""
    plan = Plan(table, table, SourceName("1", "test", "shop"), (1, 2))
    origin = Origin(3, 77, 1_700_000_000_000_000, "812", snapshot=snapshot)
    records = plan.records(Rows(table, "changes", origin, [change], [5]), 0)
    return [record.value for record in records if record.value is not None]


def seen(event: Event) -> tuple[Any, ...]:
    """Return all an event says, a row as its line where it has one."""
    row: Any = event.row
    if event.line is not None:
        row = event.line
    elif row is not None and ABSENT not in row:
        row = line_of(row)
    facts = (event.kind, event.schema, event.stamp, event.snapshot, event.size, event.ts_ms)
    return (*facts, event.created, event.key, event.old, row, str(event.error))


@st.composite
def changes(draw: st.DrawFn, table: TableSchema) -> Change:
    op = draw(st.sampled_from([Op.CREATE, Op.READ, Op.UPDATE, Op.DELETE, Op.TRUNCATE]))
    some = rows(table, absent=op in (Op.UPDATE, Op.DELETE))
    before: Row | None = draw(some) if op in (Op.UPDATE, Op.DELETE) else None
    after = None if op in (Op.DELETE, Op.TRUNCATE) else draw(some)
    if op is Op.UPDATE and draw(st.booleans()):
        before = None
    return Change(op, before, after)


@st.composite
def mappings(draw: st.DrawFn, table: TableSchema) -> TableMap:
    """All columns as they are, or some of them in another order with constants between."""
    if draw(st.booleans()):
        return TableMap()
    names = [column.name for column in table.columns]
    chosen = [n for n in draw(st.permutations(names)) if n in table.key or draw(st.booleans())]
    fields: dict[str, Any] = {f"of {name}": {"from": name} for name in chosen}
    fields["const"] = {"value": draw(st.sampled_from(["a\tb\\", 7, None, True]))}
    if draw(st.booleans()) and names:
        fields["cast"] = {"from": draw(st.sampled_from(names)), "as": "text"}
    return TableMap.model_validate({"fields": fields})


@given(st.data())
def test_the_compiled_reader_reads_what_the_plain_one_does(data: st.DataObject) -> None:
    table = data.draw(tables())
    plain, compiled = readers(table, data.draw(mappings(table)))
    change = data.draw(changes(table))
    try:
        payloads = values(table, change, snapshot=data.draw(st.booleans()))
    except ValueError:  # a key whose text has no Avro form: it never gets to a sink
        return
    for payload in payloads:
        assert seen(compiled(NO_MESSAGE, payload)) == seen(plain(NO_MESSAGE, payload))


@given(st.data())
def test_a_damaged_payload_is_judged_as_by_the_plain_reader(data: st.DataObject) -> None:
    plain, compiled = readers(ALL_TYPES, TableMap())
    change = data.draw(changes(ALL_TYPES))
    payload = bytearray(data.draw(st.sampled_from(values(ALL_TYPES, change))))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(5, len(payload) - 1))] = data.draw(st.integers(0, 255))
    torn = bytes(payload[: data.draw(st.integers(5, len(payload)))])
    for damaged in (torn, bytes(payload)):
        judged = seen(plain(NO_MESSAGE, damaged))
        assert seen(compiled(NO_MESSAGE, damaged)) == judged
        assert " at 0x" not in str(judged)


@given(st.data())
def test_a_whole_row_of_usual_types_is_a_line(data: st.DataObject) -> None:
    _, compiled = readers(ALL_TYPES, TableMap())
    row = [b"1", b"-0.05", *(data.draw(VALUES[logical]) for logical in VALUES)]
    [payload] = values(ALL_TYPES, Change(Op.CREATE, None, row))
    event = compiled(NO_MESSAGE, payload)
    assert event.kind == UPSERT
    assert event.line is not None
    assert cells_of(event.line) == row


def test_a_delete_is_read_from_the_key_alone() -> None:
    _, compiled = readers(ALL_TYPES, TableMap())
    row: list[Cell] = [b"1", *[ABSENT] * (len(ALL_TYPES.columns) - 1)]
    [payload] = values(ALL_TYPES, Change(Op.DELETE, row, None))
    event = compiled(NO_MESSAGE, payload)
    assert (event.kind, event.key, event.row, event.line) == (DELETE, (b"1",), None, None)


def test_an_absent_value_is_left_to_the_plain_reader() -> None:
    _, compiled = readers(ALL_TYPES, TableMap())
    row: list[Cell] = [b"1", *[ABSENT] * (len(ALL_TYPES.columns) - 1)]
    [payload] = values(ALL_TYPES, Change(Op.UPDATE, None, row))
    event = compiled(NO_MESSAGE, payload)
    assert event.row == row
    assert event.line is None


def test_an_envelope_of_another_shape_is_left_to_the_plain_reader() -> None:
    envelope = envelope_schema(ALL_TYPES, TOPIC)
    envelope["fields"].insert(2, {"name": "more", "type": "string"})
    bound = MappedTable.bind(ALL_TYPES, TOPIC, TableMap())
    decoder = Decoder(envelope, bound)
    assert line_reader(envelope, bound, decoder) == decoder.read


@pytest.mark.parametrize(
    "mapping",
    [
        {},
        {"fields": {"key": "id", "text": {"from": "string"}, "tenant": {"value": "acme"}}},
        {"rename": {"id": "number"}, "drop": ["json"], "rest": True},
    ],
)
def test_a_mapping_that_copies_columns_is_read_by_the_compiled_reader(
    mapping: dict[str, Any],
) -> None:
    plain, compiled = readers(ALL_TYPES, TableMap.model_validate(mapping))
    assert compiled != plain
    assert type(compiled.__self__).__name__ == "LineReader"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "mapping",
    [
        {"where": "id > 1"},
        {"fields": {"id": "id", "x": {"expr": "id + 1"}}},
        {"fields": {"id": "id", "x": {"from": "string", "default": ""}}},
        {"fields": {"id": "id", "x": {"from": "int32", "unit": "g->kg"}}},
        {"rules": [{"field": "string", "required": True}]},
        {"soft_delete": "gone_at"},
        {"mode": "append"},
        {"mode": "history"},
    ],
)
def test_a_mapping_that_computes_or_chooses_is_read_by_the_plain_reader(
    mapping: dict[str, Any],
) -> None:
    plain, compiled = readers(ALL_TYPES, TableMap.model_validate(mapping))
    assert compiled == plain


def test_without_the_compiled_executor_the_plain_reader_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SWITCH, "plain")
    envelope = envelope_schema(ALL_TYPES, TOPIC)
    bound = MappedTable.bind(ALL_TYPES, TOPIC, TableMap())
    decoder = Decoder(envelope, bound)
    assert line_reader(envelope, bound, decoder) == decoder.read


def test_text_in_a_column_of_another_type_cannot_end_its_line() -> None:
    mapping = TableMap.model_validate(
        {"fields": {"id": "id", "number": {"from": "string", "as": "float"}}}
    )
    for read in readers(ALL_TYPES, mapping):
        row = [b"1", *[None] * (len(ALL_TYPES.columns) - 1)]
        row[ALL_TYPES.columns.index(ALL_TYPES.column("string"))] = b"1\n0\t1\t2\t3"
        [payload] = values(ALL_TYPES, Change(Op.CREATE, None, row))
        event = read(NO_MESSAGE, payload)
        assert event.kind != POISON
        line = event.line if event.line is not None else line_of(event.row or ())
        assert b"\n" not in line
        assert cells_of(line) == [b"1", b"1\n0\t1\t2\t3"]
