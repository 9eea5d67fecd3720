"""MySQL → Kafka → MySQL, into a table that is declared alike, the sink killed on the way.

Run by `make mysql`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fix_mariadb import Place
from fix_pipeline import wait_until
from mysql_server import READER

TABLE = """
CREATE TABLE {}.product (
    id bigint AUTO_INCREMENT PRIMARY KEY, name varchar(60) NOT NULL, price decimal(12,2),
    quantity int unsigned, rank_ tinyint, weight double, made datetime(6), seen timestamp(3) NULL,
    day date, clock time(2), payload varbinary(20), note text CHARACTER SET latin1,
    kind enum('a', 'b'), sorts set('x', 'y'), facts json, UNIQUE KEY by_name (name)
)
"""
INSERT = """
INSERT INTO product (name, price, quantity, rank_, weight, made, seen, day, clock, payload, note,
                     kind, sorts, facts)
WITH RECURSIVE s (i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM s WHERE i < {first} + 199)
SELECT CONCAT('product ', i, ' é'), i / 7, 4294967295 - i, -i % 100, i / 3,
       '2026-01-31 10:00:00.000001' + INTERVAL i SECOND, '2026-03-29 02:30:00.125', '2026-12-31',
       '-12:30:00.25', UNHEX(LEFT(SHA2(i, 256), 40)), 'naïve € note', 'b', 'x,y',
       JSON_OBJECT('n', i, 'of', 'a"b')
FROM s
"""
CHANGES = (
    INSERT.replace("{first}", "{n}000"),
    "UPDATE product SET price = price + 1, clock = NULL WHERE id % 3 = {n} % 3",
    "UPDATE product SET id = -id WHERE id % 17 = {n} AND id > 0",
    "UPDATE product SET name = CONCAT('was ', name) WHERE id = {n}",
    "DELETE FROM product WHERE id % 11 = {n}",
)
POINTS = ("sink.before_cursor", "sink.before_commit", "sink.after_commit")


class Copy:
    """A pipeline from a database into another one of the same server, and its workers."""

    def __init__(self, place: Place, folder: Path, kafka: dict[str, str]) -> None:
        self._place, self._config, self._log = place, folder / "tailrace.yaml", folder / "log"
        self._running: list[subprocess.Popen[bytes]] = []
        self.shop, self.copy = place.database, f"{place.database}_copy"
        facts = {"facts": {"from": "facts", "as": "json"}}
        mapping = {"to": f"{self.copy}.product", "rest": True, "fields": facts}
        url, tables = place.server.url_of(self.shop, READER), [f"{self.shop}.*"]
        into = {"url": place.url, "tables": {f"{self.shop}.{self.shop}.product": mapping}}
        file = {
            "pipeline": self.copy,
            "kafka": kafka,
            "metrics": {"port": 0},
            "sources": {self.shop: {"type": "mysql", "url": url, "tables": tables}},
            "sinks": {"copy": {"type": "mysql", **into}},
        }
        self._config.write_text(json.dumps(file))

    def log(self) -> str:
        return self._log.read_text()[-3000:]

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-m", "cdc", *command, "-c", str(self._config)]
        env = {**os.environ, **environment}
        with self._log.open("ab") as out:
            self._running.append(subprocess.Popen(arguments, stdout=out, stderr=out, env=env))
        return self._running[-1]

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()

    def rows(self, database: str) -> list[tuple[Any, ...]]:
        return self._place.query(f"SELECT * FROM {database}.product ORDER BY id")

    def is_equal(self) -> bool:
        return self.rows(self.copy) == self.rows(self.shop)


@pytest.fixture
def copy(maria_place: Place, kafka: Any, registry: Any, tmp_path: Path) -> Iterator[Copy]:
    servers = {"bootstrap": kafka.bootstrap, "registry": registry.url}
    made = Copy(maria_place, tmp_path, servers)
    maria_place.query(
        f"CREATE DATABASE {made.copy}", TABLE.format(made.shop), TABLE.format(made.copy)
    )
    yield made
    made.end()
    maria_place.query(f"DROP DATABASE {made.copy}")


def test_a_table_declared_alike_ends_equal_however_often_the_sink_is_killed(
    copy: Copy, maria_place: Place
) -> None:
    maria_place.query(INSERT.format(first=1))
    copy.start("source", copy.shop)
    for number, point in enumerate(POINTS, 1):
        dying = copy.start("sink", "copy", CDC_FAILPOINTS=f"{point}=kill")
        assert dying.wait(60) == -signal.SIGKILL, copy.log()
        maria_place.query(*(change.format(n=number) for change in CHANGES))
    copy.start("sink", "copy")
    wait_until(copy.is_equal, f"equal tables\n{copy.log()}", 90)
    assert len(copy.rows(copy.copy)) > 500
