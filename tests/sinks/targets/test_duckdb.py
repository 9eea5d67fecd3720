"""DuckDB keeps the contract of a transactional target, in real files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from cdc.config import parse_pipeline
from cdc.errors import PreflightFailed, SchemaIncompatible, StateError
from fix_duckdb import DuckFile
from schemas.change import ABSENT, Cell
from schemas.table import Column, TableId, TableSchema, Type
from schemas.types import LOGICAL
from sinks.sql import line_of
from sinks.target import Mapped, RowsRefused
from sinks.targets.duckdb import Config, DuckdbTarget
from sinks.testing import TargetContract, span, upsert
from sinks.testing_processes import ProcessContract

ID = Column("id", Type("int64", "postgres bigint"))
NAME = Column("name", Type("string", "postgres text"))


@pytest.fixture
def system(duckdb_file: DuckFile) -> DuckFile:
    return duckdb_file


class TestDuckdb(TargetContract, ProcessContract):
    """The suites, on a file of its own each time."""


def table_of(*columns: Column, name: str = "things", key: tuple[str, ...] = ("id",)) -> TableSchema:
    return TableSchema(TableId("public", name), columns, key)


THINGS = table_of(ID, NAME)


def applied(target: DuckdbTarget, schema: TableSchema, *rows: Sequence[Cell], at: int = 0) -> None:
    target.apply(upsert(*rows, schema=schema), [span(at or None, at + 1)])


# Values

VALUES: dict[str, tuple[Type, str, dict[bytes, str]]] = {
    "boolean": (Type("boolean"), "BOOLEAN", {b"t": "true", b"f": "false"}),
    "int16": (Type("int16"), "SMALLINT", {b"-32768": "-32768"}),
    "int32": (Type("int32"), "INTEGER", {b"2147483647": "2147483647"}),
    "int64": (Type("int64"), "BIGINT", {b"-9223372036854775808": "-9223372036854775808"}),
    "float32": (Type("float32"), "FLOAT", {b"0.1": "0.1", b"NaN": "nan", b"1e-45": "1e-45"}),
    "float64": (
        Type("float64"),
        "DOUBLE",
        {b"0.30000000000000004": "0.30000000000000004", b"-Infinity": "-inf", b"-0": "-0.0"},
    ),
    "decimal": (
        Type("decimal", "", 30, 10),
        "DECIMAL(30,10)",
        {b"12345678901234567890.0000000001": ..., b"-0.5": "-0.5000000000"},
    ),
    "date": (
        Type("date"),
        "DATE",
        {b"2026-01-31": ..., b"infinity": ..., b"0044-03-15 BC": "0044-03-15 (BC)"},
    ),
    "time": (Type("time"), "TIME", {b"23:59:59.999999": ..., b"24:00:00": ...}),
    "timestamp": (
        Type("timestamp"),
        "TIMESTAMP",
        {b"2026-01-31 08:00:00.5": ..., b"0044-03-15 08:00:00 BC": "0044-03-15 (BC) 08:00:00"},
    ),
    "timestamptz": (
        Type("timestamptz"),
        "TIMESTAMP WITH TIME ZONE",
        {b"2026-01-31 08:00:00.5+00": ..., b"-infinity": ..., b"10000-01-01 00:00:00+00": ...},
    ),
    "bytes": (Type("bytes"), "BLOB", {b"\\x00ff0a": r"\x00\xFF\x0A", b"\\x": ""}),
    "uuid": (Type("uuid"), "UUID", {b"0e37df36-f698-11e6-8dd4-cb9ced3df976": ...}),
    "string": (
        Type("string"),
        "VARCHAR",
        {b"007": ..., b"": ..., b"\\N": ..., b"a\\\\n\\\n\t\r\b\f\v\\": ..., b"nul \x00": ...},
    ),
    "json": (Type("json"), "JSON", {b'{"a": 1.10, "a": "\\n"}': ..., b"1e400": ...}),
    "enum": (Type("enum", labels=("1", "2")), "VARCHAR", {b"1": ...}),
    "text": (Type("text", "postgres numeric"), "VARCHAR", {b"1" + b"0" * 100: ..., b"NaN": ...}),
}
"""Logical type → a type, its column, and by the text that travels what it is as text there."""


def test_each_logical_type_has_a_case_and_a_line_on_the_page() -> None:
    page = Path("sinks/targets/duckdb.md").read_text("utf-8")
    assert VALUES.keys() == LOGICAL.keys()
    assert [name for name in LOGICAL if f"`{name}`" not in page] == []


def test_the_pipeline_on_the_page_is_valid() -> None:
    found = re.search(r"```yaml\n(.*?)```", Path("sinks/targets/duckdb.md").read_text(), re.DOTALL)
    assert found is not None
    pipeline = parse_pipeline(found[1], Path("duckdb.md"), {})
    assert isinstance(pipeline.sinks["lake"].config, Config)


def test_a_value_is_stored_in_the_form_its_type_states(system: DuckFile) -> None:
    target = system.open()
    found = {}
    for kind, (type_, _, values) in VALUES.items():
        schema = table_of(ID, Column("v", type_), name=kind)
        target.prepare(schema)
        rows = [(b"%d" % number, text) for number, text in enumerate(values)]
        lines = [line_of((b"%d" % (number + 10), text)) for number, text in enumerate(values)]
        target.apply([[Mapped(schema, [*rows, (b"99", None)], [], lines=[*lines, b"98\t\\N"])]], [])
        stored = f'SELECT v::VARCHAR, typeof(v) FROM "{kind}" ORDER BY id'
        found[kind] = system.query(stored)
    for kind, (_, column, values) in VALUES.items():
        wanted = [text.decode() if to is ... else to for text, to in values.items()]
        assert found[kind] == [(v, column) for v in [*wanted, *wanted, None, None]], kind


def test_a_value_that_is_none_of_its_type_is_refused_with_its_row_and_column(
    system: DuckFile,
) -> None:
    odd = {
        "int64": b"1.5", "int16": b"32768", "boolean": b"maybe", "float64": b"x", "bytes": b"hex",
        "int32": b"", "date": b"2026-02-30", "uuid": b"1", "json": b"{", "time": b"noon",
        "timestamp": b"294276-12-31 23:59:59", "decimal": b"1.555",
    }  # fmt: skip
    target = system.open()
    for kind, text in odd.items():
        schema = table_of(ID, Column("v", Type(kind, "", 12, 2)), name=kind)
        target.prepare(schema)
        lines = [b"1\t\\N", line_of((b"2", text))]
        with pytest.raises(RowsRefused, match=rf"{kind}\.v") as caught:
            target.apply([[Mapped(schema, [], [], lines=lines)]], [span(None, 1)])
        assert list(caught.value.rows) == [(schema.table, (b"2",))]
    assert system.query("SELECT count(*) FROM json") == [(0,)]


def test_a_decimal_of_more_digits_than_duckdb_has_is_text(system: DuckFile) -> None:
    schema = table_of(ID, Column("v", Type("decimal", "", 60, 2)))
    applied(system.open(schema), schema, (b"1", b"9" * 58 + b".10"))
    assert system.query("SELECT v FROM things") == [("9" * 58 + ".10",)]


# Tables


def test_a_table_lies_in_the_schema_it_is_mapped_to(system: DuckFile) -> None:
    names = {
        ("public", "orders"): ("main", "orders"),
        ("", "drafts"): ("main", "drafts"),
        ("crm", "clients"): ("crm", "clients"),
        ("shop", "items"): ("shop", "items"),  # as the file is called
    }
    target = system.open()
    for schema, table in names:
        target.prepare(TableSchema(TableId(schema, table), (ID,), ("id",)))
    made = (
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT prefix(table_name, 'tail')"
    )
    assert sorted(system.query(made)) == sorted(names.values())


def test_any_identifier_can_be_a_name(system: DuckFile) -> None:
    names = ['a"b', "100%s", "Ümlaut ü", "select", "x'; --", "a.b", "{}", "rowid"]
    columns = [Column(name, Type("string", "postgres text")) for name in names]
    schema = TableSchema(TableId('we"ird %s', "ta'ble {}"), tuple(columns), (names[0], names[1]))
    target = system.open(schema)
    cells = [name.encode() for name in names]
    applied(target, schema, cells)
    applied(target, schema, [*cells[:2], ABSENT, b"new", ABSENT, None, b"6", ABSENT], at=1)
    wanted = (*cells[:3], b"new", cells[4], None, b"6", cells[7])
    assert system.rows(schema.table) == [wanted]
    target.apply([[Mapped(schema, [], [tuple(cells[:2])])]], [span(2, 3)])
    assert system.rows(schema.table) == []


@pytest.mark.parametrize(
    ("schemas", "told"),
    [
        ([table_of(ID, name="Orders"), table_of(ID, name="orders")], "one table"),
        ([THINGS, TableSchema(TableId("main", "things"), (ID,), ("id",))], "one table"),
        ([table_of(ID, Column("ID", Type("string")))], "one to DuckDB"),
        ([table_of(ID, name="tailrace_cursors")], "DuckDB's own"),
    ],
)
def test_names_that_duckdb_does_not_tell_apart_stop_the_sink(
    system: DuckFile, schemas: list[TableSchema], told: str
) -> None:
    target = system.open(*schemas[:-1])
    with pytest.raises(SchemaIncompatible, match=told) as caught:
        target.prepare(schemas[-1])
    assert "`to:`" in caught.value.hint or "`fields:`" in caught.value.hint


UNFIT = {
    "CREATE TABLE Things (id BIGINT, name VARCHAR)": "does not tell from",
    "CREATE VIEW things AS SELECT 1 AS id, 'x' AS name": "view",
    "CREATE TABLE things (id BIGINT, name VARCHAR COLLATE NOCASE)": "collation",
    "CREATE TABLE things (id BIGINT PRIMARY KEY, name VARCHAR); "
    "CREATE TABLE others (of BIGINT REFERENCES things(id))": "foreign keys",
}


def test_a_table_that_takes_no_rows_as_they_are_stops_the_sink(tmp_path: Path) -> None:
    for number, (statement, told) in enumerate(UNFIT.items()):
        file = DuckFile(tmp_path / f"{number}.duckdb")
        file.query(statement)
        with closing(file.open()) as target, pytest.raises(SchemaIncompatible, match=told):
            target.prepare(THINGS)


def test_a_table_without_a_key_that_hides_duckdbs_row_numbers_stops_the_sink(
    system: DuckFile,
) -> None:
    hidden = table_of(Column("rowid", Type("string")), NAME, name="notes", key=())
    with pytest.raises(PreflightFailed, match="rowid"):
        system.open().prepare(hidden)


def test_a_new_column_is_added_and_old_rows_keep_null(system: DuckFile) -> None:
    target = system.open(table_of(ID))
    applied(target, table_of(ID), (b"1",))
    target.prepare(THINGS)
    applied(target, THINGS, (b"2", b"new"), at=1)
    assert system.rows(THINGS.table) == [(b"1", None), (b"2", b"new")]


def test_a_frozen_target_says_which_statements_are_missing(tmp_path: Path) -> None:
    frozen = DuckFile(tmp_path / "shop.duckdb", schema_changes="frozen")
    with closing(frozen.open()) as target:
        with pytest.raises(SchemaIncompatible) as caught:
            target.prepare(table_of(ID))
        frozen.query(caught.value.hint)
        target.prepare(table_of(ID))
        with pytest.raises(SchemaIncompatible) as caught:
            target.prepare(THINGS)
        frozen.query(caught.value.hint)
        target.prepare(THINGS)


KEPT = [
    ("int64", "HUGEINT"), ("int32", "SMALLINT"), ("float32", "DOUBLE"),
    ("decimal", "DECIMAL(14,3)"), ("string", "ENUM('a', 'b')"), ("timestamptz", "TIMESTAMPTZ"),
    ("decimal", "VARCHAR"), ("json", "VARCHAR"), ("date", "VARCHAR"),
]  # fmt: skip
CHANGED = [
    ("int64", "DOUBLE"), ("float64", "FLOAT"), ("decimal", "DECIMAL(12,1)"), ("text", "INTEGER"),
    ("decimal", "DECIMAL(12,3)"), ("timestamptz", "TIMESTAMP"), ("timestamp", "DATE"),
]  # fmt: skip


def test_columns_that_keep_the_values_are_left_as_they_are(system: DuckFile) -> None:
    columns = [Column(f"v{n}", Type(kind, "", 12, 2)) for n, (kind, _) in enumerate(KEPT)]
    made = ", ".join(f"v{n} {there}" for n, (_, there) in enumerate(KEPT))
    system.query(f"CREATE TABLE things (id BIGINT PRIMARY KEY, {made})")
    schema = table_of(ID, *columns)
    target = system.open(schema)
    row = [b"1", b"7", b"7", b"0.5", b"1.25", b"b", b"2026-01-31 08:00:00+00", b"NaN", b"{}"]
    for number in range(2):
        applied(target, schema, [*row, b"infinity"], at=number)
    assert system.query("SELECT v4, v6, v8 FROM things") == [("b", "NaN", "infinity")]


@pytest.mark.parametrize(("kind", "there"), CHANGED)
def test_a_column_that_would_round_its_values_stops_the_sink(
    system: DuckFile, kind: str, there: str
) -> None:
    system.query(f"CREATE TABLE things (id BIGINT, v {there})")
    with pytest.raises(SchemaIncompatible, match="would not keep") as caught:
        system.open().prepare(table_of(ID, Column("v", Type(kind, "", 12, 2))))
    assert "as:" in caught.value.hint


def test_generated_columns_and_columns_of_others_are_respected(system: DuckFile) -> None:
    system.query(
        "CREATE TABLE things (id BIGINT, name VARCHAR, mine VARCHAR DEFAULT 'mine', "
        "loud VARCHAR GENERATED ALWAYS AS (upper(name)))"
    )
    schema = table_of(ID, NAME, Column("loud", Type("string")))
    target = system.open(schema)
    applied(target, schema, (b"5", b"a", b"ignored"))
    system.query("UPDATE things SET mine = 'still mine'")
    applied(target, schema, (b"5", b"b", b"ignored"), (b"6", b"c", None), at=1)
    applied(target, schema, (b"5", ABSENT, b"ignored"), at=2)
    found = system.query("SELECT id, name, mine, loud FROM things ORDER BY id")
    assert found == [(5, "b", "still mine", "B"), (6, "c", "mine", "C")]


def test_a_key_that_somebody_doubled_is_there_once_after_its_next_whole_row(
    system: DuckFile,
) -> None:
    target = system.open(THINGS)
    system.query("INSERT INTO things VALUES (1, 'a'), (1, 'b')")
    with pytest.raises(StateError, match="several rows of one key") as caught:
        applied(target, THINGS, (b"1", ABSENT))
    assert system.query(caught.value.hint.partition(": ")[2]) == [(1,)]
    applied(target, THINGS, (b"1", b"one"))
    assert system.rows(THINGS.table) == [(b"1", b"one")]
