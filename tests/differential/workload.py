"""Random operations from a seed: the same ones each time, whatever the server answers.

Transactions of 1 to 60 operations over four tables: inserts, updates that leave a large value
alone or not, changes of the key, deletes, truncations, savepoints rolled back, whole transactions
rolled back. Values of every type come from `VALUES`, the nasty ones among them.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import psycopg

from nasty_values import VALUES as NASTY

TABLES = ("plain", "whole", "indexed", "keyless")
SCHEMA = Path(__file__).with_name("workload.sql")
ROLLED_BACK = 0.05
SAVEPOINT = 0.1
TRUNCATE = 0.0005
KEY_CHANGE = 0.08
ALIVE = 400

KINDS: dict[str, str] = {
    "small": "smallint",
    "big": "bigint",
    "price": "numeric(10,2)",
    "exact": "numeric",
    "ratio": "double precision",
    "single": "real",
    "flag": "boolean",
    "name": "text",
    "fixed": "character(5)",
    "note": "text",
    "at": "timestamp",
    "atz": "timestamptz",
    "day": "date",
    "clock": "time",
    "span": "interval",
    "mark": "uuid",
    "doc": "json",
    "docb": "jsonb",
    "raw": "bytea",
    "list": "integer[]",
    "words": "text[]",
    "feel": "public.mood",
    "host": "inet",
}
"""Column → the type of `nasty_values` whose values it takes."""

LEFT_OUT: dict[str, tuple[str, ...]] = {
    "exact": ("Infinity", "-Infinity"),
    "list": ("[0:1]={1,2}", "[-1:0][2:2]={{1},{2}}", "{{1,2},{3,NULL}}"),
    "feel": ("a,b {}", "\\N", " "),
}
"""Values not tried beside Debezium: infinite numerics, arrays with bounds or dimensions of their
own, and labels this enum does not have. How Debezium fares with the first two was not measured;
tests/fidelity tries them without it."""


def values_of(column: str) -> list[str]:
    """Return what a column may hold; its longest is a large row, not a huge one."""
    chosen = [v for v in NASTY[KINDS[column]] if len(v) < 4_000]
    if column == "name":
        chosen = [v for v in chosen if len(v) <= 40]
    return [v for v in chosen if v not in LEFT_OUT.get(column, ())]


class Workload:
    """`run` does at least `count` operations and returns how many were committed."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._random = random.Random(seed)  # noqa: S311 - the same operations each time
        self._values = {column: values_of(column) for column in KINDS}
        self._alive: dict[str, list[tuple[int, str]]] = {table: [] for table in TABLES}
        self._next = 0

    def run(self, count: int) -> int:
        done = 0
        with psycopg.connect(self._url, autocommit=True) as db:
            db.execute("SET synchronous_commit = off")
            while done < count:
                done += self._transaction(db)
            db.execute("INSERT INTO public.marker VALUES (1)")
        return done

    def _transaction(self, db: psycopg.Connection[Any]) -> int:
        kept = {table: list(alive) for table, alive in self._alive.items()}
        size = self._random.choice((1, 1, 2, 5, 20, 60))
        with db.transaction() as outer, db.pipeline():
            done = sum(self._piece(db) for _ in range(size))
            if self._random.random() < ROLLED_BACK:
                self._alive, done = kept, 0
                raise psycopg.Rollback(outer)
        return done

    def _piece(self, db: psycopg.Connection[Any]) -> int:
        if self._random.random() >= SAVEPOINT:
            self._operation(db)
            return 1
        kept = {table: list(alive) for table, alive in self._alive.items()}
        db.execute("SAVEPOINT inner_one")
        self._operation(db)
        self._operation(db)
        db.execute("ROLLBACK TO SAVEPOINT inner_one")
        self._alive = kept
        return 0

    def _operation(self, db: psycopg.Connection[Any]) -> None:
        table = self._random.choice(TABLES)
        alive, dice = self._alive[table], self._random.random()
        if dice < TRUNCATE:
            alive.clear()
            db.execute(f"TRUNCATE public.{table}")
        elif dice < 0.35 or len(alive) < 10:
            self._insert(db, table)
        elif dice < 0.35 + KEY_CHANGE:
            self._update(db, table, {**self._row(2), **self._key()})
        elif dice < 0.8 and len(alive) < ALIVE:
            self._update(db, table, self._row(self._random.choice((1, 2, 5))))
        else:
            where = self._where(alive.pop(self._random.randrange(len(alive))))
            db.execute(f"DELETE FROM public.{table} WHERE {where}")

    def _key(self) -> dict[str, Any]:
        self._next += 1
        return {"id": self._next, "code": self._random.choice(("a", "b c", "ü", ""))}

    def _row(self, columns: int) -> dict[str, Any]:
        names = self._random.sample(sorted(KINDS), columns)
        row: dict[str, Any] = {name: self._random.choice(self._values[name]) for name in names}
        if self._random.random() < 0.1:
            row[names[0]] = None
        if self._random.random() < 0.15:
            row["body"] = str(self._random.random()) * self._random.choice((1, 300))
        return row

    def _insert(self, db: psycopg.Connection[Any], table: str) -> None:
        row = {**self._row(len(KINDS)), **self._key()}
        names = ", ".join(row)
        holders = ", ".join(["%s"] * len(row))
        db.execute(f"INSERT INTO public.{table} ({names}) VALUES ({holders})", list(row.values()))
        self._alive[table].append((row["id"], row["code"]))

    def _update(self, db: psycopg.Connection[Any], table: str, row: dict[str, Any]) -> None:
        alive = self._alive[table]
        place = self._random.randrange(len(alive))
        old = alive[place]
        alive[place] = (row.get("id", old[0]), row.get("code", old[1]))
        changes = ", ".join(f"{name} = %s" for name in row)
        db.execute(
            f"UPDATE public.{table} SET {changes} WHERE {self._where(old)}", list(row.values())
        )

    def _where(self, key: tuple[int, str]) -> str:
        return f"id = {key[0]} AND code = '{key[1]}'"
