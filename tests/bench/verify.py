"""How long `cdc verify` takes for ten million equal rows: two PostgreSQL databases, no workers.

    PYTHONPATH=.:tests python tests/bench/verify.py --rows 10000000

Source and target are databases of one server on this machine. The time is that of the whole
command; the rows are counted by it on both sides. One row is then spoiled and has to be found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from cdc.local import LocalKafka, LocalPostgres, LocalRegistry

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


def pipeline(
    folder: Path, urls: tuple[str, str], kafka: LocalKafka, registry: LocalRegistry
) -> Path:
    source, target = urls
    tables = {"shop.public.orders": {"to": "public.orders"}}
    file = {
        "pipeline": "bench",
        "kafka": {"bootstrap": kafka.bootstrap, "registry": registry.url},
        "sources": {"shop": {"type": "postgres", "url": source, "tables": ["public.orders"]}},
        "sinks": {"copy": {"type": "postgres", "url": target, "tables": tables}},
    }
    path = folder / "tailrace.yaml"
    path.write_text(json.dumps(file))
    return path


def verify(path: Path, wait: float) -> tuple[float, dict[str, Any]]:
    """Run the command; return its seconds and what it said of the table."""
    command = [sys.executable, "-m", "cdc", "verify", "shop", "copy", "--json", "-c", str(path)]
    started = time.monotonic()
    ended = subprocess.run(
        [*command, "--wait", str(wait)], capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    if not ended.stdout:
        raise SystemExit(ended.stderr)
    return seconds, json.loads(ended.stdout)["tables"][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalKafka() as kafka,
        LocalRegistry() as registry,
        LocalPostgres(18) as postgres,
    ):
        urls = postgres.create_database("source"), postgres.create_database("target")
        for url in urls:
            fill(url, rows)
        path = pipeline(Path(folder), urls, kafka, registry)
        load = os.getloadavg()
        seconds, table = verify(path, 1)
        assert (table["state"], table["rows"], table["target_rows"]) == ("equal", rows, rows), table
        with psycopg.connect(urls[1]) as connection:
            connection.execute("UPDATE orders SET note = 'spoiled' WHERE id = %s", (rows // 2,))
        _, spoiled = verify(path, 1)
        assert spoiled["state"] == "unknown", spoiled  # found, and nobody runs who could settle it
    told = {"rows": rows, "seconds": round(seconds, 1), "rows_per_s": round(rows / seconds)}
    sys.stdout.write(json.dumps({**told, "load_before": [round(one, 1) for one in load]}) + "\n")


if __name__ == "__main__":
    main()
