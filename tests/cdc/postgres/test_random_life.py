"""Random lives: every kind of change, savepoints, DDL, truncations and kills end with equality."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from fix_capture import Capture, table_rows

Db = psycopg.Connection[Any]
KEYS = 400


class Life:
    """What happens to two tables; each step is one transaction, some of them rolled back."""

    def __init__(self, db: Db, seed: int) -> None:
        self.db = db
        self.rng = random.Random(seed)  # noqa: S311 - a workload
        self.columns = 0

    def begin(self) -> None:
        self.db.execute(
            f'ALTER DATABASE "{self.db.info.dbname}" SET logical_decoding_work_mem = 64'
        )
        for name in ("item", "wide"):
            self.db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, name text, body text)")
            self.db.execute(
                f"INSERT INTO {name} SELECT i, 'old', md5(i::text) FROM generate_series(1, 300) i"
            )
        self.db.execute("ALTER TABLE wide REPLICA IDENTITY FULL")

    def step(self) -> None:
        kinds: list[tuple[int, Callable[[], None]]] = [
            (30, self.small),
            (6, self.large),
            (6, self.moved),
            (1, self.truncated),
            (1, self.reshaped),
        ]
        [kind] = self.rng.choices([k for _, k in kinds], [weight for weight, _ in kinds])
        with self.db.transaction() as outer:
            kind()
            with self.db.transaction() as inner:
                self.small()
                if self.rng.random() < 0.5:
                    raise psycopg.Rollback(inner)
            self.small()
            if self.rng.random() < 0.1:
                raise psycopg.Rollback(outer)

    def table(self) -> str:
        return self.rng.choice(("item", "wide"))

    def key(self) -> int:
        return self.rng.randrange(KEYS)

    def small(self) -> None:
        table, key, word = self.table(), self.key(), f"w{self.rng.random()}"
        body = "repeat(md5(%s), 200)" if self.rng.random() < 0.2 else "md5(%s)"
        upsert = (
            f"INSERT INTO {table} (id, name, body) VALUES (%s, %s, {body})"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, body = excluded.body"
        )
        match self.rng.randrange(4):
            case 0:
                self.db.execute(f"DELETE FROM {table} WHERE id = %s", (key,))
            case 1:
                self.db.execute(f"UPDATE {table} SET name = %s WHERE id = %s", (word, key))
            case _:
                self.db.execute(upsert, (key, word, word))

    def large(self) -> None:
        table, word = self.table(), f"w{self.rng.random()}"
        self.db.execute(
            f"INSERT INTO {table} (id, name, body) SELECT i, %s, md5(i::text)"
            " FROM generate_series(0, 399) i"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            (word,),
        )
        with self.db.transaction() as inner:
            self.db.execute(f"DELETE FROM {table} WHERE id % 3 = 0")
            if self.rng.random() < 0.5:
                raise psycopg.Rollback(inner)

    def moved(self) -> None:
        table, old, new = self.table(), self.key(), self.key()
        if old != new:
            self.db.execute(f"DELETE FROM {table} WHERE id = %s", (new,))
            self.db.execute(f"UPDATE {table} SET id = %s WHERE id = %s", (new, old))

    def truncated(self) -> None:
        self.db.execute("TRUNCATE item" if self.rng.random() < 0.5 else "TRUNCATE item, wide")

    def reshaped(self) -> None:
        self.columns += 1
        self.db.execute(f"ALTER TABLE {self.table()} ADD COLUMN n{self.columns} int DEFAULT 7")


@pytest.mark.parametrize("seed", range(4))
def test_a_random_life_with_kills_ends_equal(capture: Capture, db: Db, seed: int) -> None:
    life = Life(db, seed)
    life.begin()
    capture.options.update(chunk_rows=60, memory=20_000)
    for _ in range(150):
        life.step()
        capture.commits = life.rng.random() < 0.7
        for _ in range(life.rng.randrange(4)):
            capture.step(0.01)
        if capture.commits:
            capture.commit()
        elif life.rng.random() < 0.3:
            capture.kill()
    capture.commits = True
    capture.until_snapshot_done()
    capture.until_caught_up(db)
    capture.until_snapshot_done()
    for table in ("item", "wide"):
        assert capture.model.rows(f"public.{table}") == table_rows(db, f"SELECT * FROM {table}")
    for name in ("public.item", "public.wide"):
        stamps = [event.stamp for event in capture.streamed(name)]
        assert stamps == sorted(set(stamps))
