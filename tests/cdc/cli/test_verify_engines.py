"""`cdc verify` between engines: PostgreSQL → Kafka → the others.

MySQL runs the same (`tests/sinks/targets/mysql/live_verify.py`).
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from cdc.config import load_pipeline
from cdc.connections.mariadb import fetch
from cdc.connections.postgres import Login
from cdc.postgres.readable import PostgresTable
from cdc.sources.postgres import Config, discover
from cdc.verify.readable import Piece, Wanted
from fix_pipeline import wait_until
from schemas.table import TableId
from sinks.duckdb.files import connect

if TYPE_CHECKING:
    from fix_cli import Cdc

SOURCE = """
CREATE TABLE customers (id int PRIMARY KEY, name text, born date, seen timestamptz, at timestamp,
    clock time, score float8, ratio float4, balance numeric, price numeric(12,2), code char(4),
    on_off boolean, what uuid, photo bytea, attrs jsonb, tags text[]);
CREATE TABLE lines (shop text, number uuid, note text, PRIMARY KEY (shop, number));
CREATE TABLE plain (id int PRIMARY KEY, note text, born date, seen timestamptz, at timestamp,
    price numeric(12,2), on_off boolean, photo bytea, attrs jsonb, what uuid, clock time);
INSERT INTO plain SELECT n, 'it''s ü', date '2026-01-01' + n,
    timestamptz '2026-01-31 08:00+00' + n * interval '0.1 s', '2026-01-31 08:00:00.25',
    n, n % 2 = 0, decode(md5(n::text), 'hex'), jsonb_build_object('n', n, 'of', 'a"b'),
    gen_random_uuid(), '08:00:00.5'
    FROM generate_series(1, 50) n;
INSERT INTO plain (id, note) VALUES (51, E'back \\ slash \\N'), (52, NULL), (53, '');
CREATE TABLE notes (note text);
ALTER TABLE notes REPLICA IDENTITY FULL;
INSERT INTO customers SELECT n, 'customer ' || n, date '2026-01-01' + n,
    timestamptz '2026-01-31 08:00+00' + n * interval '0.1 s', '2026-01-31 08:00:00.25', '08:00:00',
    n / 7.0, n / 7.0, n / 10.0, n, 'c' || n, n % 2 = 0, gen_random_uuid(),
    decode(md5(n::text), 'hex'), jsonb_build_object('n', n, 'of', 1.10), ARRAY['a', n::text]
    FROM generate_series(1, 300) n;
INSERT INTO customers (id, name) VALUES (1000, E'tab\\t \\\\ ü ''quoted'' \\n');
INSERT INTO lines SELECT CASE WHEN n % 2 = 0 THEN 'a' ELSE 'B' END || n % 5, gen_random_uuid(),
    'note ' || n FROM generate_series(1, 200) n;
INSERT INTO notes VALUES ('x');
"""


class Shop:
    """One source and a mirror on each other engine, all at work."""

    def __init__(self, folder: Path, source: str, mariadb: str, kafka: dict[str, str]) -> None:
        self.source, self.file, self.lake = source, folder / "copy.db", folder / "copy.duckdb"
        word, self.database = mariadb.partition(":")[0], mariadb.rpartition("/")[2]
        self.name = f"v{secrets.token_hex(3)}"
        self.config = folder / "tailrace.yaml"
        self._log = folder / "run.log"
        tables = {f"{self.name}db.public.*": {"to": "{table}"}}
        file = {
            "pipeline": self.name,
            "kafka": kafka,
            "metrics": {"port": 0},
            "sources": {
                f"{self.name}db": {
                    "type": "postgres",
                    "url": source,
                    "tables": ["public.*"],
                    "heartbeat": 0.2,
                }
            },
            "sinks": {
                "sqlite": {"type": "sqlite", "path": str(self.file), "tables": tables},
                "duckdb": {"type": "duckdb", "path": str(self.lake), "tables": tables},
                word: {"type": word, "url": mariadb, "tables": tables},
            },
        }
        self.config.write_text(json.dumps(file))
        with self._log.open("ab") as log:
            arguments = [sys.executable, "-m", "cdc", "run", "-c", str(self.config)]
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log)

    def log(self) -> str:
        return self._log.read_text()[-4000:]


class Mirror:
    """One target: what it holds, and how it is spoiled."""

    def __init__(self, sink: str, shop: Shop, server: Any) -> None:
        self.sink, self.shop, self._server = sink, shop, server

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        if self.sink == "sqlite":
            with closing(sqlite3.connect(self.shop.file, isolation_level=None)) as file:
                return file.execute(statement).fetchall()
        if self.sink == "duckdb":
            with closing(connect(self.shop.lake, "1GB", wait=20)) as lake:
                return lake.execute(statement.replace("`", '"')).fetchall()
        with closing(self._server.connect(self.shop.database)) as connection:
            return fetch(connection, statement)

    def count(self) -> int:
        try:
            tables = ("customers", "`lines`", "plain")
            queries = [f"SELECT count(*) FROM {table}" for table in tables]
            return sum(self.run(query)[0][0] for query in queries)
        except Exception:  # noqa: BLE001 - each driver's own: the table is not made yet
            return 0


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, postgres: Any, mariadb: Any, kafka: Any, registry: Any
) -> Any:
    name = f"verify_{secrets.token_hex(4)}"
    source, target = postgres.create_database(name), mariadb.create_database(name)
    with psycopg.connect(source) as connection:
        connection.execute(SOURCE.encode())
    servers = {"bootstrap": kafka.bootstrap, "registry": registry.url}
    made = Shop(tmp_path_factory.mktemp("engines"), source, target, servers)
    yield made
    made.process.kill()
    made.process.wait()
    postgres.drop_database(name)
    mariadb.drop_database(name)


@pytest.fixture(params=["sqlite", "mariadb", "duckdb"])
def mirror(request: pytest.FixtureRequest, shop: Shop, mariadb: Any) -> Mirror:
    return filled(Mirror(request.param, shop, mariadb))


def filled(mirror: Mirror) -> Mirror:
    """Wait for the snapshot."""
    wait_until(lambda: mirror.count() == 554, f"the snapshot is there\n{mirror.shop.log()}", 90)
    return mirror


def verified(cdc: Cdc, shop: Shop, mirror: Mirror, *options: str) -> tuple[int, dict[str, Any]]:
    names = f"{shop.name}db", mirror.sink
    ended = cdc("verify", *names, *options, "-c", str(shop.config), "--json")
    assert ended.out, ended.err
    return ended.code, {one["source"]: one for one in ended.json()["tables"]}


def test_another_engine_holds_the_same_values(shop: Shop, mirror: Mirror, cdc: Cdc) -> None:
    code, tables = verified(cdc, shop, mirror)
    states = {name: (one["state"], one["late"], one["rows"]) for name, one in tables.items()}
    assert states["public.customers"] == ("equal", 0, 301)
    assert states["public.lines"] == ("equal", 0, 200)
    assert states["public.notes"][0] == "refused"
    assert code == 0


def test_what_differs_in_another_engine_is_found_and_repaired(
    shop: Shop, mirror: Mirror, cdc: Cdc
) -> None:
    mirror.run("UPDATE customers SET name = 'other' WHERE id = 7")
    mirror.run("UPDATE customers SET photo = NULL WHERE id = 8")
    mirror.run("DELETE FROM customers WHERE id = 1000")
    mirror.run("UPDATE `lines` SET note = 'other' WHERE note = 'note 7'")
    mirror.run("DELETE FROM `lines` WHERE note = 'note 9'")
    mirror.run(
        "INSERT INTO `lines` (shop, number, note) VALUES "
        "('a1', '00000000-0000-4000-8000-000000000001', 'nobody''s')"
    )
    code, tables = verified(cdc, shop, mirror)
    kinds = ("missing", "extra", "different")
    counts = {name: tuple(one[kind] for kind in kinds) for name, one in tables.items()}
    assert code == 6
    assert counts["public.customers"] == (1, 0, 2)
    assert counts["public.lines"] == (1, 1, 1)
    code, tables = verified(cdc, shop, mirror, "--repair")
    assert (code, tables["public.lines"]["repaired"]) == (0, 3)
    assert mirror.count() == 554


def test_lines_of_another_engine_are_those_of_postgresql(shop: Shop, mirror: Mirror) -> None:
    sink = load_pipeline(shop.config).sinks[mirror.sink]
    [schema] = discover(Config.model_validate({"url": shop.source, "tables": ["public.plain"]}))
    names = tuple(column.name for column in schema.columns)
    kinds = tuple(column.type for column in schema.columns)
    target = Wanted(TableId("", "plain"), names, 1, kinds)
    ours = PostgresTable(Login(shop.source, "test"), Wanted(schema.table, names, 1, kinds))
    theirs = sink.connector.offer("readable")(sink.context, sink.config, target)
    with closing(ours), closing(theirs):
        ours.open()
        theirs.open()
        for piece in (Piece(), Piece((b"10",), (b"20",)), Piece((b"60",))):
            assert sorted(theirs.lines(piece)) == sorted(ours.lines(piece))
        assert min(theirs.rows(Piece((b"51",), (b"53",))))[1] is None
