"""What happens to the source: rows for Debezium's snapshot, then every kind of change.

Values of each type are the nasty ones; `LEFT_OUT` are those that Debezium 3.6 does not carry,
each seen with a live one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from nasty_values import PREPARE, VALUES

TYPES = (
    *("boolean", "smallint", "integer", "bigint", "oid", "real", "double precision", "numeric"),
    *("numeric(10,2)", "numeric(38,0)", "numeric(20,20)", "text", "character varying(5)"),
    *("character(5)", "bytea", "date", "time", "time(0)", "timestamp", "timestamp(3)"),
    *("timestamptz", "interval", "uuid", "json", "jsonb", "bit(3)", "inet", "cidr", "macaddr"),
    *("integer[]", "text[]", "boolean[]", "double precision[]", "jsonb[]", "int4range"),
    *("tstzrange", "public.mood", "public.citext", "public.hstore", "public.ltree", "xml"),
    *("tsvector", "point", "public.price"),
)
KINDS = {f"k{number:02}": type_ for number, type_ in enumerate(TYPES)}
"""Column of the table `kinds` → its type."""

LEFT_OUT: dict[str, tuple[str, ...]] = {
    # The connector stops at them, unless decimals are sent as text.
    "numeric": ("NaN", "Infinity", "-Infinity"),
    "numeric(10,2)": ("NaN",),
    "numeric(38,0)": ("NaN",),
    "public.price": ("NaN",),
    # Before the change of calendars the snapshot counts Julian days, and knows no BC.
    "date": ("4714-11-24 BC", "0001-12-31 BC", "1582-10-10"),
    # 64 bits of microseconds run over.
    "timestamp": ("294276-12-31 23:59:59.999999",),
    # Several dimensions come as an array of nulls, bounds of their own not at all.
    "integer[]": ("{{1,2},{3,NULL}}", "[0:1]={1,2}", "[-1:0][2:2]={{1},{2}}"),
}

_LARGE = "repeat(md5(({id})::text), 100)"
_FILL = """
INSERT INTO public.{table} SELECT id, (array['a', 'b c', 'ü', ''])[1 + id % 4], 'note ' || id,
    {large}, decode(md5(id::text), 'hex'), jsonb_build_object('n', id), array['a,b', NULL, ''],
    '2024-02-29 12:00:00+00'::timestamptz + id * '1.000001 s'::interval, '2000-01-01', id / 7.0
FROM generate_series({first}, {last}) id
"""
_CHANGES = """
UPDATE public.{table} SET note = 'changed' WHERE id % 2 = 0;
UPDATE public.{table} SET id = id + 1000 WHERE id % 5 = 0;
UPDATE public.{table} SET code = 'moved', body = body || '!' WHERE id % 7 = 0;
UPDATE public.{table} SET body = NULL, words = NULL WHERE id % 13 = 0;
DELETE FROM public.{table} WHERE id % 11 = 0;
BEGIN;
UPDATE public.{table} SET note = note || '1' WHERE id = 1;
UPDATE public.{table} SET id = 5001 WHERE id = 1;
UPDATE public.{table} SET note = note || '2' WHERE id = 5001;
DELETE FROM public.{table} WHERE id = 3;
INSERT INTO public.{table} (id, code, note, price) VALUES (3, 'ü', 'anew', -0.01);
COMMIT;
BEGIN;
DELETE FROM public.{table};
ROLLBACK;
"""
_REST = """
INSERT INTO public.gone SELECT n, 'before' FROM generate_series(50, 60) n;
TRUNCATE public.gone;
INSERT INTO public.gone SELECT n, 'after' FROM generate_series(55, 65) n;
UPDATE public.keyless SET note = 'changed' WHERE id = 1;
DELETE FROM public.keyless WHERE ctid = (SELECT min(ctid) FROM public.keyless WHERE id = 2);
INSERT INTO public.keyless VALUES (3, NULL, NULL);
"""


def values_of(type_: str) -> list[str]:
    """Return what a column of `kinds` may hold; nothing larger than a large row."""
    left_out = LEFT_OUT.get(type_, ())
    return [value for value in VALUES[type_] if len(value) < 4_000 and value not in left_out]


def prepare(db: psycopg.Connection[Any]) -> None:
    """Make the tables, and the rows that are there before Debezium comes."""
    make_tables(db)
    insert_kinds(db, 0)
    for table in ("moves", "whole"):
        db.execute(_fill(table, 1, 60))
    db.execute("INSERT INTO public.gone SELECT n, 'old' FROM generate_series(1, 10) n")
    large = _LARGE.format(id="1")
    db.execute(f"INSERT INTO public.keyless SELECT 1, 'note', {large}")
    db.execute("INSERT INTO public.keyless VALUES (2, 'twice', NULL), (2, 'twice', NULL)")


def prepare_types(db: psycopg.Connection[Any]) -> None:
    """Make the types that both sides know."""
    for extension in ("citext", "hstore", "ltree"):
        db.execute(f"CREATE EXTENSION {extension}".encode())
    db.execute(PREPARE.encode())


def make_tables(db: psycopg.Connection[Any]) -> None:
    """Make the tables, empty."""
    db.execute(Path(__file__).with_name("tables.sql").read_bytes())
    columns = ", ".join(f"{name} {type_}" for name, type_ in KINDS.items())
    db.execute(f"CREATE TABLE public.kinds (id int PRIMARY KEY, {columns})")


def insert_kinds(db: psycopg.Connection[Any], first: int) -> None:
    """Insert rows that together hold every value, and one of nulls."""
    values = {name: values_of(type_) for name, type_ in KINDS.items()}
    names = ", ".join(values)
    holders = ", ".join(["%s"] * len(values))
    query = f"INSERT INTO public.kinds (id, {names}) VALUES (%s, {holders})"
    for number in range(max(map(len, values.values()))):
        row = [known[number % len(known)] for known in values.values()]
        db.execute(query, [first + number, *row])
    db.execute("INSERT INTO public.kinds (id) VALUES (%s)", [first + 99])


def _fill(table: str, first: int, last: int) -> bytes:
    large = _LARGE.format(id="id")
    return _FILL.format(table=table, first=first, last=last, large=large).encode()


def change(db: psycopg.Connection[Any]) -> None:
    """Do everything a table can go through."""
    insert_kinds(db, 100)
    for table in ("moves", "whole"):
        db.execute(_fill(table, 61, 90))
        db.execute(_CHANGES.format(table=table).encode())
    db.execute(_REST.encode())
    with db.cursor().copy("COPY public.gone FROM STDIN") as copy:
        copy.write("".join(f"{number}\tcopied\n" for number in range(1000, 1100)))
