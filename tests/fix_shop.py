"""A shop in Postgres, and workers as a user starts them between it and a target of a test's own.

The sink is killed at one failpoint after the other while the shop changes; in the end the target
must hold what the shop does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
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
UPDATE customers SET balance = balance + 1, score = '{score}' WHERE id % 5 = {n} % 5;
UPDATE customers SET id = id + 1000000, name = 'moved' WHERE id = 1005 + {n} * 10;
UPDATE customers SET photo = NULL, seen = '{seen}' WHERE id = 1006 + {n} * 10;
DELETE FROM customers WHERE id % 23 = {n} % 23;
DELETE FROM customers WHERE id = 1007 + {n} * 10;
SELECT customer(1007 + {n} * 10);
INSERT INTO orders SELECT {n}, i, gen_random_uuid() FROM generate_series(1, 5) i
    ON CONFLICT (id, line) DO UPDATE SET what = excluded.what;
INSERT INTO notes VALUES ('same', 1), ('note', {n});
DELETE FROM notes WHERE ctid = (SELECT min(ctid) FROM notes WHERE note = 'same');
"""
POINTS = ("sink.before_stage", "sink.before_cursor", "sink.before_commit", "sink.after_commit")

Tables = dict[str, list[tuple[Any, ...]]]


class Shop:
    """The source's tables, and the workers between them and the sink `copy`.

    `score` and `seen` are values that some rows get: the oddest ones that the target holds.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        url: str,
        folder: Path,
        sink: Mapping[str, object],
        *,
        score: str = "NaN",
        seen: str = "infinity",
    ) -> None:
        self.url, self.folder, self.source = url, folder, pipeline.source
        self.rounds = 0
        self._odd = {"score": score, "seen": seen}
        tables = {f"{pipeline.source}.public.*": {"to": "{table}"}}
        kafka = {"bootstrap": pipeline.kafka.bootstrap, "registry": pipeline.kafka.registry.url}
        publish = {"partitions": {"public.customers": 2}}
        source = {"type": "postgres", "url": url, "tables": ["public.*"], "heartbeat": 0.5}
        written = {
            "pipeline": pipeline.name,
            "kafka": kafka,
            "metrics": {"port": 0},
            "sources": {pipeline.source: {**source, "publish": publish}},
            "sinks": {"copy": {**sink, "tables": tables}},
        }
        (folder / "tailrace.yaml").write_text(yaml.safe_dump(written))
        with psycopg.connect(url) as connection:
            connection.execute(TABLES)

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
            connection.execute(ROUND.format(n=self.rounds, **self._odd).encode())

    def rows(self, queries: Mapping[str, str]) -> Tables:
        """What the source's tables hold."""
        with psycopg.connect(self.url, options="-c TimeZone=UTC") as connection:
            return {name: connection.execute(q.encode()).fetchall() for name, q in queries.items()}

    def log(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))

    def end_equal(self, queries: Mapping[str, str], target: Callable[[], Tables]) -> None:
        """Kill the sink at every failpoint under load, then see `target` hold what we do."""
        with self.worker("source", self.source):
            wait_until(lambda: '"streaming"' in self.log(), "the snapshot is done", 60)
            for passage, point in enumerate(POINTS, 1):
                with self.worker("sink", "copy", failpoints=f"{point}=kill:{passage}") as sink:
                    self._load_until_dead(sink, point)
            with self.worker("sink", "copy"):
                self.load()
                ours = self.rows(queries)
                assert settled(target, ours) == ours, self.log()
        assert self.rounds >= 10
        assert len(ours["customers"]) > 100
        assert len({note for note, _ in ours["notes"]}) == 3
        assert [row for row in ours["customers"] if row[1] == "moved"]

    def _load_until_dead(self, sink: subprocess.Popen[bytes], point: str) -> None:
        def dead() -> bool:
            self.load()
            return sink.poll() is not None

        wait_until(dead, f"{point}\n{self.log()}", 60)
        assert sink.returncode == -signal.SIGKILL, self.log()


def settled(target: Callable[[], Tables], wanted: Tables) -> Tables:
    """What the target holds once it is `wanted`, or when that takes too long."""
    deadline = time.monotonic() + 60
    while (found := target()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
