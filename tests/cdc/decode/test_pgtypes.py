"""Every type of a real server has a rule, and its native spelling is the server's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from cdc.decode.pgtypes import BUILT_IN, EXTENSIONS, TYPE_ROWS, TypeRow, column_type, type_row
from schemas.table import Type

CONTRIB = ("citext", "cube", "hstore", "intarray", "isn", "lo", "ltree", "pg_trgm", "seg")
BASE_TYPES = r"""
SELECT t.oid, t.typname FROM pg_catalog.pg_type t
WHERE t.typtype IN ('b', 'r', 'm') AND NOT (t.typcategory = 'A' AND t.typname LIKE '\_%')
"""

DECLARATIONS = """
boolean; smallint; int; bigint; oid; real; double precision; numeric; numeric(1,0); numeric(12,2);
numeric(1000,0); numeric(38,38); money; text; varchar; varchar(7); bpchar; char; char(12); name;
"char"; bytea; date; time; time(0); time(3); timetz; timetz(2); timestamp; timestamp(3);
timestamptz; timestamptz(0); interval; interval(2); interval year; interval month; interval day;
interval hour; interval minute; interval second; interval year to month; interval day to hour;
interval day to minute; interval day to second; interval day to second(3); interval second(0);
interval hour to minute; interval hour to second; interval minute to second; uuid; json; jsonb;
jsonpath; bit; bit(5); varbit; varbit(9); inet; cidr; macaddr; macaddr8; int[]; int[][]; text[];
numeric(10,3)[]; char(4)[]; varchar(5)[]; bit(3)[]; timestamptz(3)[]; interval day to second(1)[];
"char"[]; int4range; int8range; numrange; tsrange; tstzrange; daterange; int4range[];
int4multirange; nummultirange; tsvector; tsquery; point; line; lseg; box; path; polygon; circle;
xml; pg_lsn; xid; xid8; cid; tid; regclass; regtype; regproc; int2vector; oidvector; pg_snapshot;
txid_snapshot; refcursor; aclitem; regnamespace; point[]; xml[]; jsonb[]; uuid[]
"""


@pytest.fixture(params=[14, 18])
def server(
    request: pytest.FixtureRequest, postgres_server: Callable[[int], Any]
) -> Iterator[psycopg.Connection[Any]]:
    """One transaction in which everything made is forgotten again."""
    with psycopg.connect(postgres_server(request.param).url) as connection:
        connection.execute("SET search_path = pg_catalog")
        yield connection
        connection.rollback()


def known_types(connection: psycopg.Connection[Any]) -> dict[int, TypeRow]:
    return {row[0]: type_row(row) for row in connection.execute(TYPE_ROWS)}


def columns_of(connection: psycopg.Connection[Any], table: str) -> Iterator[tuple[int, int, str]]:
    query = """
    SELECT atttypid, atttypmod, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum
    """
    yield from connection.execute(query, (table,))


def made(connection: psycopg.Connection[Any], *declarations: str) -> list[Type]:
    columns = ", ".join(f"c{n} {text}" for n, text in enumerate(declarations))
    connection.execute(f"CREATE TABLE public.made ({columns})")
    types = known_types(connection)
    return [
        column_type(oid, typmod, types, spelled)
        for oid, typmod, spelled in columns_of(connection, "public.made")
    ]


def test_every_base_type_of_the_server_and_of_contrib_has_a_rule(
    server: psycopg.Connection[Any],
) -> None:
    for extension in CONTRIB:
        server.execute(f"CREATE EXTENSION {extension} SCHEMA public")
    found = list(server.execute(BASE_TYPES))
    without = [name for oid, name in found if oid not in BUILT_IN and name not in EXTENSIONS]
    assert without == []
    assert len(found) >= 100


def test_every_array_of_a_built_in_type_is_known(server: psycopg.Connection[Any]) -> None:
    query = "SELECT oid, typarray FROM pg_type WHERE oid < 16384 AND typarray <> 0 AND typtype IN "
    for oid, array in server.execute(query + "('b', 'r', 'm')"):
        assert BUILT_IN[oid].array == array


def test_the_native_name_is_what_the_server_calls_the_column(
    server: psycopg.Connection[Any],
) -> None:
    declared = [text.strip() for text in DECLARATIONS.replace("\n", " ").split(";")]
    columns = ", ".join(f"c{n} {text}" for n, text in enumerate(declared))
    server.execute(f"CREATE TABLE public.spelled ({columns})")
    found = list(columns_of(server, "public.spelled"))
    ours = [column_type(oid, typmod).native for oid, typmod, _ in found]
    assert ours == [f"postgres {spelled}" for _, _, spelled in found]


def test_the_native_name_creates_an_equal_column(server: psycopg.Connection[Any]) -> None:
    declared = [text.strip() for text in DECLARATIONS.replace("\n", " ").split(";")]
    first = made(server, *declared)
    before = list(columns_of(server, "public.made"))
    server.execute("DROP TABLE public.made")
    assert made(server, *(kind.native.removeprefix("postgres ") for kind in first)) == first
    assert list(columns_of(server, "public.made")) == before


def test_an_enum_carries_its_labels_in_their_order(server: psycopg.Connection[Any]) -> None:
    server.execute("""CREATE TYPE public."Mood; DROP" AS ENUM ('so', '''', '"', 'ünï, {}')""")
    server.execute("""ALTER TYPE public."Mood; DROP" ADD VALUE 'first' BEFORE 'so'""")
    (kind,) = made(server, 'public."Mood; DROP"')
    labels = ("first", "so", "'", '"', "ünï, {}")
    assert kind == Type("enum", 'postgres public."Mood; DROP"', labels=labels)


def test_a_domain_is_what_its_base_is_under_its_own_name(
    server: psycopg.Connection[Any],
) -> None:
    server.execute("CREATE DOMAIN public.price AS numeric(10,2) CHECK (VALUE > 0)")
    server.execute("CREATE DOMAIN public.discount AS public.price CHECK (VALUE < 100)")
    server.execute("CREATE DOMAIN public.tags AS text[]")
    price, discount, tags = made(server, "public.price", "public.discount", "public.tags")
    assert price == Type("decimal", "postgres public.price", 10, 2)
    assert discount == Type("decimal", "postgres public.discount", 10, 2)
    assert tags == Type("text", "postgres public.tags")


def test_composites_ranges_and_arrays_of_users_are_text(server: psycopg.Connection[Any]) -> None:
    server.execute("CREATE TYPE public.pair AS (a int, b text)")
    server.execute("CREATE TYPE public.floats AS RANGE (subtype = float8)")
    declared = ("public.pair", "public.pair[]", "public.floats", "public.floats[]")
    assert made(server, *declared) == [Type("text", f"postgres {name}") for name in declared]


def test_extension_types_keep_their_qualified_name(server: psycopg.Connection[Any]) -> None:
    server.execute("CREATE EXTENSION citext SCHEMA public")
    server.execute("CREATE EXTENSION hstore SCHEMA public")
    citext, hstore = made(server, "public.citext", "public.hstore")
    assert citext == Type("string", "postgres public.citext")
    assert hstore == Type("text", "postgres public.hstore")


def test_numeric_is_decimal_only_where_avro_can_say_it() -> None:
    def typmod(precision: int, scale: int) -> int:
        return (precision << 16 | scale & 0x7FF) + 4

    assert column_type(1700, -1) == Type("text", "postgres numeric")
    assert column_type(1700, typmod(12, 2)) == Type("decimal", "postgres numeric(12,2)", 12, 2)
    assert column_type(1700, typmod(3, -5)) == Type("text", "postgres numeric(3,-5)")
    assert column_type(1700, typmod(3, 5)) == Type("text", "postgres numeric(3,5)")


def test_odd_scales_of_the_newest_server_are_spelled_as_it_does(
    postgres: Any,
) -> None:
    with psycopg.connect(postgres.url) as connection:
        odd = ("numeric(3,-5)", "numeric(3,5)", "numeric(1000,-1000)", "numeric(2,1000)")
        assert [kind.native for kind in made(connection, *odd)] == [f"postgres {n}" for n in odd]
        connection.rollback()


def test_an_oid_nobody_knows_is_text() -> None:
    assert column_type(999_999, -1) == Type("text")
    assert column_type(999_999, 3, spelled="vector(3)") == Type("text", "postgres vector(3)")
