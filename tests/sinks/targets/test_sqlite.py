"""SQLite keeps the contract of a transactional target, in real files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from cdc.config import parse_pipeline
from cdc.errors import DataError, PreflightFailed, SchemaIncompatible
from fix_sqlite import File
from schemas.change import ABSENT, Cell
from schemas.table import Column, TableId, TableSchema, Type
from schemas.types import LOGICAL
from sinks.target import Mapped
from sinks.targets.sqlite import Config, SqliteTarget
from sinks.testing import TargetContract, span, upsert
from sinks.testing_processes import ProcessContract

ID = Column("id", Type("int64", "postgres bigint"))
NAME = Column("name", Type("string", "postgres text"))


@pytest.fixture
def system(sqlite_file: File) -> File:
    return sqlite_file


AUDIT = (
    'CREATE TABLE "shop.items" (id INTEGER PRIMARY KEY, name TEXT, price TEXT)',
    "CREATE TABLE audit (op TEXT, id INTEGER)",
    """CREATE TRIGGER noted AFTER INSERT ON "shop.items"
       BEGIN INSERT INTO audit VALUES ('+', NEW.id); END""",
    """CREATE TRIGGER again AFTER UPDATE ON "shop.items"
       BEGIN INSERT INTO audit VALUES ('=', NEW.id); END""",
)


class TestSqlite(TargetContract, ProcessContract):
    """The suites, on a file of its own each time."""

    def watch(self, system: File) -> None:
        system.query(*AUDIT)

    def writes(self, system: File) -> int:
        return len(system.query("SELECT * FROM audit"))


def table_of(*columns: Column, name: str = "things", key: tuple[str, ...] = ("id",)) -> TableSchema:
    return TableSchema(TableId("public", name), columns, key)


THINGS = table_of(ID, NAME)


def applied(target: SqliteTarget, schema: TableSchema, *rows: Sequence[Cell], at: int = 0) -> None:
    target.apply(upsert(*rows, schema=schema), [span(at or None, at + 1)])


# Values


VALUES: dict[str, tuple[Type, dict[bytes, object]]] = {
    "boolean": (Type("boolean"), {b"t": 1, b"f": 0}),
    "int16": (Type("int16"), {b"-32768": -32768}),
    "int32": (Type("int32"), {b"2147483647": 2147483647}),
    "int64": (Type("int64"), {b"-9223372036854775808": -(2**63)}),
    "float32": (Type("float32"), {b"0.1": 0.1, b"NaN": "NaN"}),
    "float64": (
        Type("float64"),
        {b"0.30000000000000004": 0.1 + 0.2, b"-Infinity": float("-inf"), b"5e-324": 5e-324},
    ),
    "decimal": (
        Type("decimal", "", 30, 10),
        {b"12345678901234567890.0000000001": ..., b"NaN": ...},
    ),
    "date": (Type("date"), {b"2026-01-31": ..., b"infinity": ..., b"0044-03-15 BC": ...}),
    "time": (Type("time"), {b"23:59:59.999999": ..., b"24:00:00": ...}),
    "timestamp": (Type("timestamp"), {b"2026-01-31 08:00:00.5": ...}),
    "timestamptz": (
        Type("timestamptz"),
        {b"2026-01-31 08:00:00.5+00": "2026-01-31 08:00:00.5+00:00", b"-infinity": "-infinity"},
    ),
    "bytes": (Type("bytes"), {b"\\x00ff0a": b"\x00\xff\n", b"\\x": b""}),
    "uuid": (Type("uuid"), {b"0e37df36-f698-11e6-8dd4-cb9ced3df976": ...}),
    "string": (Type("string"), {b"007": ..., b"1e3": ..., b"tab\tline\n\\N": ..., b"": ...}),
    "json": (Type("json"), {b'{"a": 1.10}': ...}),
    "enum": (Type("enum", labels=("1", "2")), {b"1": ...}),
    "text": (Type("text", "postgres numeric"), {b"1" + b"0" * 100: ..., b"1.50": ...}),
}
"""Logical type → a type and, by the text that travels, what lies in the file; `...`: the text."""


def test_each_logical_type_has_a_case_and_a_line_on_the_page() -> None:
    page = Path("sinks/targets/sqlite.md").read_text("utf-8")
    assert VALUES.keys() == LOGICAL.keys()
    assert [name for name in LOGICAL if f"`{name}`" not in page] == []


def test_the_pipeline_on_the_page_is_valid() -> None:
    found = re.search(r"```yaml\n(.*?)```", Path("sinks/targets/sqlite.md").read_text(), re.DOTALL)
    assert found is not None
    pipeline = parse_pipeline(found[1], Path("sqlite.md"), {})
    assert isinstance(pipeline.sinks["pocket"].config, Config)


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_is_stored_in_the_form_its_type_states(system: File, kind: str) -> None:
    type_, values = VALUES[kind]
    schema = table_of(ID, Column("v", type_))
    target = system.open(schema)
    rows = [(b"%d" % number, text) for number, text in enumerate(values)]
    lines = [b"%d\t%s" % (number + 10, copied(text)) for number, text in enumerate(values)]
    target.apply([[Mapped(schema, [*rows, (b"99", None)], [], lines=[*lines, b"98\t\\N"])]], [])
    wanted = [text.decode() if to is ... else to for text, to in values.items()]
    assert system.query("SELECT v FROM things WHERE id < 10 ORDER BY id") == listed(wanted)
    assert system.query("SELECT v FROM things WHERE id BETWEEN 10 AND 97 ORDER BY id") == listed(
        wanted
    )
    assert system.query("SELECT v FROM things WHERE id >= 98") == [(None,), (None,)]


def copied(text: bytes) -> bytes:
    text = text.replace(b"\\", b"\\\\")
    return text.replace(b"\t", b"\\t").replace(b"\n", b"\\n")


def listed(values: Sequence[object]) -> list[tuple[object, ...]]:
    return [(value,) for value in values]


def test_a_value_that_is_none_of_its_type_is_refused_with_its_column(system: File) -> None:
    odd = {"int64": b"1.5", "boolean": b"maybe", "float64": b"x", "bytes": b"hex", "int32": b""}
    target = system.open()
    for kind, text in odd.items():
        schema = table_of(ID, Column("v", Type(kind)), name=kind)
        target.prepare(schema)
        with pytest.raises(DataError, match=rf"{kind}\.v"):
            applied(target, schema, (b"1", text))
    huge = table_of(ID, Column("v", Type("int64")), name="int64")
    with pytest.raises(DataError, match="too large"):
        applied(target, huge, (b"1", b"9223372036854775808"))


def test_a_moment_is_read_by_the_date_functions_of_sqlite(system: File) -> None:
    schema = table_of(ID, Column("at", Type("timestamptz")))
    target = system.open(schema)
    applied(target, schema, (b"1", b"2026-01-31 08:00:00.25+00"))
    found = system.query("SELECT strftime('%Y|%H:%M:%f', at) FROM things")
    assert found == [("2026|08:00:00.250",)]


# Tables


def test_a_table_is_called_by_its_schema_unless_that_is_the_usual_one(system: File) -> None:
    names = {
        ("public", "orders"): "orders",
        ("", "drafts"): "drafts",
        ("crm", "clients"): "crm.clients",
        ("a.b", "c"): "a_u2e_b.c",
        ("a", "b.c"): "a.b_u2e_c",
    }
    target = system.open()
    for schema, table in names:
        target.prepare(TableSchema(TableId(schema, table), (ID,), ("id",)))
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'tailrace%'"
    assert sorted(system.query(tables)) == sorted((name,) for name in names.values())


def test_any_identifier_can_be_a_name(system: File) -> None:
    names = ['a"b', "100%s", "Ümlaut ü", "select", "x'; --", "a.b", "{}", "rowid"]
    columns = [Column(name, Type("string", "postgres text")) for name in names]
    schema = TableSchema(TableId('we"ird %s', "ta'ble {}"), tuple(columns), (names[0], names[1]))
    target = system.open(schema)
    cells = [name.encode() for name in names]
    applied(target, schema, cells)
    partial = [*cells[:2], ABSENT, b"new", ABSENT, None, b"6", ABSENT]
    applied(target, schema, partial, at=1)
    wanted = (*cells[:3], b"new", cells[4], None, b"6", cells[7])
    assert system.rows(schema.table) == [wanted]
    target.apply([[Mapped(schema, [], [tuple(cells[:2])])]], [span(2, 3)])
    assert system.rows(schema.table) == []


def test_a_row_without_a_key_goes_once_even_where_a_column_is_called_rowid(system: File) -> None:
    schema = table_of(Column("rowid", Type("string")), NAME, name="notes", key=())
    target = system.open(schema)
    rows: list[Sequence[Cell]] = [(b"a", None), (b"a", None), (b"a", b"x")]
    target.apply([[Mapped(schema, rows, [])]], [span(None, 1)])
    target.apply([[Mapped(schema, [], [(b"a", None)])]], [span(1, 2)])
    assert system.rows(schema.table) == [(b"a", None), (b"a", b"x")]


@pytest.mark.parametrize(
    ("schemas", "told"),
    [
        ([table_of(ID, name="Orders"), table_of(ID, name="orders")], "one table"),
        ([THINGS, TableSchema(TableId("main", "things"), (ID,), ("id",))], "one table"),
        ([table_of(ID, Column("ID", Type("string")))], "one to SQLite"),
        ([table_of(ID, name="tailrace_cursors")], "SQLite's own"),
    ],
)
def test_names_that_sqlite_does_not_tell_apart_stop_the_sink(
    system: File, schemas: list[TableSchema], told: str
) -> None:
    target = system.open()
    for schema in schemas[:-1]:
        target.prepare(schema)
    with pytest.raises(SchemaIncompatible, match=told) as caught:
        target.prepare(schemas[-1])
    assert "`to:`" in caught.value.hint or "`fields:`" in caught.value.hint


def test_a_table_of_another_spelling_is_not_taken_for_ours(system: File) -> None:
    system.query("CREATE TABLE Things (id INTEGER PRIMARY KEY, name TEXT)")
    with pytest.raises(SchemaIncompatible) as caught:
        system.open().prepare(THINGS)
    assert "to: Things" in caught.value.hint


def test_a_view_is_no_target(system: File) -> None:
    system.query("CREATE VIEW things AS SELECT 1 AS id, 'x' AS name")
    with pytest.raises(SchemaIncompatible, match="view"):
        system.open().prepare(THINGS)


def test_a_new_column_is_added_and_old_rows_keep_null(system: File) -> None:
    target = system.open()
    target.prepare(table_of(ID))
    applied(target, table_of(ID), (b"1",))
    target.prepare(THINGS)
    applied(target, THINGS, (b"2", b"new"), at=1)
    assert system.rows(THINGS.table) == [(b"1", None), (b"2", b"new")]


def test_a_frozen_target_says_which_statement_is_missing(tmp_path: Path) -> None:
    frozen = File(tmp_path / "shop.db", schema_changes="frozen")
    with closing(frozen.open()) as target:
        with pytest.raises(SchemaIncompatible) as caught:
            target.prepare(table_of(ID))
        frozen.query(caught.value.hint)
        target.prepare(table_of(ID))
        with pytest.raises(SchemaIncompatible) as caught:
            target.prepare(THINGS)
        assert caught.value.hint == 'ALTER TABLE "things" ADD COLUMN "name" TEXT;'
        frozen.query(caught.value.hint)
        target.prepare(THINGS)


@pytest.mark.parametrize("key", ["", "COLLATE NOCASE PRIMARY KEY", "COLLATE NOCASE UNIQUE"])
def test_a_key_without_a_unique_index_over_its_bytes_is_refused(system: File, key: str) -> None:
    system.query(f"CREATE TABLE things (name TEXT {key}, id INTEGER)")
    with pytest.raises(PreflightFailed) as caught:
        system.open().prepare(table_of(ID, NAME, key=("name",)))
    assert caught.value.hint == 'CREATE UNIQUE INDEX "things_key" ON "things" ("name");'


KEPT = [
    ("int64", "INTEGER"), ("int64", "BIGINT"), ("int64", ""), ("int64", "NUMERIC"),
    ("boolean", "BOOLEAN"), ("float64", "DOUBLE PRECISION"), ("string", "VARCHAR(3)"),
    ("date", "DATE"), ("timestamptz", "TIMESTAMP"), ("bytes", "BLOB"), ("json", "TEXT"),
]  # fmt: skip
CHANGED = [
    ("string", "INTEGER"), ("decimal", "DECIMAL(12,2)"), ("text", "NUMERIC"), ("int64", "REAL"),
    ("float64", "TEXT"), ("json", "JSON"), ("enum", "FLOAT"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "there"), KEPT)
def test_a_column_that_keeps_the_values_is_left_as_it_is(
    system: File, kind: str, there: str
) -> None:
    system.query(f"CREATE TABLE things (id INTEGER PRIMARY KEY, v {there})")
    system.open().prepare(table_of(ID, Column("v", Type(kind))))


@pytest.mark.parametrize(("kind", "there"), CHANGED)
def test_a_column_that_would_round_or_rewrite_its_values_stops_the_sink(
    system: File, kind: str, there: str
) -> None:
    system.query(f"CREATE TABLE things (id INTEGER PRIMARY KEY, v {there})")
    with pytest.raises(SchemaIncompatible, match="would not keep") as caught:
        system.open().prepare(table_of(ID, Column("v", Type(kind, "", 12, 2))))
    assert "as:" in caught.value.hint


def test_a_strict_table_of_sqlite_takes_only_the_type_it_declares(system: File) -> None:
    system.query("CREATE TABLE things (id INT PRIMARY KEY, name ANY) STRICT")
    target = system.open()
    target.prepare(THINGS)
    applied(target, THINGS, (b"1", b"007"))
    assert system.query("SELECT name FROM things") == [("007",)]
    system.query("CREATE TABLE others (id INTEGER PRIMARY KEY, v TEXT) STRICT")
    with pytest.raises(SchemaIncompatible):
        target.prepare(table_of(ID, Column("v", Type("bytes")), name="others"))


def test_generated_columns_and_columns_of_others_are_respected(system: File) -> None:
    system.query(
        "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, mine TEXT DEFAULT 'mine', "
        "loud TEXT GENERATED ALWAYS AS (upper(name)) STORED)"
    )
    schema = table_of(ID, NAME, Column("loud", Type("string")))
    target = system.open(schema)
    for number, name in enumerate([b"a", b"b"]):
        applied(target, schema, (b"5", name, b"ignored"), at=number)
    assert system.query("SELECT * FROM things") == [(5, "b", "mine", "B")]
