"""What an operator gets wrong, and what is said: each tried on real servers.

Every mistake gives one clear error with the remedy and an exit code, or a visible waiting state
that ends by itself when the cause does; nothing is lost meanwhile.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.local import LocalKafka, LocalPostgres, LocalRegistry
from cdc.local.process import Command, Server
from fix_pipeline import Pipeline, wait_until

CONFIG = """
pipeline: {name}
kafka: {{bootstrap: "{kafka}", registry: "{registry}"}}
metrics: {{port: 0}}
sources:
  shop: {{type: postgres, url: "${{SHOP_URL}}", tables: ["public.*"]}}
"""


class Case:
    """A pipeline file, a database, and the `cdc` command on them."""

    def __init__(self, folder: Path, kafka: str, registry: str, url: str) -> None:
        self.name = f"m{secrets.token_hex(4)}"
        self.folder = folder
        self.url = url
        self.env = {**os.environ, "SHOP_URL": url}
        self.file = folder / "tailrace.yaml"
        self.file.write_text(CONFIG.format(name=self.name, kafka=kafka, registry=registry))

    def cdc(self, *arguments: str, timeout: float = 60) -> tuple[int, str]:
        argv = [sys.executable, "-m", "cdc", *arguments, "--config", str(self.file)]
        done = subprocess.run(
            argv, env=self.env, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    def background(self, *arguments: str) -> Server:
        argv = [sys.executable, "-m", "cdc", *arguments, "--config", str(self.file)]
        env = {k: v for k, v in self.env.items() if k.startswith(("PYTHON", "CDC_", "SHOP"))}
        server = Server(Command(f"cdc-{secrets.token_hex(2)}", lambda: argv, self.folder, env))
        server.start()
        return server


def sql(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture
def case(tmp_path: Path, kafka: Any, registry: Any, pg_database: str) -> Case:
    sql(
        pg_database,
        "create table items (id int primary key, name text)",
        "insert into items values (1, 'one')",
    )
    return Case(tmp_path, kafka.bootstrap, registry.url, pg_database)


def test_a_wrong_password(case: Case) -> None:
    head, _, tail = case.url.partition("@")
    user = head.rpartition(":")[0]
    case.env["SHOP_URL"] = f"{user}:not-the-password@{tail}"
    code, said = case.cdc("source", "shop")
    assert code == 2
    assert "password authentication failed" in said
    assert "url" in said
    assert "not-the-password" not in said


def test_an_unreachable_broker(case: Case) -> None:
    case.file.write_text(
        CONFIG.format(name=case.name, kafka="127.0.0.1:1", registry="http://127.0.0.1:1")
    )
    code, said = case.cdc("check", timeout=90)
    assert code == 3
    assert "127.0.0.1:1" in said
    assert "bootstrap" in said


def test_missing_publication_rights(case: Case, postgres: Any) -> None:
    role = f"reader_{secrets.token_hex(3)}"
    sql(
        case.url,
        f"create role {role} login replication password 'p'",
        f"grant select on all tables in schema public to {role}",
    )
    database = case.url.rpartition("/")[2]
    case.env["SHOP_URL"] = postgres.url_of(database, role, "p")
    code, said = case.cdc("source", "shop")
    assert code == 3
    assert "publication" in said
    assert "CREATE PUBLICATION" in said.upper()
    sql(case.url, f"drop owned by {role}", f"drop role {role}")


def test_wal_level_replica(tmp_path: Path, kafka: Any, registry: Any) -> None:
    with LocalPostgres(18, settings={"wal_level": "replica"}) as server:
        url = server.create_database("shop")
        sql(url, "create table items (id int primary key)")
        code, said = Case(tmp_path, kafka.bootstrap, registry.url, url).cdc("source", "shop")
    assert code == 3
    assert "wal_level" in said
    assert "alter system set wal_level" in said.lower()


def test_a_table_without_a_key(case: Case) -> None:
    sql(case.url, "create table keyless (name text)", "insert into keyless values ('a')")
    code, said = case.cdc("source", "shop")
    assert code == 3
    assert "public.keyless" in said
    assert "replica identity" in said.lower()
    sql(case.url, "update keyless set name = 'b'", "update items set name = 'two'")


def test_an_unknown_yaml_key(case: Case) -> None:
    text = case.file.read_text().replace("tables:", "tabels:")
    case.file.write_text(text)
    code, said = case.cdc("source", "shop")
    assert code == 2
    assert "sources.shop.tabels" in said
    assert "tables" in said.replace("tabels", "")


def published(case: Case, pipeline: Pipeline) -> int:
    return sum(m.value() is not None for m in pipeline.read("shop.public.items"))


@pytest.fixture
def topics(pipeline: Pipeline) -> Iterator[Callable[[Case], int]]:
    """Count the records of the case's table; its topic carries the source's name."""

    def count(case: Case) -> int:
        return sum(m.value() is not None for m in pipeline.read(f"shop{case.name}.public.items"))

    return count


def own_source(case: Case) -> str:
    """Give the source a name of its own, since the broker is shared by all tests."""
    name = f"shop{case.name}"
    case.file.write_text(case.file.read_text().replace("  shop:", f"  {name}:"))
    return name


def test_a_dropped_slot(case: Case, topics: Callable[[Case], int]) -> None:
    name = own_source(case)
    running = case.background("source", name)
    wait_until(lambda: topics(case) == 1, "the snapshot")
    running.stop(20)
    sql(
        case.url,
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
        " where database = current_database()",
        "insert into items values (2, 'two')",
    )
    code, said = case.cdc("source", name)
    assert code == 3
    assert "slot" in said
    assert "cdc position reset" in said or "snapshot" in said
    assert topics(case) == 1


def test_a_registry_that_is_down_loses_nothing(
    tmp_path: Path, kafka: Any, pg_database: str, topics: Callable[[Case], int]
) -> None:
    sql(pg_database, "create table items (id int primary key, name text)")
    registry = LocalRegistry()
    registry.start()
    case = Case(tmp_path, kafka.bootstrap, registry.url, pg_database)
    registry.server.kill()
    name = own_source(case)
    running = case.background("source", name)
    try:
        sql(pg_database, "insert into items values (1, 'one'), (2, 'two')")
        wait_until(lambda: "registry" in running.log.read_text().lower(), "the waiting state", 60)
        assert running.running
        registry.server.start()
        wait_until(lambda: topics(case) == 2, "both rows", 90)
    finally:
        running.stop(20)
        registry.stop()


def test_a_broker_that_goes_away_loses_nothing(
    tmp_path: Path, registry: Any, pg_database: str
) -> None:
    sql(pg_database, "create table items (id int primary key, name text)")
    with LocalKafka() as broker:
        case = Case(tmp_path, broker.bootstrap, registry.url, pg_database)
        name = own_source(case)
        running = case.background("source", name)
        reading = Pipeline(broker.bootstrap, registry.url)
        topic = f"{name}.public.items"
        try:
            sql(pg_database, "insert into items values (1, 'one')")
            wait_until(lambda: len(reading.read(topic)) == 1, "the first row", 60)
            broker.server.kill()
            sql(pg_database, "insert into items values (2, 'two')")
            time.sleep(1.0)
            broker.server.start()
            wait_until(lambda: len(reading.read(topic)) == 2, "the second row", 120)
            assert running.running
        finally:
            running.stop(20)
            reading.registry.close()
