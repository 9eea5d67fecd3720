"""Postgres → Kafka → SQLite with the workers a user starts, killed again and again on the way."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from fix_pipeline import Pipeline, wait_until

TABLES = """
CREATE TABLE customers (
    id bigint PRIMARY KEY, name text NOT NULL, balance numeric(12,2), born date,
    created_at timestamptz, seen timestamp, active boolean, photo bytea, attrs jsonb,
    score float8, ratio float4, tags text[], total numeric);
ALTER TABLE customers ALTER photo SET STORAGE EXTERNAL;
CREATE TABLE orders (id int, line smallint, what uuid, PRIMARY KEY (id, line));
CREATE TABLE notes (note text, n int);
ALTER TABLE notes REPLICA IDENTITY FULL;
CREATE FUNCTION customer(n bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO customers VALUES (
        n, 'customer ' || n || E'\\t\\n\\\\ ü', n / 7.0, date '2026-01-31' + n::int,
        timestamptz '2026-01-31 08:00+00' + n * interval '1.25 s', '2026-01-31 08:00:00.5',
        n % 2 = 0, decode(repeat(md5(n::text), 200), 'hex'), jsonb_build_object('n', n, 'of', 1.10),
        n / 3.0, n / 10.0, ARRAY['a', n::text], (n || '.' || repeat('1', 40))::numeric) $$;
SELECT customer(n) FROM generate_series(1, 200) n;
INSERT INTO orders SELECT n, 1, gen_random_uuid() FROM generate_series(1, 50) n;
INSERT INTO notes VALUES ('same', 1), ('same', 1), (NULL, NULL);
"""
ROUND = """
SELECT customer(1000 + {n} * 10 + i) FROM generate_series(1, 10) i;
UPDATE customers SET balance = balance + 1, score = 'NaN' WHERE id % 5 = {n} % 5;
UPDATE customers SET id = id + 1000000, name = 'moved' WHERE id = 1005 + {n} * 10;
UPDATE customers SET photo = NULL, seen = 'infinity' WHERE id = 1006 + {n} * 10;
DELETE FROM customers WHERE id % 23 = {n} % 23;
DELETE FROM customers WHERE id = 1007 + {n} * 10;
SELECT customer(1007 + {n} * 10);
INSERT INTO orders SELECT {n}, i, gen_random_uuid() FROM generate_series(1, 5) i
    ON CONFLICT (id, line) DO UPDATE SET what = excluded.what;
INSERT INTO notes VALUES ('same', 1), ('note', {n});
DELETE FROM notes WHERE ctid = (SELECT min(ctid) FROM notes WHERE note = 'same');
"""
QUERIES = {
    "customers": "SELECT id, name, balance::text, born::text, created_at::text || ':00', "
    "seen::text, active::int, photo, attrs::text, CASE WHEN score <> 'NaN' THEN score END, "
    "ratio::text::float8, tags::text, total::text FROM customers ORDER BY id",
    "orders": "SELECT id, line, what::text FROM orders ORDER BY id, line",
    "notes": "SELECT note, n FROM notes ORDER BY note, n",
}
POINTS = ("sink.before_stage", "sink.before_cursor", "sink.before_commit", "sink.after_commit")


class Shop:
    """The source's tables, the file they go to, and the workers between them."""

    def __init__(self, pipeline: Pipeline, url: str, folder: Path) -> None:
        self.url, self.file, self.folder = url, folder / "pocket.db", folder
        self.rounds = 0
        tables = {f"{pipeline.source}.public.*": {"to": "{table}"}}
        kafka = {"bootstrap": pipeline.kafka.bootstrap, "registry": pipeline.kafka.registry.url}
        publish = {"partitions": {"public.customers": 2}}
        source = {"type": "postgres", "url": url, "tables": ["public.*"], "heartbeat": 0.5}
        written = {
            "pipeline": pipeline.name,
            "kafka": kafka,
            "metrics": {"port": 0},
            "sources": {pipeline.source: {**source, "publish": publish}},
            "sinks": {"pocket": {"type": "sqlite", "path": str(self.file), "tables": tables}},
        }
        (folder / "tailrace.yaml").write_text(yaml.safe_dump(written))

    @contextmanager
    def worker(self, *arguments: str, failpoints: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """Run `cdc …` while the block runs."""
        environment = {**os.environ, "CDC_FAILPOINTS": failpoints}
        command = [sys.executable, "-m", "cdc", *arguments, "-c", "tailrace.yaml"]
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait(30)

    def load(self) -> None:
        """One round of changes in one transaction; every fifth empties a table first."""
        self.rounds += 1
        with psycopg.connect(self.url) as connection:
            if self.rounds % 5 == 0:
                connection.execute("TRUNCATE orders")
            connection.execute(ROUND.format(n=self.rounds).encode())

    def source_rows(self) -> dict[str, list[tuple[Any, ...]]]:
        with psycopg.connect(self.url, options="-c TimeZone=UTC") as connection:
            return {name: connection.execute(q.encode()).fetchall() for name, q in QUERIES.items()}

    def target_rows(self) -> dict[str, list[tuple[Any, ...]]]:
        with closing(sqlite3.connect(self.file)) as connection:
            try:
                return {name: connection.execute(q).fetchall() for name, q in WANTED.items()}
            except sqlite3.OperationalError:  # not made yet
                return {}

    def settle(self, wanted: dict[str, list[tuple[Any, ...]]]) -> Any:
        """What the file holds once it is `wanted`, or when that takes too long."""
        deadline = time.monotonic() + 60
        while (found := self.target_rows()) != wanted and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def log(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))


WANTED = {
    "customers": "SELECT id, name, balance, born, created_at, seen, active, photo, attrs, "
    "nullif(score, 'NaN'), ratio, tags, total FROM customers ORDER BY id",
    "orders": "SELECT id, line, what FROM orders ORDER BY id, line",
    "notes": "SELECT note, n FROM notes ORDER BY note IS NULL, note, n",
}


@pytest.mark.crash
def test_a_file_ends_equal_to_its_source_however_often_the_sink_is_killed(
    pipeline: Pipeline, pg_database: str, tmp_path: Path
) -> None:
    with psycopg.connect(pg_database) as connection:
        connection.execute(TABLES)
    shop = Shop(pipeline, pg_database, tmp_path)
    with shop.worker("source", pipeline.source):
        wait_until(lambda: '"streaming"' in shop.log(), "the snapshot is done", 60)
        for passage, point in enumerate(POINTS, 1):
            with shop.worker("sink", "pocket", failpoints=f"{point}=kill:{passage}") as sink:

                def dead(process: subprocess.Popen[bytes] = sink) -> bool:
                    shop.load()
                    return process.poll() is not None

                wait_until(dead, f"{point}\n{shop.log()}", 60)
                assert sink.returncode == -signal.SIGKILL, shop.log()
        with shop.worker("sink", "pocket"):
            shop.load()
            ours = shop.source_rows()
            settled = shop.settle(ours)
            assert settled == ours, shop.log()
    assert shop.rounds >= 10
    assert len(ours["customers"]) > 100
    assert len({note for note, _ in ours["notes"]}) == 3
    assert [row for row in ours["customers"] if row[1] == "moved"]
