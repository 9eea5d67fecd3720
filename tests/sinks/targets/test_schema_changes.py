"""Every kind of schema change under every rule, in every target that has tables of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cdc.errors import SchemaIncompatible
from schemas.change import ABSENT, Cell
from schemas.table import Column, TableId, TableSchema, Type
from sinks.policy import Kind, Rule
from sinks.target import Mapped, Step, Target
from sinks.testing import span
from target_systems import DuckDB, MariaDB, Postgres, SQLite, System

RULES: tuple[Rule, ...] = ("apply", "ignore", "stop")


@pytest.fixture(params=["postgres", "mariadb", "sqlite", "duckdb"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> System:
    if request.param == "postgres":
        return Postgres(request.getfixturevalue("pg_database"))
    if request.param == "mariadb":
        server = request.getfixturevalue("mariadb")
        return MariaDB(server, request.getfixturevalue("fresh"))
    if request.param == "duckdb":
        return DuckDB(tmp_path / "shop.duckdb")
    return SQLite(tmp_path / "shop.db")


@pytest.fixture
def opened(system: System) -> Iterator[Callable[..., Target]]:
    """Open targets by rules, prepared for versions; all are closed after the test."""
    targets: list[Target] = []

    def open_(rules: object, *versions: TableSchema) -> Target:
        targets.append(system.target(rules))
        targets[-1].open()
        for schema in versions:
            targets[-1].prepare(schema)
        return targets[-1]

    yield open_
    for target in targets:
        target.close()


ID = Column("id", Type("int64"), nullable=False)
NAME = Column("name", Type("string"))
N = Column("n", Type("int32"))
WIDE = Column("n", Type("float64"))
TEXT = Column("n", Type("string"))
SURE = Column("n", Type("int32"), nullable=False)
M = Column("m", Type("int32"))


def version(*columns: Column, former: Sequence[Column] = (), table: str = "items") -> TableSchema:
    return TableSchema(TableId("", table), columns, ("id",), former=tuple(former))


OLD = version(ID, NAME, N)
NEW: dict[Kind, TableSchema] = {
    "add": version(ID, NAME, N, M),
    "widen": version(ID, NAME, WIDE, former=[N]),
    "retype": version(ID, NAME, TEXT, former=[N]),
    "rename": version(ID, NAME, M, former=[N]),
    "drop": version(ID, NAME, former=[N]),
    "nullability": version(ID, NAME, N, former=[SURE]),
}
CELL: dict[Kind, bytes | None] = {"widen": b"2.5", "retype": b"two", "nullability": None}
TYPES = {
    "Postgres": {"int32": "integer", "float64": "double precision", "string": "text"},
    "MariaDB": {"int32": "int(11)", "float64": "double", "string": "longtext"},
    "MySQL": {"int32": "int", "float64": "double", "string": "longtext"},
    "DuckDB": {"int32": "integer", "float64": "double", "string": "varchar"},
    "SQLite": {"int32": "INTEGER", "float64": "REAL", "string": "TEXT"},
}


def written(target: Target, schema: TableSchema, *rows: Sequence[Cell]) -> None:
    """Apply whole rows in a transaction of their own."""
    target.apply([[Mapped(schema, list(rows), [])]], [span_of(target)])


def span_of(target: Target) -> Any:
    partition = span(None, 1).partition
    cursor = target.cursors([partition])[partition]
    start = None if cursor is None else cursor.offset
    return span(start, (start or 0) + 1)


def cells(kind: Kind, rule: Rule) -> list[Cell]:
    value = b"2" if rule == "ignore" else CELL.get(kind, b"2")
    return [b"2", b"b", *([value] * (len(NEW[kind].columns) - 2))]


def begun(system: System, opened: Callable[..., Target], kind: Kind) -> None:
    """Leave a table as the version before left it, with one row."""
    if kind == "nullability":
        system.query(
            "CREATE TABLE items (id bigint PRIMARY KEY, name text, n integer NOT NULL)"
            if isinstance(system, Postgres)
            else "CREATE TABLE items (id BIGINT PRIMARY KEY, name TEXT, n INTEGER NOT NULL)"
        )
    target = opened("additive", OLD)
    written(target, OLD, (b"1", b"a", b"1"))
    target.close()


def unable(system: System, kind: Kind, rule: Rule) -> bool:
    """Tell whether the target cannot do, or must not leave, what the rule asks, and stops."""
    if rule == "ignore":  # PostgreSQL refuses what does not fit, the others would change it
        return kind in ("widen", "retype") and not isinstance(system, Postgres)
    return isinstance(system, SQLite) and kind in ("widen", "retype", "nullability")


CASES = [(kind, rule) for kind in NEW for rule in RULES if (kind, rule) != ("rename", "apply")]


@pytest.mark.parametrize(("kind", "rule"), CASES)
def test_a_rule_decides_what_becomes_of_the_table(
    kind: Kind, rule: Rule, system: System, opened: Callable[..., Target]
) -> None:
    begun(system, opened, kind)
    before = system.columns("items")
    schema = NEW[kind]
    target = opened({"preset": "additive", kind: rule})
    if rule == "stop" or unable(system, kind, rule):
        with pytest.raises(SchemaIncompatible, match=r"\b[nm]\b"):
            target.prepare(schema)
        assert system.columns("items") == before
        return
    target.prepare(schema)
    if (kind, rule) == ("nullability", "ignore"):
        assert system.columns("items") == before
        return
    written(target, schema, cells(kind, rule))
    assert system.columns("items") == expected(system, kind, rule, before)
    assert list(map(str, shown(system))) == OUTCOME[kind, rule]


def expected(system: System, kind: Kind, rule: Rule, before: dict[str, str]) -> dict[str, str]:
    types = TYPES[type(system).__name__]
    made: dict[Kind, dict[str, str]] = {
        "add": {**before, "m": types["int32"]},
        "widen": {**before, "n": types["float64"]},
        "retype": {**before, "n": types["string"]},
        "drop": {name: kind for name, kind in before.items() if name != "n"},
        "nullability": before,
    }
    if kind == "rename":  # taken for what it also is: a column that came and one that is gone
        return made["add"]
    return made[kind] if rule == "apply" else before


def shown(system: System) -> list[tuple[Any, ...]]:
    return system.query("SELECT * FROM items ORDER BY id")


OUTCOME = {
    ("add", "apply"): ["(1, 'a', 1, None)", "(2, 'b', 2, 2)"],
    ("add", "ignore"): ["(1, 'a', 1)", "(2, 'b', 2)"],
    ("widen", "apply"): ["(1, 'a', 1.0)", "(2, 'b', 2.5)"],
    ("widen", "ignore"): ["(1, 'a', 1)", "(2, 'b', 2)"],
    ("retype", "apply"): ["(1, 'a', '1')", "(2, 'b', 'two')"],
    ("retype", "ignore"): ["(1, 'a', 1)", "(2, 'b', 2)"],
    ("rename", "ignore"): ["(1, 'a', 1, None)", "(2, 'b', None, 2)"],
    ("drop", "apply"): ["(1, 'a')", "(2, 'b')"],
    ("drop", "ignore"): ["(1, 'a', 1)", "(2, 'b', None)"],
    ("nullability", "apply"): ["(1, 'a', 1)", "(2, 'b', None)"],
}
"""Kind and rule → the rows afterwards: one of the version before, one of the new one."""


@pytest.mark.parametrize("kind", ["add", "drop"])
def test_the_statement_a_stop_shows_lets_the_sink_go_on(
    kind: Kind, system: System, opened: Callable[..., Target]
) -> None:
    begun(system, opened, kind)
    target = opened("frozen")
    with pytest.raises(SchemaIncompatible) as caught:
        target.prepare(NEW[kind])
    system.query(caught.value.hint)
    target.prepare(NEW[kind])
    written(target, NEW[kind], cells(kind, "apply"))
    assert len(shown(system)) == 2


def test_a_column_is_dropped_behind_the_first_rows_without_it(
    system: System, opened: Callable[..., Target]
) -> None:
    begun(system, opened, "drop")
    target = opened("mirror", OLD, NEW["drop"])
    assert "n" in system.columns("items")
    both: list[Step] = [
        [Mapped(OLD, [(b"2", b"b", b"2")], [])],
        [Mapped(NEW["drop"], [(b"1", b"new")], [])],
    ]
    target.apply(both, [span_of(target)])
    assert shown(system) == [(1, "new"), (2, "b")]
    written(target, OLD, (b"3", b"late", b"3"))
    assert shown(system)[2:] == [(3, "late")]


def test_a_version_met_inside_a_transaction_that_is_never_whole_drops_its_column_too(
    system: System, opened: Callable[..., Target]
) -> None:
    begun(system, opened, "drop")
    target = opened("mirror", OLD)

    def steps() -> Iterator[Step]:
        yield [Mapped(OLD, [(b"2", b"b", b"2")], [])]
        target.prepare(NEW["drop"])
        yield [Mapped(NEW["drop"], [(b"3", b"c")], [])]

    target.apply(steps(), [span_of(target)])
    assert shown(system) == [(1, "a"), (2, "b"), (3, "c")]


def test_a_drop_that_a_crash_prevented_comes_with_the_next_row(
    system: System, opened: Callable[..., Target]
) -> None:
    begun(system, opened, "drop")
    opened("mirror", NEW["drop"]).close()
    assert "n" in system.columns("items")
    written(opened("mirror", NEW["drop"]), NEW["drop"], (b"1", b"a"))
    assert "n" not in system.columns("items")


def test_an_old_row_that_is_read_again_does_not_bring_a_dropped_column_back(
    system: System, opened: Callable[..., Target]
) -> None:
    begun(system, opened, "drop")
    written(opened("mirror", NEW["drop"]), NEW["drop"], (b"1", b"a"))
    again = msgspec.structs.replace(OLD, passing=("n",))
    written(opened("mirror", again), again, (b"2", b"b", b"2"))
    assert shown(system) == [(1, "a"), (2, "b")]


def test_an_old_row_that_is_read_again_is_held_to_the_newest_type(
    system: System, opened: Callable[..., Target]
) -> None:
    first = version(ID, NAME, TEXT)
    opened("additive", version(ID, NAME, N)).close()
    again = msgspec.structs.replace(first, passing=("n",))
    written(opened("mirror", again), again, (b"2", b"b", b"2"))
    assert shown(system) == [(2, "b", 2)]


def test_a_mirror_leaves_the_columns_of_somebody_else(
    system: System, opened: Callable[..., Target]
) -> None:
    begun(system, opened, "drop")
    system.query("ALTER TABLE items ADD COLUMN mine INTEGER DEFAULT 7")
    target = opened("mirror", NEW["drop"])
    written(target, NEW["drop"], (b"2", b"b"))
    assert sorted(system.columns("items")) == ["id", "mine", "name"]


def test_a_row_of_the_version_before_is_held_to_the_new_type(
    system: System, opened: Callable[..., Target]
) -> None:
    if isinstance(system, SQLite):
        system.query("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, n)")
    begun(system, opened, "retype")
    target = opened("mirror", OLD, NEW["retype"])
    both: list[Step] = [
        [Mapped(OLD, [(b"2", b"b", b"2")], [])],
        [Mapped(NEW["retype"], [(b"3", b"c", b"three")], [])],
    ]
    target.apply(both, [span_of(target)])
    assert [str(row[2]) for row in shown(system)] == ["1", "2", "three"]


@pytest.mark.parametrize("system", ["postgres", "mariadb", "duckdb"], indirect=True)
def test_values_that_do_not_convert_stop_the_sink(
    system: System, opened: Callable[..., Target]
) -> None:
    first = version(ID, NAME, TEXT)
    written(opened("additive", first), first, (b"1", b"a", b"many"))
    before = system.columns("items")
    with pytest.raises(SchemaIncompatible):
        opened("mirror", version(ID, NAME, N, former=[TEXT]))
    assert system.columns("items") == before


def test_a_column_that_is_left_out_takes_no_part_in_any_change(
    system: System, opened: Callable[..., Target]
) -> None:
    begun(system, opened, "add")
    schema = NEW["add"]
    target = opened({"add": "ignore"}, schema)
    moved = Mapped(schema, [], [(b"1",)], moves=[((b"1",), (b"3", b"moved", ABSENT, ABSENT))])
    target.apply([[moved]], [span_of(target)])
    partial = Mapped(schema, [(b"3", ABSENT, b"5", b"9")], [], lines=[b"4\tline\t4\t4"])
    target.apply([[partial]], [span_of(target)])
    assert shown(system) == [(3, "moved", 5), (4, "line", 4)]


def test_a_row_without_a_key_is_found_by_the_columns_that_are_there(
    system: System, opened: Callable[..., Target]
) -> None:
    first = TableSchema(TableId("", "notes"), (NAME,))
    opened("additive", first).close()
    schema = TableSchema(TableId("", "notes"), (NAME, M))
    target = opened({"add": "ignore"}, schema)
    written(target, schema, (b"a", b"1"), (b"a", b"1"))
    target.apply([[Mapped(schema, [], [(b"a", b"1")])]], [span_of(target)])
    assert system.query("SELECT * FROM notes") == [("a",)]


def test_postgres_does_not_leave_a_type_that_would_round(pg_database: str) -> None:
    coarse, fine = (Column("n", Type("decimal", "", 12, scale)) for scale in (2, 3))
    system = Postgres(pg_database)
    with closing(system.target("additive")) as target:
        target.open()
        target.prepare(version(ID, coarse))
    with closing(system.target({"retype": "ignore"})) as target:
        target.open()
        with pytest.raises(SchemaIncompatible, match="would round"):
            target.prepare(version(ID, fine, former=[coarse]))
