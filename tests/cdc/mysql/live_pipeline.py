"""MySQL → Kafka → Postgres by the commands a user runs; the source is killed on the way.

Run by `make mysql`.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fix_mariadb_capture import Database
from fix_pipeline import wait_until
from mysql_server import RealMySQL

COLUMNS = "id, name, price, quantity, weight, made, seen, day, payload, note"
TABLE = """
CREATE TABLE product (
    id bigint AUTO_INCREMENT PRIMARY KEY, name varchar(60) NOT NULL, price decimal(12,2),
    quantity int unsigned, weight double, made datetime(6), seen timestamp(3) NULL, day date,
    payload varbinary(20), note text CHARACTER SET latin1, facts json
)
"""
INSERT = """
INSERT INTO product (name, price, quantity, weight, made, seen, day, payload, note, facts)
WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {count})
SELECT /*+ SET_VAR(cte_max_recursion_depth=1M) */
       CONCAT('product ', i, ' é'), i / 7, 4294967295 - i, i / 3,
       '2026-01-31 10:00:00.000001' + INTERVAL i SECOND, '2026-03-29 02:30:00.125',
       '2026-12-31', UNHEX(LEFT(SHA2(i, 256), 40)), 'naïve € note',
       JSON_OBJECT('n', i, 'half', i / 2)
FROM s
"""


class Pair:
    """One pipeline file, and the worker processes it is run by."""

    def __init__(self, folder: Path, shop: Database, target: str, kafka: dict[str, str]) -> None:
        self.folder, self.shop, self.target = folder, shop, target
        self.source = f"my{secrets.token_hex(3)}"
        self.config = folder / "tailrace.yaml"
        self.running: list[subprocess.Popen[bytes]] = []
        topic = f"{self.source}.{shop.name}.product"
        tables = [f"{shop.name}.*"]
        sink = {"type": "postgres", "url": target, "tables": {topic: {"to": "public.product"}}}
        file = {
            "pipeline": f"p{secrets.token_hex(3)}",
            "kafka": kafka,
            "metrics": {"port": 0},
            "sources": {self.source: {"type": "mysql", "url": shop.url, "tables": tables}},
            "sinks": {"copy": sink},
        }
        self.config.write_text(json.dumps(file))

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "worker.log").open("ab") as log:
            arguments = [sys.executable, "-m", "cdc", *command, "-c", str(self.config)]
            self.running.append(subprocess.Popen(arguments, stdout=log, stderr=log))
        return self.running[-1]

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()

    def source_rows(self) -> list[tuple[Any, ...]]:
        found = self.shop.execute(f"SELECT {COLUMNS}, facts FROM product ORDER BY id")
        return [(*row[:-1], json.loads(row[-1])) for row in found]

    def target_rows(self) -> list[tuple[Any, ...]]:
        query = f"SELECT {COLUMNS}, facts FROM public.product ORDER BY id"
        with psycopg.connect(self.target, options="-c TimeZone=UTC") as connection:
            try:
                rows = connection.execute(query.encode()).fetchall()
            except psycopg.errors.UndefinedTable:
                return []
        return [(*row[:6], row[6] and row[6].replace(tzinfo=None), *row[7:]) for row in rows]

    def settle(self) -> None:
        def equal() -> bool:
            return self.target_rows() == self.source_rows()

        log = (self.folder / "worker.log").read_text()[-3000:]
        wait_until(equal, f"equal tables\n{log}", 90)


@pytest.fixture
def pair(tmp_path: Path, pg_database: str, kafka: Any, registry: Any) -> Iterator[Pair]:
    with RealMySQL() as server:
        url = server.create_database("shop")
        with closing(server.connect("shop")) as connection:
            shop = Database(url, connection)
            shop.execute(TABLE)
            servers = {"bootstrap": kafka.bootstrap, "registry": registry.url}
            made = Pair(tmp_path, shop, pg_database, servers)
            yield made
            made.end()


def test_rows_arrive_equal_in_postgres_although_the_source_worker_is_killed(pair: Pair) -> None:
    shop = pair.shop
    shop.execute(INSERT.format(count=300))
    pair.start("sink", "copy")
    worker = pair.start("source", pair.source)
    pair.settle()
    shop.execute(
        "SET SESSION binlog_transaction_compression = ON",
        INSERT.format(count=4_000),
        "SET GTID_NEXT = 'AUTOMATIC:night'",
        "UPDATE product SET price = price + 1 WHERE id % 3 = 0",
        "SET GTID_NEXT = 'AUTOMATIC'",
    )
    worker.kill()
    worker.wait()
    shop.execute(
        "SET SESSION binlog_row_image = 'MINIMAL'",
        INSERT.format(count=200),
        "UPDATE product SET price = 0 WHERE id % 7 = 0",
        "UPDATE product SET id = id + 100000 WHERE id % 13 = 0",
        "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'",
        "UPDATE product SET facts = JSON_SET(facts, '$.n', -1) WHERE id % 5 = 0",
        "DELETE FROM product WHERE id % 11 = 0",
    )
    pair.start("source", pair.source, "--take-over")
    pair.settle()
    assert len(pair.target_rows()) > 3_000
