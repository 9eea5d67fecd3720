"""Which values a type has room for: the table that decides it, without a server."""

from __future__ import annotations

import pytest

from schemas.table import Type
from sinks.room import holds

TEXT = "text"
BIGINT = "bigint"
MOMENT, ZONED = "timestamp without time zone", "timestamp with time zone"
KEPT = [
    ("numeric(23,4)", BIGINT), ("numeric", "double precision"), ("bigint", "smallint"),
    ("bigint", "numeric(18,0)"), ("double precision", "integer"), ("double precision", "real"),
    ("double precision", "numeric(15,3)"), ("real", "numeric(6,2)"), ("real", "smallint"),
    ("numeric(14,4)", "numeric(12,2)"), ("numeric(9,0)", "numeric(3,-5)"), (TEXT, "numeric"),
    ("character varying(20)", BIGINT), ("character varying(14)", "numeric(12,4)"),
    (TEXT, "character(5)"), ("character(6)", "character(5)"), ("bpchar", "character varying"),
    (MOMENT, "date"), (ZONED, MOMENT), (ZONED, "timestamp(3) with time zone"), (TEXT, ZONED),
    ("time with time zone", "time(3) without time zone"), ("interval", "interval day"),
    ("interval(3)", "interval(3)"), ("numeric(9,2)[]", "numeric(5,2)[]"),
]  # fmt: skip
NARROW = [
    ("numeric(22,4)", BIGINT), ("numeric(12,4)", "numeric"), ("numeric(12,2)", "real"),
    ("integer", BIGINT), ("integer", "numeric(10,0)"), ("bigint", "numeric(12,2)"),
    ("real", "integer"), ("real", "double precision"), ("double precision", BIGINT),
    ("double precision", "numeric(16,3)"), ("numeric(5,2)", "numeric(12,4)"),
    ("numeric(3,-5)", "integer"), ("character varying(5)", TEXT),
    ("character varying(19)", BIGINT), ("character varying(10)", "numeric"),
    ("character varying(20)", ZONED), ("character varying(9)", "json"),
    ("character(5)", "character varying(5)"), ("character(5)", "character(6)"), ("name", TEXT),
    ("date", MOMENT), (MOMENT, ZONED), ("timestamp(3) without time zone", MOMENT),
    ("time without time zone", "time with time zone"), ("date", TEXT), ("integer", TEXT),
    ("interval day", "interval"), ("interval(3)", "interval"), ("numeric(5,2)[]", "numeric(9,2)[]"),
]  # fmt: skip


def native(spelled: str) -> Type:
    return Type("", f"postgres {spelled}")


@pytest.mark.parametrize(("there", "wanted"), KEPT)
def test_a_wider_type_holds_every_value(there: str, wanted: str) -> None:
    assert holds(native(there), native(wanted)) is True


@pytest.mark.parametrize(("there", "wanted"), NARROW)
def test_a_narrower_type_does_not(there: str, wanted: str) -> None:
    assert holds(native(there), native(wanted)) is False


@pytest.mark.parametrize(
    ("there", "wanted", "told"),
    [
        ("character varying(20)", Type("string", "mariadb varchar(20)"), True),
        ("character varying(19)", Type("string", "mariadb varchar(20)"), False),
        ("smallint", Type("int16", "mariadb tinyint(4)"), True),
        ("integer", Type("int64", "mariadb int(10) unsigned"), False),
        ("numeric(20,0)", Type("decimal", "mariadb bigint(20) unsigned", 20, 0), True),
        ("timestamp(0) without time zone", Type("timestamp", "mariadb datetime"), True),
        ("character(36)", Type("uuid", "postgres uuid"), True),
        ("character varying(3)", Type("enum", "postgres mood", labels=("sad", "ok")), True),
        ("character varying(2)", Type("enum", "postgres mood", labels=("sad", "ok")), False),
        ("numeric(12,2)", Type("decimal", "postgres public.price", 10, 2), True),
        ("numeric(9,2)", Type("decimal", "postgres public.price", 10, 2), False),
        ("integer", Type("int64"), False),
        (TEXT, Type("bytes", "postgres bytea"), False),
    ],
)
def test_a_type_of_another_dialect_is_measured_too(
    there: str,
    wanted: Type,
    told: bool,  # noqa: FBT001
) -> None:
    assert holds(native(there), wanted) is told


@pytest.mark.parametrize("there", ["jsonb", "uuid", "public.mood", "inet"])
def test_of_a_type_that_refuses_what_it_does_not_know_nothing_is_told(there: str) -> None:
    assert holds(native(there), native(TEXT)) is None
