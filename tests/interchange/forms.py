"""The forms Debezium's topics are read in, and what is compared of each."""

from __future__ import annotations

from typing import Any

import psycopg

from interchange.workload import KINDS

MOVES = {
    "id": "int",
    "code": "text",
    "note": "text",
    "body": "text",
    "raw": "bytea",
    "doc": "jsonb",
    "words": "text[]",
    "at": "timestamptz",
    "day": "date",
    "price": "numeric(12,2)",
}
ALL = ("kinds", "moves", "whole", "gone", "keyless")
FORMS: dict[str, tuple[str, ...]] = {
    "json": ALL,
    "avro": ALL,
    "unwrapped": ("kinds", "moves", "whole"),
    "bare": ("moves", "whole"),
}
"""Form → tables it can carry: unwrapped, truncations and tables without a key are lost."""


def mapping(form: str, source: str) -> dict[str, Any]:
    """The `tables:` of a sink of the topics of one form."""
    columns = {"columns": MOVES} if form == "bare" else {}
    return {f"{source}.public.{table}": columns for table in FORMS[form]}


def rows(url: str, table: str) -> list[Any]:
    """Every row as text, each value brought to the source's type first."""
    types = {"id": "int", **KINDS} if table == "kinds" else {}
    picks = [
        f"trim_scale({column}::numeric)::text" if kind == "numeric" else f"{column}::{kind}::text"
        for column, kind in types.items()
    ]
    what = ", ".join(picks) or "*"
    with psycopg.connect(url, autocommit=True) as db:
        query = f"SELECT to_jsonb(t)::text FROM (SELECT {what} FROM public.{table}) t"
        if picks:
            query = f"SELECT ARRAY[{what}]::text FROM public.{table}"
        return sorted(row[0] for row in db.execute(query.encode()).fetchall())
