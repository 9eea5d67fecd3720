"""How long `cdc verify` takes for equal rows: PostgreSQL against itself, MariaDB, SQLite or DuckDB.

    PYTHONPATH=.:tests python tests/bench/verify.py --rows 10000000
    PYTHONPATH=.:tests python tests/bench/verify.py --rows 1000000 --target mariadb

All servers are on this machine, and no worker runs. The time is that of the whole command; the rows
are counted by it on both sides. One row is then spoiled and has to be found.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import psycopg

from cdc.connector import Context
from cdc.local import LocalKafka, LocalMariaDB, LocalPostgres, LocalRegistry
from cdc.plugins import load
from cdc.postgres.copying import copy_lines
from sinks.target import Mapped

TABLES = {"shop.public.orders": {"to": "orders"}}

ORDERS = Path(__file__).with_name("orders.sql").read_text("utf-8")
FILL = """
INSERT INTO orders SELECT n, n % 100000, 'paid', n * 1.01, 'EUR', 'note of order ' || n,
    n % 2 = 0, timestamptz '2026-01-31 08:00+00' + n * interval '1 s', '2026-01-31 08:00',
    '{"channel": "web", "items": 3}' FROM generate_series(1, %s) n
"""


def fill(url: str, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(ORDERS.encode())
        connection.execute(FILL.replace("%s", str(rows)).encode())
        connection.execute("VACUUM ANALYZE orders")


class Place:
    """A target: its options in the pipeline file, how it is filled, how a row is spoiled."""

    def __init__(self, options: dict[str, Any], spoil: Callable[[str], object]) -> None:
        self.options, self.spoil = options, spoil

    def copy(self, source: str) -> None:
        """Fill it with the source's rows as a sink does."""
        connector = load("target", self.options["type"])
        config = connector.config.model_validate({**self.options, "tables": TABLES})
        target = connector.offer("create")(Context("bench", "copy"), config)
        postgres = load("source", "postgres")
        wanted = postgres.config.model_validate({"url": source, "tables": ["public.orders"]})
        [schema] = postgres.offer("discover")(wanted)
        target.open()
        target.prepare(schema)
        with psycopg.connect(source) as connection:
            lines = copy_lines(connection.pgconn, b"COPY orders TO STDOUT", lambda: None)
            while chunk := list(islice(lines, 20_000)):
                target.apply([[Mapped(schema, [], [], lines=chunk)]], [])
        target.close()


@contextmanager
def place(engine: str, postgres: LocalPostgres, rows: int, folder: Path) -> Iterator[Place]:
    """Give an empty target, but for PostgreSQL: that one is filled by its own server."""
    if engine == "sqlite":
        path = folder / "copy.db"

        def spoil(statement: str) -> None:
            with closing(sqlite3.connect(path, isolation_level=None)) as file:
                file.execute(statement)

        yield Place({"type": "sqlite", "path": str(path)}, spoil)
    elif engine == "duckdb":
        path = folder / "copy.duckdb"

        def alter(statement: str) -> None:
            with closing(duckdb.connect(path)) as file:
                file.execute(statement)

        yield Place({"type": "duckdb", "path": str(path)}, alter)
    elif engine == "mariadb":
        with LocalMariaDB() as server, closing(server.connect()) as connection:
            url = server.create_database("target")
            yield Place({"type": "mariadb", "url": url}, lambda text: query(connection, text))
    else:
        url = postgres.create_database("target")
        fill(url, rows)
        with psycopg.connect(url, autocommit=True) as other:
            yield Place({"type": "postgres", "url": url}, lambda text: other.execute(text.encode()))


def query(connection: Any, text: str) -> None:
    connection.query(text.replace("UPDATE ", "UPDATE target."))


def pipeline(
    folder: Path, source: str, target: dict[str, Any], kafka: LocalKafka, registry: LocalRegistry
) -> Path:
    file = {
        "pipeline": "bench",
        "kafka": {"bootstrap": kafka.bootstrap, "registry": registry.url},
        "sources": {"shop": {"type": "postgres", "url": source, "tables": ["public.orders"]}},
        "sinks": {"copy": {**target, "tables": TABLES}},
    }
    path = folder / "tailrace.yaml"
    path.write_text(json.dumps(file))
    return path


def verify(path: Path, wait: float) -> tuple[float, dict[str, Any]]:
    """Run the command; return its seconds, and what it said of the table with its CPU's."""
    command = [sys.executable, "-m", "cdc", "verify", "shop", "copy", "--json", "-c", str(path)]
    started, used = time.monotonic(), _cpu_s()
    ended = subprocess.run(
        [*command, "--wait", str(wait)], capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    if not ended.stdout:
        raise SystemExit(ended.stderr)
    table = json.loads(ended.stdout)["tables"][0]
    return seconds, {**table, "cpu_s": round(_cpu_s() - used, 1)}


def _cpu_s() -> float:
    """Seconds of processor time of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument(
        "--target", choices=("postgres", "mariadb", "sqlite", "duckdb"), default="postgres"
    )
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        LocalKafka() as kafka,
        LocalRegistry() as registry,
        LocalPostgres(18) as postgres,
        place(asked.target, postgres, asked.rows, Path(name)) as target,
    ):
        source = postgres.create_database("source")
        fill(source, asked.rows)
        if asked.target != "postgres":
            target.copy(source)
        path = pipeline(Path(name), source, target.options, kafka, registry)
        load_before = os.getloadavg()
        seconds, table = verify(path, 1)
        found = table["state"], table["rows"], table["target_rows"]
        assert found == ("equal", asked.rows, asked.rows), table
        target.spoil(f"UPDATE orders SET note = 'spoiled' WHERE id = {asked.rows // 2}")
        _, spoiled = verify(path, 1)
        assert spoiled["state"] == "unknown", spoiled  # found, and nobody runs who could settle it
    rate = round(asked.rows / seconds)
    told: dict[str, Any] = {
        "target": asked.target,
        "rows": asked.rows,
        "seconds": round(seconds, 1),
        "rows_per_s": rate,
        "comparing_s": table["seconds"],
        "cpu_s": table["cpu_s"],
    }
    told["load_before"] = [round(one, 1) for one in load_before]
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
