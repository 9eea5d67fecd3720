"""A pipeline MariaDB or MySQL → Kafka → Postgres of the table `product`, run as a user runs it."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

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


class ProductPipeline:
    """One pipeline file, and the worker processes it is run by."""

    type = "mariadb"
    columns = COLUMNS

    def __init__(self, folder: Path, shop: Database, target: str, kafka: dict[str, str]) -> None:
        self.folder, self.shop, self.target = folder, shop, target
        self.source = f"{self.type}{secrets.token_hex(3)}"
        self.config = folder / "tailrace.yaml"
        self.running: list[subprocess.Popen[bytes]] = []
        topic = f"{self.source}.{shop.name}.product"
        tables = [f"{shop.name}.*"]
        sink = {"type": "postgres", "url": target, "tables": {topic: {"to": "public.product"}}}
        file = {
            "pipeline": f"p{secrets.token_hex(3)}",
            "kafka": kafka,
            "metrics": {"port": 0},
            "sources": {self.source: {"type": self.type, "url": shop.url, "tables": tables}},
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
        found = self.shop.execute(f"SELECT {self.columns} FROM product ORDER BY id")
        return [tuple(row) for row in found]

    def target_rows(self) -> list[tuple[Any, ...]]:
        query = f"SELECT {self.columns} FROM public.product ORDER BY id"
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
