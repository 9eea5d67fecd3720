"""MariaDB → Kafka → Postgres by the commands a user runs; the source is killed on the way."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fix_mariadb_capture import Database
from fix_pipeline import wait_until

COLUMNS = "id, name, price, quantity, weight, made, seen, day, payload, note"
TABLE = """
CREATE TABLE product (
    id bigint AUTO_INCREMENT PRIMARY KEY, name varchar(60) NOT NULL, price decimal(12,2),
    quantity int unsigned, weight double, made datetime(6), seen timestamp(3) NULL, day date,
    payload varbinary(20), note text CHARACTER SET latin1
)
"""
INSERT = """
INSERT INTO product (name, price, quantity, weight, made, seen, day, payload, note)
SELECT CONCAT('product ', seq, ' é'), seq / 7, 4294967295 - seq, seq / 3,
       '2026-01-31 10:00:00.000001' + INTERVAL seq SECOND, '2026-03-29 02:30:00.125',
       '2026-12-31', UNHEX(MD5(seq)), 'naïve € note' FROM seq_1_to_{count}
"""


class Demo:
    """One pipeline file, and the worker processes it is run by."""

    def __init__(self, folder: Path, shop: Database, target: str, kafka: dict[str, str]) -> None:
        self.folder, self.shop, self.target = folder, shop, target
        self.source = f"maria{secrets.token_hex(3)}"
        self.config = folder / "tailrace.yaml"
        self.running: list[subprocess.Popen[bytes]] = []
        tables = [f"{shop.name}.*"]
        file = {
            "pipeline": f"p{secrets.token_hex(3)}",
            "kafka": kafka,
            "metrics": {"port": 0},
            "sources": {self.source: {"type": "mariadb", "url": shop.url, "tables": tables}},
            "sinks": {
                "copy": {
                    "type": "postgres",
                    "url": target,
                    "tables": {f"{self.source}.{shop.name}.product": {"to": "public.product"}},
                }
            },
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
        found = self.shop.execute(f"SELECT {COLUMNS} FROM product ORDER BY id")
        return [tuple(row) for row in found]

    def target_rows(self) -> list[tuple[Any, ...]]:
        query = f"SELECT {COLUMNS} FROM public.product ORDER BY id"
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
        wait_until(equal, f"equal tables\n{log}", 60)


@pytest.fixture
def demo(
    tmp_path: Path, shop: Database, pg_database: str, kafka: Any, registry: Any
) -> Iterator[Demo]:
    shop.execute(TABLE)
    servers = {"bootstrap": kafka.bootstrap, "registry": registry.url}
    made = Demo(tmp_path, shop, pg_database, servers)
    yield made
    made.end()


def test_rows_arrive_equal_in_postgres_although_the_source_worker_is_killed(demo: Demo) -> None:
    shop = demo.shop
    shop.execute(INSERT.format(count=300))
    demo.start("sink", "copy")
    worker = demo.start("source", demo.source)
    demo.settle()
    shop.execute(
        INSERT.format(count=4_000), "UPDATE product SET price = price + 1 WHERE id % 3 = 0"
    )
    wait_until(lambda: len(demo.target_rows()) > 300, "something of it", 30)
    worker.kill()
    worker.wait()
    shop.execute(
        "DELETE FROM product WHERE id % 5 = 0",
        "UPDATE product SET id = id + 1000000, note = NULL WHERE id % 7 = 0",
        "INSERT INTO product (name) VALUES ('nothing known')",
    )
    demo.start("source", demo.source, "--take-over")
    demo.settle()
    assert len(demo.source_rows()) > 3_000
