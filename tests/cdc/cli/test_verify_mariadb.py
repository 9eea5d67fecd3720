"""`cdc verify` from a MariaDB source: MariaDB → Kafka → PostgreSQL, one pipeline for all tests."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from fix_pipeline import wait_until

if TYPE_CHECKING:
    from fix_cli import Cdc

SOURCE = (
    """CREATE TABLE {db}.items (id int PRIMARY KEY, name varchar(100), amount decimal(12,2),
    seen timestamp(6) NULL, at datetime(3), day date, ok tinyint(1), photo varbinary(20), doc json,
    score double, kind enum('a', 'b'))""",
    """INSERT INTO {db}.items SELECT seq, CONCAT('item ', seq, CHAR(9), CHAR(92)), seq * 1.1,
    '2026-01-31 08:00:00.25', '2026-01-31 08:00:00.5', '2026-01-31', seq % 2, UNHEX(MD5(seq)),
    JSON_OBJECT('n', seq), seq / 7, 'b' FROM {db}.seq_1_to_300""",
    "INSERT INTO {db}.items (id) VALUES (1000)",
    """CREATE TABLE {db}.plain (id bigint PRIMARY KEY, note text, at datetime, photo blob,
    clock time(2), what uuid, sorts set('a', 'b'))""",
    """INSERT INTO {db}.plain SELECT seq, 'note', NOW(), X'00FF', '08:00:00.5',
    UUID(), 'a,b' FROM {db}.seq_1_to_100""",
    """CREATE TABLE {db}.words (word varchar(20) CHARACTER SET latin1, lot int,
    PRIMARY KEY (word, lot))""",
    "INSERT INTO {db}.words SELECT ELT(1 + seq % 3, 'a', 'é', 'z'), seq FROM {db}.seq_1_to_100",
)


class Shop:
    """A MariaDB database and its mirror in PostgreSQL, both workers running."""

    def __init__(self, folder: Path, source: str, target: str, kafka: dict[str, str]) -> None:
        self.database, self.target = source.rpartition("/")[2], target
        self.name = f"m{secrets.token_hex(3)}"
        self.config = folder / "tailrace.yaml"
        self._log = folder / "run.log"
        tables = {f"{self.name}.{self.database}.*": {"to": "public.{table}"}}
        given = {"type": "mariadb", "url": source, "tables": [f"{self.database}.*"]}
        file = {
            "pipeline": self.name,
            "kafka": kafka,
            "metrics": {"port": 0},
            "sources": {self.name: {**given, "heartbeat": 1.0}},
            "sinks": {"copy": {"type": "postgres", "url": target, "tables": tables}},
        }
        self.config.write_text(json.dumps(file))
        with self._log.open("ab") as log:
            arguments = [sys.executable, "-m", "cdc", "run", "-c", str(self.config)]
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log)

    def log(self) -> str:
        return self._log.read_text()[-4000:]

    def run(self, *statements: str) -> list[Any]:
        with psycopg.connect(self.target, autocommit=True) as connection:
            found = [connection.execute(one.encode()) for one in statements]
            return found[-1].fetchall() if found[-1].description else []

    def count(self) -> int:
        tables = ("items", "plain", "words")
        counts = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
        try:
            return int(self.run(f"SELECT {counts}")[0][0])
        except psycopg.errors.UndefinedTable:  # it is made with its first row
            return 0


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, postgres: Any, mariadb: Any, kafka: Any, registry: Any
) -> Any:
    name = f"verify_{secrets.token_hex(4)}"
    source, target = mariadb.create_database(name), postgres.create_database(name)
    mariadb.execute(*[statement.format(db=name) for statement in SOURCE])
    servers = {"bootstrap": kafka.bootstrap, "registry": registry.url}
    made = Shop(tmp_path_factory.mktemp("mariadb"), source, target, servers)
    wait_until(lambda: made.count() == 501, "the snapshot is there", 90)
    yield made
    made.process.kill()
    made.process.wait()
    postgres.drop_database(name)
    mariadb.drop_database(name)


def verified(cdc: Cdc, shop: Shop, *options: str) -> tuple[int, dict[str, Any]]:
    ended = cdc("verify", shop.name, "copy", *options, "-c", str(shop.config), "--json")
    assert ended.out, ended.err
    tables = {one["source"].partition(".")[2]: one for one in ended.json()["tables"]}
    return ended.code, tables


def test_what_a_sink_made_of_a_mariadb_source_is_equal(shop: Shop, cdc: Cdc) -> None:
    code, tables = verified(cdc, shop)
    found = {name: (one["state"], one["late"], one["rows"]) for name, one in tables.items()}
    assert found == {
        "items": ("equal", 0, 301), "plain": ("equal", 0, 100), "words": ("equal", 0, 100),
    }  # fmt: skip
    assert code == 0


def test_what_differs_from_a_mariadb_source_is_found_and_repaired(shop: Shop, cdc: Cdc) -> None:
    shop.run(
        "UPDATE items SET name = 'other' WHERE id = 7",
        "DELETE FROM items WHERE id = 1000",
        "INSERT INTO plain (id, note) VALUES (5000, 'nobody''s')",
        "DELETE FROM words WHERE lot = 50",
    )
    code, tables = verified(cdc, shop)
    kinds = ("missing", "extra", "different")
    counts = {name: tuple(one[kind] for kind in kinds) for name, one in tables.items()}
    assert code == 6
    assert counts == {"items": (1, 0, 1), "plain": (0, 1, 0), "words": (1, 0, 0)}
    code, tables = verified(cdc, shop, "--repair")
    assert (code, sum(one["repaired"] for one in tables.values())) == (0, 4), [
        one["reason"] for one in tables.values()
    ]
    assert shop.count() == 501
