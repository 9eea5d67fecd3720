"""MariaDB keeps the contract of a transactional target, on a real server.

MySQL runs the same tests (`mysql/live_target.py`).
"""

from __future__ import annotations

import datetime as dt
import random
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from cdc.config import parse_pipeline
from cdc.errors import DataError, PreflightFailed, SchemaIncompatible
from fix_mariadb import Place
from schemas.change import ABSENT, Cell
from schemas.table import Column, TableId, TableSchema, Type
from schemas.types import LOGICAL
from sinks.mariadb.target import MariaDBTarget
from sinks.sql import line_of
from sinks.target import Mapped
from sinks.testing import TargetContract, span, upsert
from sinks.testing_processes import ProcessContract

PAGES = {word: Path(f"sinks/targets/{word}.md").read_text("utf-8") for word in ("mariadb", "mysql")}
ID = Column("id", Type("int64", "postgres bigint"))
NAME = Column("name", Type("string", "postgres text"))


@pytest.fixture
def system(make_place: Callable[..., Place]) -> Place:
    return make_place(workers=2)


AUDIT = (
    "CREATE DATABASE shop",
    "CREATE TABLE shop.items (id bigint PRIMARY KEY, name longtext, price decimal(12,2)) {exact}",
    "CREATE TABLE shop.audit (op text, id bigint)",
    (
        "CREATE TRIGGER shop.noted AFTER INSERT ON shop.items FOR EACH ROW "
        "INSERT INTO shop.audit VALUES ('+', NEW.id)"
    ),
    (
        "CREATE TRIGGER shop.again AFTER UPDATE ON shop.items FOR EACH ROW "
        "INSERT INTO shop.audit VALUES ('=', NEW.id)"
    ),
)


class TestMariaDB(TargetContract, ProcessContract):
    """The suites, on a database of its own each time."""

    def watch(self, system: Place) -> None:
        system.query(*(made.format(exact=system.dialect.texts) for made in AUDIT))

    def writes(self, system: Place) -> int:
        return len(system.query("SELECT * FROM shop.audit"))


def table_of(*columns: Column, name: str = "things", key: tuple[str, ...] = ("id",)) -> TableSchema:
    return TableSchema(TableId("public", name), columns, key)


THINGS = table_of(ID, NAME)


def applied(target: MariaDBTarget, schema: TableSchema, *rows: Sequence[Cell], at: int = 0) -> None:
    target.apply(upsert(*rows, schema=schema), [span(at or None, at + 1)])


# Values

MOMENT = dt.datetime(2026, 1, 31, 8, 0, 0, 500000)  # noqa: DTZ001 - as a DATETIME is

VALUES: dict[str, tuple[Type, dict[bytes, object]]] = {
    "boolean": (Type("boolean"), {b"t": 1, b"f": 0}),
    "int16": (Type("int16"), {b"-32768": -32768}),
    "int32": (Type("int32"), {b"2147483647": 2147483647}),
    "int64": (Type("int64"), {b"-9223372036854775808": -(2**63)}),
    "float32": (Type("float32"), {b"0.1": 0.1, b"3.4028235e+38": 3.4028235e38}),
    "float64": (Type("float64"), {b"0.30000000000000004": 0.1 + 0.2, b"5e-324": 5e-324}),
    "decimal": (
        Type("decimal", "", 30, 10),
        {b"12345678901234567890.0000000001": Decimal("12345678901234567890.0000000001")},
    ),
    "date": (Type("date"), {b"2026-01-31": dt.date(2026, 1, 31), b"0001-01-01": dt.date(1, 1, 1)}),
    "time": (
        Type("time"),
        {b"23:59:59.999999": dt.timedelta(seconds=86399, microseconds=999999),
         b"24:00:00": dt.timedelta(days=1)},
    ),
    "timestamp": (Type("timestamp"), {b"2026-01-31 08:00:00.5": MOMENT}),
    "timestamptz": (Type("timestamptz"), {b"2026-01-31 08:00:00.5+00": MOMENT}),
    "bytes": (Type("bytes"), {b"\\x00ff0a275c": b"\x00\xff\n'\\", b"\\x": b""}),
    "uuid": (Type("uuid"), {b"0e37df36-f698-11e6-8dd4-cb9ced3df976": ...}),
    "string": (Type("string"), {b"007": ..., b"tab\tline\n\\N": ..., b"": ..., b"it's": ...}),
    "json": (Type("json"), {b'{"a": 1.10}': ...}),
    "enum": (Type("enum", labels=("1", "2")), {b"1": ...}),
    "text": (Type("text", "postgres numeric"), {b"1" + b"0" * 100: ..., b"1.50": ..., b"NaN": ...}),
}  # fmt: skip
"""Logical type → a type and, by the text that travels, what a client reads; `...`: the text."""


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_each_logical_type_has_a_case_and_a_line_on_the_page(page: str) -> None:
    assert VALUES.keys() == LOGICAL.keys()
    assert [name for name in LOGICAL if f"`{name}`" not in page] == []


@pytest.mark.parametrize("word", PAGES)
def test_the_pipeline_on_the_page_is_valid(word: str) -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGES[word], re.DOTALL)
    assert found is not None
    url = {"SHOP_URL": f"{word}://tailrace:secret@127.0.0.1/shop"}
    pipeline = parse_pipeline(found[1], Path(f"{word}.yaml"), url)
    config = pipeline.sinks["web"].config
    assert (type(config).__module__, config.type) == (f"sinks.targets.{word}", word)


def test_each_value_is_stored_in_the_form_its_type_states(maria_place: Place) -> None:
    target = maria_place.open()
    for kind, (type_, values) in VALUES.items():
        schema = table_of(ID, Column("v", type_), name=f"of_{kind}")
        target.prepare(schema)
        rows = [(b"%d" % number, text) for number, text in enumerate(values)]
        lines = [line_of((b"%d" % (number + 10), text)) for number, text in enumerate(values)]
        step = [Mapped(schema, [*rows, (b"99", None)], [], lines=[*lines, b"98\t\\N"])]
        target.apply([step], [])
        wanted = [(text.decode() if to is ... else to,) for text, to in values.items()]
        found = maria_place.query(f"SELECT v FROM of_{kind} ORDER BY id")
        assert found == [*wanted, *wanted, (None,), (None,)]


REFUSED = {
    "int64": b"9223372036854775808", "int32": b"x", "boolean": b"maybe", "float64": b"NaN",
    "float32": b"Infinity", "decimal": b"NaN", "date": b"0044-03-15 BC", "bytes": b"hex",
    "time": b"25:00:00+02", "timestamp": b"infinity", "timestamptz": b"12026-01-31 08:00:00+00",
    "uuid": b"none",
}  # fmt: skip


def test_a_value_that_a_column_cannot_hold_is_refused_with_the_column(maria_place: Place) -> None:
    target = maria_place.open()
    for kind, text in REFUSED.items():
        schema = table_of(ID, Column("v", Type(kind, "", 12, 2)), name=kind)
        target.prepare(schema)
        with pytest.raises(DataError, match=r"\bv\b"):
            applied(target, schema, (b"1", text))
        with pytest.raises(DataError, match=r"\bv\b"):
            target.apply([[Mapped(schema, [], [], lines=[line_of((b"1", text))])]], [])
        assert maria_place.rows(schema.table) == []


def test_text_of_any_kind_arrives_byte_for_byte_as_rows_and_as_lines(maria_place: Place) -> None:
    chance = random.Random(7)  # noqa: S311 - the same texts every time
    alphabet = "'\\\"NnfvbtrxZ0%_`,()\t\n\r\b\f\v\x00\x1aé🦊 "
    texts = [
        "".join(chance.choices(alphabet, k=chance.randrange(12))).encode() for _ in range(2000)
    ]
    schema = table_of(ID, NAME, Column("paid", Type("boolean")), Column("note", Type("string")))
    others = table_of(ID, NAME, name="others")
    target = maria_place.open(schema, others)
    rows = [(b"%d" % n, text, b"t", text[::-1]) for n, text in enumerate(texts) if text.isascii()]
    plain = [(b"%d" % n, text) for n, text in enumerate(texts)]
    target.apply([[Mapped(schema, [], [], lines=list(map(line_of, rows)))]], [])
    target.apply([[Mapped(others, [], [], lines=list(map(line_of, plain)))]], [])
    found = maria_place.query("SELECT id, name, paid, note FROM things ORDER BY id")
    assert found == [(int(i), a.decode(), 1, b.decode()) for i, a, _, b in rows]
    half = len(plain) // 2
    assert maria_place.query("SELECT id, name FROM others ORDER BY id") == [
        (int(i), text.decode()) for i, text in plain
    ]
    target.apply(
        [[Mapped(others, list(reversed(plain[half:])), [p[:1] for p in plain[:half]])]], []
    )
    assert maria_place.query("SELECT id, name FROM others ORDER BY id") == [
        (int(i), text.decode()) for i, text in plain[half:]
    ]


def test_a_row_larger_than_a_statement_may_be_is_refused_and_others_go_on(
    maria_place: Place,
) -> None:
    target = maria_place.open(THINGS)
    applied(target, THINGS, (b"1", b"x" * 3_000_000))
    with pytest.raises(DataError, match="max_allowed_packet is 16777216"):
        applied(target, THINGS, (b"2", b"x" * 17_000_000), at=1)
    applied(target, THINGS, (b"2", b"y"), at=1)
    assert maria_place.query("SELECT length(name) FROM things") == [(3_000_000,), (1,)]


# Tables


def test_a_schema_is_a_database_and_the_usual_one_is_that_of_the_url(maria_place: Place) -> None:
    target = maria_place.open()
    for schema in ("public", "shop"):
        target.prepare(TableSchema(TableId(schema, "orders"), (ID,), ("id",)))
    assert maria_place.query("SELECT * FROM orders") == []
    assert maria_place.query("SELECT * FROM shop.orders") == []
    twice = TableSchema(TableId("", "orders"), (ID,), ("id",))
    with pytest.raises(SchemaIncompatible, match="would be one table") as caught:
        target.prepare(twice)
    assert "`to:`" in caught.value.hint


def test_any_identifier_can_be_a_name(maria_place: Place) -> None:
    names = ["a`b", "100%s", "Ümlaut ü", "select", "x'; --", "a.b", "{}", "n" * 64]
    columns = [Column(name, Type("string", "postgres text")) for name in names]
    schema = TableSchema(TableId("public", "ta'b`le %s"), tuple(columns), (names[0], names[1]))
    target = maria_place.open(schema)
    cells = [name.encode() for name in names]
    applied(target, schema, cells)
    partial = [*cells[:2], ABSENT, b"new", ABSENT, None, b"6", ABSENT]
    applied(target, schema, partial, at=1)
    wanted = (*cells[:3], b"new", cells[4], None, b"6", cells[7])
    assert maria_place.rows(schema.table) == [wanted]
    target.apply([[Mapped(schema, [], [tuple(cells[:2])])]], [span(2, 3)])
    assert maria_place.rows(schema.table) == []


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (table_of(ID, Column("ID", Type("string"))), "which are one to"),
        (
            table_of(ID, Column("É", Type("string")), Column("é", Type("string"))),
            "which are one to",
        ),
        (table_of(ID, name="tailrace_cursors"), "the sink's own"),
        (table_of(ID, name="n" * 65), "Incorrect table name|is too long"),
        (table_of(ID, name="fox 🦊"), "outside the basic plane"),
    ],
)
def test_names_that_the_server_does_not_take_stop_the_sink(
    maria_place: Place, schema: TableSchema, told: str
) -> None:
    with pytest.raises(SchemaIncompatible, match=told) as caught:
        maria_place.open().prepare(schema)
    assert "`to:`" in caught.value.hint or "`fields:`" in caught.value.hint


def test_keys_of_text_and_bytes_are_compared_byte_for_byte(maria_place: Place) -> None:
    parts = [Column("t", Type("string")), Column("b", Type("bytes")), ID]
    schema = table_of(*parts, NAME, key=("t", "b", "id"))
    target = maria_place.open(schema)
    keys = [(b"a", b"\\x61"), (b"A", b"\\x61"), (b"a ", b"\\x61"), (b"\xc3\xa4", b"\\x6100")]
    applied(target, schema, *((t, b, b"1", b"first") for t, b in keys))
    applied(target, schema, (b"a", b"\\x61", b"1", b"second"), at=1)
    target.apply([[Mapped(schema, [], [(b"A", b"\\x61", b"1")])]], [span(2, 3)])
    found = maria_place.query("SELECT t, name FROM things ORDER BY t")
    assert found == [("a", "second"), ("a ", "first"), ("ä", "first")]
    with pytest.raises(DataError, match="too long"):
        applied(target, schema, (b"x" * 1000, b"\\x", b"1", None), at=3)


def test_a_new_column_is_added_and_old_rows_keep_null(maria_place: Place) -> None:
    target = maria_place.open(table_of(ID))
    applied(target, table_of(ID), (b"1",))
    target.prepare(THINGS)
    applied(target, THINGS, (b"2", b"new"), at=1)
    assert maria_place.rows(THINGS.table) == [(b"1", None), (b"2", b"new")]


def test_a_frozen_target_says_which_statement_is_missing(make_place: Callable[..., Place]) -> None:
    frozen = make_place(schema_changes="frozen")
    target = frozen.open()
    with pytest.raises(SchemaIncompatible) as caught:
        target.prepare(table_of(ID))
    frozen.query(caught.value.hint.rstrip(";"))
    target.prepare(table_of(ID))
    with pytest.raises(SchemaIncompatible) as caught:
        target.prepare(THINGS)
    assert "ADD COLUMN `name` LONGTEXT NULL" in caught.value.hint
    frozen.query(caught.value.hint.rstrip(";"))
    target.prepare(THINGS)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("varchar(20) {exact}", ""),
        ("varchar(20) COLLATE utf8mb4_general_ci NOT NULL", ", PRIMARY KEY (name)"),
        ("varchar(20) COLLATE utf8mb4_bin NOT NULL", ", PRIMARY KEY (name)"),
        ("text {exact} NOT NULL", ", UNIQUE (name(10))"),
    ],
)
def test_a_key_without_a_unique_index_over_its_bytes_is_refused(
    maria_place: Place, name: str, key: str
) -> None:
    declared = name.format(exact=maria_place.dialect.texts)
    maria_place.query(f"CREATE TABLE things (name {declared}, id bigint{key})")
    schema = table_of(ID, NAME, key=("name",))
    target = maria_place.open()
    with pytest.raises(PreflightFailed) as caught:
        target.prepare(schema)
    maria_place.query(caught.value.hint.rstrip(";"))
    target.prepare(schema)


def test_a_table_without_transactions_is_refused_with_the_statement_that_gives_it_some(
    maria_place: Place,
) -> None:
    maria_place.query("CREATE TABLE things (id bigint PRIMARY KEY, name text) ENGINE=MyISAM")
    target = maria_place.open()
    with pytest.raises(PreflightFailed, match="no transactions") as caught:
        target.prepare(THINGS)
    maria_place.query(caught.value.hint.rstrip(";"))
    target.prepare(THINGS)


def test_a_view_is_no_target(maria_place: Place) -> None:
    maria_place.query("CREATE VIEW things AS SELECT 1 AS id, 'x' AS name")
    with pytest.raises(SchemaIncompatible, match="view"):
        maria_place.open().prepare(THINGS)


KEPT = [
    ("int64", "bigint"), ("int64", "decimal(20,0)"), ("date", "date"),
    ("float32", "float"), ("string", "varchar(3)"), ("timestamptz", "timestamp(6) NULL"),
    ("bytes", "varbinary(9)"), ("decimal", "decimal(20,5)"), ("uuid", "char(36)"),
    ("timestamp", "datetime"), ("time", "time(3)"),
    ("text", "decimal(65,30)"), ("enum", "enum('a','b')"),
]  # fmt: skip
CHANGED = [
    ("int64", "double"), ("boolean", "bit(1)"), ("float64", "float"), ("decimal", "decimal(12,1)"),
    ("decimal", "double"), ("timestamp", "datetime"), ("timestamp", "date"), ("time", "time(3)"),
    ("bytes", "text"), ("string", "int"), ("bytes", "binary(9)"), ("uuid", "binary(16)"),
    ("string", "decimal(5,2)"), ("text", "decimal(12,2)"), ("string", "date"),
    ("text", "datetime(6)"), ("enum", "time(6)"),
]  # fmt: skip


def test_a_column_that_keeps_the_values_is_left_as_it_is(maria_place: Place) -> None:
    target = maria_place.open()
    for number, (kind, there) in enumerate(KEPT):
        maria_place.query(f"CREATE TABLE kept{number} (id bigint PRIMARY KEY, v {there})")
        column = Column("v", Type(kind, f"{maria_place.dialect.word} {there}", 12, 2))
        target.prepare(table_of(ID, column, name=f"kept{number}"))


def test_a_column_that_would_round_or_rewrite_its_values_stops_the_sink(maria_place: Place) -> None:
    target = maria_place.open()
    for number, (kind, there) in enumerate(CHANGED):
        maria_place.query(f"CREATE TABLE things{number} (id bigint PRIMARY KEY, v {there})")
        schema = table_of(ID, Column("v", Type(kind, "", 12, 2)), name=f"things{number}")
        with pytest.raises(SchemaIncompatible, match="would not keep") as caught:
            target.prepare(schema)
        assert "as:" in caught.value.hint
        maria_place.query(caught.value.hint.partition("or: ")[2].rstrip(";"))
        target.prepare(schema)


def test_a_json_column_is_a_text(maria_place: Place) -> None:
    maria_place.query("CREATE TABLE things (id bigint PRIMARY KEY, v json)")
    maria_place.open(table_of(ID, Column("v", Type("json"))))


def test_a_text_that_the_mapping_casts_may_be_a_number_here(maria_place: Place) -> None:
    maria_place.query("CREATE TABLE things (id bigint PRIMARY KEY, v decimal(5,2))")
    schema = table_of(ID, Column("v", Type("text", "postgres numeric")))
    target = maria_place.open(msgspec.structs.replace(schema, cast=("v",)))
    with pytest.raises(SchemaIncompatible, match="would not keep a text"):
        target.prepare(schema)


def test_generated_columns_and_columns_of_others_are_respected(maria_place: Place) -> None:
    maria_place.query(
        "CREATE TABLE things (id bigint PRIMARY KEY, name text, mine varchar(9) DEFAULT 'mine', "
        "loud varchar(9) GENERATED ALWAYS AS (upper(name)) STORED)"
    )
    schema = table_of(ID, NAME, Column("loud", Type("string")))
    target = maria_place.open(schema)
    for number, name in enumerate([b"a", b"b"]):
        applied(target, schema, (b"5", name, b"ignored"), at=number)
    target.apply([[Mapped(schema, [], [], lines=[b"6\tc\tignored"])]], [])
    assert maria_place.query("SELECT * FROM things ORDER BY id") == [
        (5, "b", "mine", "B"),
        (6, "c", "mine", "C"),
    ]


def test_a_row_without_a_key_goes_once_and_byte_for_byte(maria_place: Place) -> None:
    maria_place.query(
        "CREATE TABLE notes (name text COLLATE utf8mb4_general_ci, n double, at datetime(6))"
    )
    columns = (NAME, Column("n", Type("float64")), Column("at", Type("timestamp")))
    schema = table_of(*columns, name="notes", key=())
    target = maria_place.open(schema)
    at = b"2026-01-31 08:00:00.5"
    rows: list[Sequence[Cell]] = [(b"a", b"0.1", at), (b"A", b"0.1", at), (b"a", None, None)]
    target.apply([[Mapped(schema, [*rows, *rows], [])]], [span(None, 1)])
    target.apply([[Mapped(schema, [], [rows[1], rows[2], rows[2], (b"no", None, None)])]], [])
    found = maria_place.query("SELECT name, n FROM notes ORDER BY BINARY name")
    assert found == [("A", 0.1), ("a", 0.1), ("a", 0.1)]
