"""What a schema change asks of a target, and what the rules make of it: no database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from pydantic import ValidationError

from cdc.config import parse_pipeline
from schemas.evolution import widens
from schemas.table import Column, TableId, TableSchema, Type
from sinks.binding import MappedTable
from sinks.mapping import TableMap
from sinks.policy import (
    Change,
    Kind,
    Lineage,
    SchemaChanges,
    changes,
    former_columns,
    plan,
    stopped,
)
from sinks.sqlite.catalog import ExistingColumn
from sinks.targets.mariadb import Config as MariaConfig
from sinks.targets.postgres import Config as PostgresConfig

ID = Column("id", Type("int64", "postgres bigint"), nullable=False)
N = Column("n", Type("int32", "postgres integer"))
NAME = Column("name", Type("string", "postgres text"))
TABLE = TableId("public", "items")


def version(*columns: Column, former: tuple[Column, ...] = ()) -> TableSchema:
    return TableSchema(TABLE, columns, ("id",), former=former)


def column_of(name: str, kind: str, *, required: bool = False) -> ExistingColumn:
    return ExistingColumn(name, kind, generated=False, required=required)


def asked(
    schema: TableSchema, *there: tuple[str, str], required: tuple[str, ...] = ()
) -> list[str]:
    """Return the kinds and columns of what `schema` asks of a table of (name, logical type)."""
    table = {name: column_of(name, kind, required=name in required) for name, kind in there}
    found = changes(schema, table.get, lambda column, of: column.type == of.type.logical)
    return [f"{change.kind} {change.there}" for change in found]


PRESETS = {
    "additive": "apply apply apply ignore ignore stop stop apply",
    "mirror": "apply apply apply ignore apply apply stop apply",
    "frozen": "stop stop stop stop stop stop stop stop",
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_a_rule_for_every_kind(preset: str) -> None:
    rules = SchemaChanges.model_validate(preset)
    kinds: tuple[Kind, ...] = get_args(Kind)
    assert " ".join(rules.rule(kind) for kind in kinds) == PRESETS[preset]


def test_the_page_has_the_rules_of_each_preset() -> None:
    page = Path("sinks/policy.md").read_text("utf-8")
    for kind in get_args(Kind):
        rules = " | ".join(SchemaChanges.model_validate(name).rule(kind) for name in PRESETS)
        assert re.search(rf"^\| `{kind}` \| .* \| {re.escape(rules)} \|$", page, re.MULTILINE), kind


def test_the_pipeline_on_the_page_is_valid() -> None:
    found = re.search(r"```yaml\n(.*?)```", Path("sinks/policy.md").read_text("utf-8"), re.DOTALL)
    assert found is not None
    text = "pipeline: shop\nkafka: {bootstrap: k, registry: 'http://r'}\n" + found[1]
    pipeline = parse_pipeline(text, Path("policy.md"), {"CRM_URL": "postgresql://u@h/d"})
    config = pipeline.sinks["crm"].config
    assert isinstance(config, PostgresConfig)
    assert config.schema_changes == SchemaChanges(preset="additive", drop="stop")


def test_a_rule_of_its_own_goes_before_the_preset() -> None:
    rules = SchemaChanges.model_validate({"preset": "mirror", "drop": "stop"})
    assert (rules.rule("drop"), rules.rule("retype")) == ("stop", "apply")


@pytest.mark.parametrize("wrong", ["strict", {"rename": "apply"}, {"key": "apply"}, {"drops": 1}])
def test_what_nobody_can_do_rightly_cannot_be_asked_for(wrong: object) -> None:
    with pytest.raises(ValidationError):
        SchemaChanges.model_validate(wrong)


@pytest.mark.parametrize("config", [PostgresConfig, MariaConfig])
def test_several_workers_take_nothing_away(config: type[PostgresConfig | MariaConfig]) -> None:
    given = {"url": "x://u@h/d", "tables": [], "workers": 2, "schema_changes": "mirror"}
    with pytest.raises(ValidationError, match="drop or a retype need `workers: 1`"):
        config.model_validate(given)
    rules = {"preset": "mirror", "drop": "ignore", "retype": "stop"}
    config.model_validate({**given, "schema_changes": rules})


def test_only_what_an_earlier_version_had_is_dropped() -> None:
    there = [("id", "int64"), ("n", "int32"), ("mine", "string")]
    assert asked(version(ID, former=(N,)), *there) == ["drop n"]
    assert asked(version(ID), *there) == []


def test_a_column_that_differs_in_capitals_alone_is_not_dropped() -> None:
    folded = column_of("N", "int32")
    find = {"id": column_of("id", "int64"), "n": folded}
    schema = version(ID, N, former=(Column("N", N.type),))
    assert changes(schema, lambda name: find.get(name.lower()), lambda *_: True) == []


@pytest.mark.parametrize(
    ("there", "wanted"),
    [("int32", ["widen n"]), ("int64", []), ("string", [])],
)
def test_a_type_is_changed_only_where_it_is_the_one_of_an_earlier_version(
    there: str, wanted: list[str]
) -> None:
    schema = version(ID, Column("n", Type("int64")), former=(N,))
    assert asked(schema, ("id", "int64"), ("n", there)) == wanted


def test_a_type_that_does_not_hold_every_value_is_another_type() -> None:
    def native(name: str) -> Type:
        return Type("string", f"postgres character varying{name}")

    assert widens(native("(20)"), native("(30)"))
    assert widens(native("(20)"), native(""))
    assert not widens(native("(30)"), native("(20)"))
    assert not widens(native(""), native("(20)"))
    assert widens(Type("decimal", "", 10, 2), Type("decimal", "", 12, 2))
    assert not widens(Type("decimal", "", 10, 2), Type("decimal", "", 12, 3))
    schema = version(ID, Column("n", Type("string")), former=(N,))
    assert asked(schema, ("id", "int64"), ("n", "int32")) == ["retype n"]


def test_a_rename_is_suspected_and_stays_a_drop_and_an_add() -> None:
    schema = version(ID, Column("m", N.type), former=(N,))
    there = [("id", "int64"), ("n", "int32")]
    assert asked(schema, *there) == ["rename n", "add m", "drop n"]
    assert asked(version(ID, NAME, former=(N,)), *there) == ["add name", "drop n"]


def test_a_column_that_became_nullable_asks_only_where_it_takes_no_null() -> None:
    former = (Column("n", N.type, nullable=False),)
    there = [("id", "int64"), ("n", "int32")]
    assert asked(version(ID, N, former=former), *there, required=("n",)) == ["nullability n"]
    assert asked(version(ID, N, former=former), *there) == []
    assert asked(version(ID, N), *there, required=("n",)) == []


def test_a_drop_comes_behind_everything_else() -> None:
    found = [Change("drop", "n", "", N), Change("add", "m", "", None, NAME)]
    made = plan(found, SchemaChanges(preset="mirror"))
    assert ([c.kind for c in made.first], [c.kind for c in made.behind]) == (["add"], ["drop"])
    made = plan(found, SchemaChanges(add="ignore", drop="stop"))
    assert ([c.kind for c in made.left], [c.kind for c in made.stop]) == (["add"], ["drop"])


def test_a_stop_says_which_rules_it_goes_by() -> None:
    error = stopped(version(ID), [Change("drop", "n", "column n was dropped", N)], ["DROP IT"])
    assert str(error) == ("public.items: column n was dropped; `schema_changes` says stop (drop)")
    assert error.hint == "DROP IT;"


def test_former_columns_are_those_that_are_no_longer_so() -> None:
    first = version(ID, NAME, N)
    second = version(ID, NAME, Column("n", Type("int64")))
    third = version(ID, Column("n", Type("int64"), nullable=False))
    assert former_columns(second, [first]) == (N,)
    assert former_columns(third, [second, first]) == (NAME, Column("n", Type("int64")), N)


def test_a_passing_column_is_not_made_again_where_it_was_taken_away() -> None:
    schema = msgspec.structs.replace(version(ID, N), passing=("n",))
    find = {"id": column_of("id", "int64")}
    found = changes(schema, find.get, lambda *_: True)
    assert [c.kind for c in plan(found, SchemaChanges(preset="mirror")).left] == ["add"]
    assert [c.kind for c in plan(found, SchemaChanges(preset="frozen")).left] == ["add"]
    assert [c.kind for c in plan(found, SchemaChanges()).first] == ["add"]


def bound(mapping: object, *earlier: TableSchema, newest: TableSchema | None = None) -> TableSchema:
    """Return what becomes of a version with a name, after `earlier` ones."""
    table = TableMap.model_validate(mapping)
    lineage = Lineage(earlier, newest)
    return MappedTable.bind(version(ID, NAME), "shop.public.items", table, lineage).schema


def test_former_columns_are_called_as_the_mapping_calls_them() -> None:
    first = version(ID, NAME, N)
    assert [c.name for c in bound({}, first).former] == ["n"]
    assert bound({"drop": ["n"]}, first).former == ()
    assert bound({"fields": {"id": "id", "name": "name"}}, first).former == ()


def test_passing_columns_are_those_the_newest_version_has_no_more() -> None:
    assert bound({}, newest=version(ID, N)).passing == ("name",)
    assert bound({}, newest=version(ID, NAME, N)).passing == ()


@pytest.mark.parametrize("mode", ["append", "history"])
def test_a_journal_and_a_history_keep_the_columns_of_their_older_rows(mode: str) -> None:
    made = bound({"mode": mode}, version(ID, NAME, N), newest=version(ID))
    assert (made.former, made.passing) == ((), ())


def test_a_version_the_mapping_does_not_fit_had_nothing_in_the_target() -> None:
    assert bound({"fields": {"id": "id", "label": "name"}}, version(ID, N)).former == ()
