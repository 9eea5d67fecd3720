"""What a migration does to a table, and what that would break: read from its SQL alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cdc.cli.ddl import Statement, read_migration
from cdc.cli.migration import Finding, Judge
from cdc.config import parse_pipeline
from fix_cli import Cdc
from fix_pipeline import Pipeline
from schemas.avro import envelope_schema
from schemas.table import Column, TableId, TableSchema, Type

ID = Column("id", Type("int64", "postgres bigint"), nullable=False)
NOTE = Column("note", Type("string", "postgres text"))
N = Column("n", Type("int32", "postgres integer"))
ORDERS = TableSchema(TableId("public", "orders"), (ID, NOTE, N), ("id",))


def read(text: str, dialect: str = "postgres") -> list[Statement]:
    return list(read_migration(text, dialect, "public"))


def after(text: str, dialect: str = "postgres") -> TableSchema:
    """Return what `text` makes of the orders."""
    table = ORDERS
    for statement in read(text, dialect):
        assert statement.unread == ""
        for deed in statement.deeds:
            table = deed(table)
    return table


def columns(table: TableSchema) -> dict[str, str]:
    return {column.name: column.type.native.partition(" ")[2] for column in table.columns}


STATEMENTS = {
    "ADD COLUMN at timestamptz(3) NOT NULL DEFAULT now()": {"at": "timestamp(3) with time zone"},
    "ADD COLUMN IF NOT EXISTS tags text[], ADD price decimal(12, 2)": {
        "tags": "text[]",
        "price": "numeric(12,2)",
    },
    "ADD c varchar(20), ADD d char, ADD e double precision, ADD f mood": {
        "c": "character varying(20)",
        "d": "character(1)",
        "e": "double precision",
        "f": "mood",
    },
    "DROP COLUMN note": {"note": None},
    "ALTER COLUMN n TYPE bigint USING n::bigint": {"n": "bigint"},
    "RENAME COLUMN n TO m": {"n": None, "m": "integer"},
    'ADD COLUMN "Mixed" int, ADD COLUMN Folded int': {"Mixed": "integer", "folded": "integer"},
}


@pytest.mark.parametrize("action", STATEMENTS)
def test_a_statement_of_postgres_changes_the_columns_it_names(action: str) -> None:
    wanted: dict[str, str | None] = {**columns(ORDERS), **STATEMENTS[action]}
    found = columns(after(f"ALTER TABLE public.orders {action}"))
    assert found == {name: kind for name, kind in wanted.items() if kind is not None}


MARIADB = {
    "ADD COLUMN c VARCHAR(20) NOT NULL AFTER id": {"c": "varchar(20)"},
    "MODIFY COLUMN n BIGINT UNSIGNED NULL": {"n": "bigint unsigned"},
    "CHANGE COLUMN n m DECIMAL(10,2)": {"n": None, "m": "decimal(10,2)"},
    "ADD d ENUM('a','b'), DROP note": {"note": None, "d": "enum('a','b')"},
}


@pytest.mark.parametrize("action", MARIADB)
def test_a_statement_of_mariadb_changes_the_columns_it_names(action: str) -> None:
    wanted: dict[str, str | None] = {**columns(ORDERS), **MARIADB[action]}
    found = columns(after(f"ALTER TABLE orders {action}", "mariadb"))
    assert found == {name: kind for name, kind in wanted.items() if kind is not None}


@pytest.mark.parametrize(
    ("action", "key"),
    [
        ("DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (id, n)", ("id", "n")),
        ("DROP CONSTRAINT orders_pkey", ()),
        ("DROP COLUMN id", ()),
        ("RENAME COLUMN id TO number", ("number",)),
        ("ADD CONSTRAINT u UNIQUE (n)", ("id",)),
        ("ALTER n SET NOT NULL, ALTER n DROP DEFAULT", ("id",)),
    ],
)
def test_a_statement_changes_the_key_when_it_says_so(action: str, key: tuple[str, ...]) -> None:
    assert after(f"ALTER TABLE orders {action}").key == key


def test_statements_that_change_no_columns_are_passed_over() -> None:
    text = """
    BEGIN; CREATE INDEX i ON orders (n); UPDATE orders SET n = 1; COMMENT ON TABLE orders IS ';';
    CREATE TABLE other (id int); DROP INDEX i; ALTER TABLE orders OWNER TO me; VACUUM orders;
    CREATE EXTENSION hstore; COMMIT
    """
    assert [s.unread for s in read(text)] == [""] * 10
    assert after(text) == ORDERS


@pytest.mark.parametrize(
    "text",
    [
        "DO $$ BEGIN ALTER TABLE orders DROP COLUMN n; END $$",
        "ALTER TABLE ONLY orders REPLICA IDENTITY NOTHING",
        "ALTER TABLE orders SET SCHEMA other",
        "ALTER TYPE mood ADD VALUE 'x'",
        "ALTER TABLE orders DRUP COLUMN n",
        "ALTER TABLE orders ADD COLUMN (",
        "SELECT 'never ends",
        "CALL migrate()",
    ],
)
def test_what_cannot_be_read_is_never_taken_for_harmless(text: str) -> None:
    assert [bool(statement.unread) for statement in read(f"\n{text}")] == [True]


def test_a_statement_knows_its_line_and_its_table() -> None:
    text = '-- first\nSELECT 1;\n\nALTER TABLE Crm."Orders"\n  DROP n; DROP TABLE gone'
    found = [(s.line, str(s.table), s.ends) for s in read(text)]
    assert found == [(2, "None", False), (4, "crm.Orders", False), (5, "public.gone", True)]


# What it would break


class Registry:
    """Has one schema."""

    def latest(self, subject: str) -> tuple[int, dict[str, Any]] | None:
        topic = subject.removesuffix("-value")
        return (1, envelope_schema(ORDERS, topic)) if topic == "shop.public.orders" else None


FILE = """
pipeline: shop
kafka: {bootstrap: k, registry: "http://r"}
sources:
  shop:
    type: postgres
    url: postgresql://u@h/d
    tables: ["public.*"]
    columns: {"*.secret": {drop: true}}
sinks:
  usual: {type: postgres, url: "postgresql://u@h/d", tables: ["shop.public.*"]}
  frozen: {type: sqlite, path: /x.db, tables: ["shop.public.*"], schema_changes: frozen}
  mirror: {type: mariadb, url: "mariadb://u@h/d", tables: ["shop.*"], schema_changes: mirror}
  mapped:
    type: sqlite
    path: /y.db
    tables: {shop.public.orders: {fields: {id: id, label: note}}}
  other: {type: sqlite, path: /z.db, tables: ["elsewhere.*"]}
"""


def judged(text: str) -> list[Finding]:
    pipeline = parse_pipeline(FILE, Path("shop.yaml"), {})
    return list(Judge(pipeline, pipeline.sources["shop"], Registry()).findings(text, "public"))


def told(text: str) -> dict[str, str]:
    """Return place → the worst that is said of it."""
    order = ("nothing", "changes", "breaks")
    worst: dict[str, str] = {}
    for finding in judged(text):
        level = worst.get(finding.where, "nothing")
        worst[finding.where] = max(level, finding.level, key=order.index)
    return worst


WORST = {
    "ADD COLUMN at date": "changes changes breaks changes -",
    "DROP COLUMN n": "changes nothing breaks changes -",
    "DROP COLUMN note": "changes nothing breaks changes breaks",
    "ALTER n TYPE bigint": "changes changes breaks changes -",
    "ALTER n TYPE text": "breaks breaks breaks changes -",
    "DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (n)": "breaks breaks breaks breaks breaks",
    "ALTER n SET DEFAULT 1": "- - - - -",
}


@pytest.mark.parametrize("action", WORST)
def test_a_migration_is_judged_at_the_registry_and_at_each_sink(action: str) -> None:
    found = told(f"ALTER TABLE orders {action}")
    places = ("registry", "sink/usual", "sink/frozen", "sink/mirror", "sink/mapped")
    assert " ".join(found.get(place, "-") for place in places) == WORST[action]
    assert "sink/other" not in found


def test_statements_are_judged_together() -> None:
    text = (
        "ALTER TABLE orders ADD c int; ALTER TABLE orders RENAME c TO d; ALTER TABLE orders DROP d"
    )
    assert judged(text) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("DROP TABLE orders", "gets no more rows"),
        ("ALTER TABLE orders RENAME TO archive", "gets no more rows"),
        ("ALTER TABLE orders DROP COLUMN gone", "no column gone"),
        ("DO $$ BEGIN END $$", "not known"),
    ],
)
def test_what_ends_a_table_or_is_not_known_breaks(text: str, said: str) -> None:
    [finding] = judged(text)
    assert (finding.level, finding.line) == ("breaks", 1)
    assert said in finding.sentence


def test_a_column_the_source_leaves_out_is_nobody_s_affair() -> None:
    assert judged("ALTER TABLE orders ADD secret text") == []


def test_a_table_that_is_not_captured_is_nobody_s_affair() -> None:
    assert [f.level for f in judged("ALTER TABLE drafts DROP COLUMN n")] == ["nothing"]


# The commands


def test_a_migration_is_checked_against_the_registry(
    cdc: Cdc, pipeline: Pipeline, tmp_path: Path
) -> None:
    topic = pipeline.topic("public.orders")
    pipeline.registry.register_for(topic, envelope_schema(ORDERS, topic))
    file, ddl = tmp_path / "tailrace.yaml", tmp_path / "migration.sql"
    file.write_text(
        FILE.replace("http://r", pipeline.registry.config.url)
        .replace("shop.", "*.")
        .replace("  shop:", f"  {pipeline.source}:")
        .replace("*.public.orders", topic)
    )
    ddl.write_text("ALTER TABLE orders DROP COLUMN note;")
    ended = cdc("schema", "check", "--ddl", str(ddl), "-c", str(file))
    assert ended.code == 3
    assert "sink/mapped" in ended.out
    assert ended.out.splitlines()[-1].endswith("2 break")
    ddl.write_text("CREATE INDEX i ON orders (n);")
    ended = cdc("schema", "check", "--ddl", str(ddl), "-c", str(file), "--json")
    assert (ended.code, ended.json()["found"]) == (0, [])


def test_two_files_are_compared_without_a_pipeline(cdc: Cdc, tmp_path: Path) -> None:
    older, newer = tmp_path / "old.avsc", tmp_path / "new.avsc"
    older.write_text(json.dumps(envelope_schema(ORDERS, "t")))
    without = TableSchema(ORDERS.table, (ID, NOTE), ("id",))
    newer.write_text(json.dumps(envelope_schema(without, "t")))
    ended = cdc("schema", "diff", str(older), str(newer), "-c", "/nowhere.yaml")
    assert (ended.code, "column n integer was dropped" in ended.out) == (1, True)
    assert cdc("schema", "diff", str(older), str(older)).code == 0
    newer.write_text("[]")
    assert cdc("schema", "diff", str(older), str(newer)).code == 2


def test_two_versions_are_named_with_an_at_sign(
    cdc: Cdc, pipeline: Pipeline, tmp_path: Path
) -> None:
    topic = pipeline.topic("public.orders")
    for table in (ORDERS, TableSchema(ORDERS.table, (ID, NOTE), ("id",))):
        pipeline.registry.register_for(topic, envelope_schema(table, topic))
    file = tmp_path / "tailrace.yaml"
    file.write_text(FILE.replace("http://r", pipeline.registry.config.url))
    ended = cdc("schema", "diff", f"{topic}@2", f"{topic}@1", "-c", str(file), "--json")
    [difference] = ended.json()["differences"]
    assert (ended.code, difference["kind"], difference["column"]) == (1, "added", "n")


def test_without_its_parser_the_command_says_what_to_install(
    cdc: Cdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cdc.cli.migration", "cdc.cli.ddl"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlglot", None)
    file, ddl = tmp_path / "tailrace.yaml", tmp_path / "migration.sql"
    file.write_text(FILE)
    ddl.write_text("SELECT 1")
    ended = cdc("schema", "check", "--ddl", str(ddl), "-c", str(file))
    assert (ended.code, "tailrace[ddl]" in ended.err) == (2, True)
