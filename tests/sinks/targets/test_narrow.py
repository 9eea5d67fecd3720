"""A column of somebody else's that would not hold every value, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from cdc.errors import SchemaIncompatible
from schemas.table import Column, TableId, TableSchema, Type
from sinks.target import Mapped, Target
from sinks.testing import span
from target_systems import Postgres

KEPT = [
    ("numeric(23,4)", "bigint", "-9223372036854775808"), ("jsonb", "bigint", "1"),
    ("character varying(20)", "bigint", "-9223372036854775808"),
    ("double precision", "numeric(15,3)", "999999999999.999"),
    ("numeric", "double precision", "5e-324"),
    ("timestamp(6) without time zone", "timestamp(3) without time zone", "2026-01-31 08:00:00.5"),
    ("text", "character varying(9)", "äöü😀"), ("public.amount", "numeric(9,2)", "-1234567.89"),
    ("public.amount", "public.amount", "-1234567.89"),
]  # fmt: skip
NARROW = [
    ("numeric(5,2)", "numeric(12,4)", "1.0049"), ("public.amount", "numeric(9,3)", "1.005"),
    ("integer", "bigint", "3000000000"), ("character varying(5)", "text", "longer"),
    ("date", "timestamp without time zone", "2026-01-31 08:00:00"), ("date", "text", "today"),
    ("timestamp without time zone", "timestamp with time zone", "2026-01-31 08:00:00+00"),
    ("timestamp(3) without time zone", "timestamp without time zone", "2026-01-31 08:00:00.0005"),
]  # fmt: skip


@pytest.fixture
def system(pg_database: str) -> Postgres:
    system = Postgres(pg_database)
    system.query("CREATE DOMAIN public.amount AS numeric(9,2)")
    return system


@pytest.fixture
def target(system: Postgres) -> Iterator[Target]:
    target = system.target("additive")
    target.open()
    yield target
    target.close()


def mapped(system: Postgres, there: str, wanted: str) -> TableSchema:
    """Make a table whose column is `there`; return what the source says of it."""
    system.query(f"CREATE TABLE things (id bigint PRIMARY KEY, v {there})")
    columns = (Column("id", Type("int64")), Column("v", Type("text", f"postgres {wanted}")))
    return TableSchema(TableId("public", "things"), columns, ("id",))


def assert_kept(
    system: Postgres, target: Target, schema: TableSchema, wanted: str, value: str
) -> None:
    target.apply([[Mapped(schema, [(b"1", value.encode())], [])]], [span(None, 1)])
    query = f"SELECT v::{wanted} = ('{value}')::{wanted} FROM things"
    assert system.query(query) == [(True,)]


@pytest.mark.parametrize(("there", "wanted", "value"), KEPT)
def test_a_column_that_holds_every_value_is_left_as_it_is(
    system: Postgres, target: Target, there: str, wanted: str, value: str
) -> None:
    schema = mapped(system, there, wanted)
    before = system.columns("things")
    target.prepare(schema)
    assert system.columns("things") == before
    assert_kept(system, target, schema, wanted, value)


@pytest.mark.parametrize(("there", "wanted", "value"), NARROW)
def test_a_column_that_would_round_cut_or_refuse_values_stops_the_sink(
    system: Postgres, target: Target, there: str, wanted: str, value: str
) -> None:
    schema = mapped(system, there, wanted)
    with pytest.raises(SchemaIncompatible, match=r"public\.things\.v is .* does not hold") as said:
        target.prepare(schema)
    assert wanted in str(said.value)
    system.query(said.value.hint.partition(";")[0])
    target.prepare(schema)
    assert_kept(system, target, schema, wanted, value)


def test_a_column_that_the_mapping_casts_is_taken_as_it_is(
    system: Postgres, target: Target
) -> None:
    schema = mapped(system, "numeric(5,2)", "numeric")
    target.prepare(msgspec.structs.replace(schema, cast=("v",)))
    assert system.columns("things")["v"] == "numeric(5,2)"
