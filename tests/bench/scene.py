"""The servers, databases and workers that a path is measured on: everybody's the same."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import psutil
import psycopg

from cdc.brokers import topic_ids
from cdc.kafka import KafkaConfig, admin_client
from cdc.local.process import Command, Server, end_of_log

ORDERS = Path(__file__).with_name("orders.sql")
BATCH = 10_000  # rows of one source transaction
TABLE = "public.orders"

CONFIG = """
pipeline: {name}
kafka: {{bootstrap: "{kafka}", registry: "{registry}"}}
sources:
  {name}:
    type: {kind}
    url: "{source}"
    tables: ["public.orders"]
    snapshot: {snapshot}
    publish: {{partitions: {{"public.orders": {partitions}}}}}
sinks:
  {sink}: {target}
metrics: {{port: {metrics}}}
"""

INSERT = """
insert into orders select i, i % 10000, (array['new','paid','shipped','cancelled'])[1 + i % 4],
  (i % 100000) / 100.0, 'EUR', {note}, i % 2 = 0, now(),
  now()::timestamp, jsonb_build_object('sku', 'A' || i, 'qty', i % 10)
from generate_series({first}, {last}) i
"""

NOTE = "'note number ' || i || ' lorem ipsum dolor'"


class Stack(Protocol):
    """The servers: a `cdc.local.LocalStack`, or the fixtures of the tests."""

    kafka: Any
    registry: Any
    postgres: Any


class Pipeline(NamedTuple):
    """A pipeline file of ours; its source has the pipeline's name."""

    name: str
    file: Path

    @property
    def topic(self) -> str:
        """Where the rows of its source go."""
        return f"{self.name}.{TABLE}"


class Scene:
    """Makes databases, pipelines and workers on one stack, each with names of its own."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self._number = 0
        self._mark = f"{time.time_ns() % 10**8:x}"  # a stack may be used by several scenes
        places = {"bootstrap": stack.kafka.bootstrap, "registry": stack.registry.url}
        self.kafka = KafkaConfig.model_validate(places)

    def name(self, kind: str) -> str:
        """A name nobody has: of a database, slot, pipeline, connector or group."""
        self._number += 1
        return f"{kind}{self._mark}n{self._number}"

    def source(self) -> str:
        """A database with an empty table of orders and its publication; its URL."""
        url = self.database()
        with psycopg.connect(url) as connection:
            connection.execute(ORDERS.read_bytes())
            connection.execute("create publication p for table orders")
        return url

    def database(self) -> str:
        """An empty database; its URL."""
        url: str = self.stack.postgres.create_database(self.name("bench"))
        return url

    def drop(self, url: str) -> None:
        """Drop a database with its slots."""
        self.stack.postgres.drop_database(urlsplit(url).path[1:])

    def pipeline(
        self, source: str, target: str | Path | Mapping[str, object] = "", **options: object
    ) -> Pipeline:
        """Write a pipeline file; options: `name`, `snapshot`, `partitions`, `workers`, `metrics`,
        `sink`.

        `source` is the URL of a Postgres or MariaDB database; a MariaDB one is called `public`.
        `target` is such a URL too, the path of a SQLite file, or the options of any sink.
        `metrics` is the port of the worker's page, `sink` the sink's name.
        """
        name = str(options.pop("name", "")) or self.name("ours")
        file = self.folder / f"{self.name('pipeline')}.yaml"
        values = {
            "snapshot": "never",
            "partitions": 1,
            "metrics": "null",
            "sink": "copy",
            **options,
        }
        workers = values.pop("workers", 1)
        place = {"tables": [f"{name}.{TABLE}"], **_place(target or source, workers)}
        text = CONFIG.format(
            name=name,
            kafka=self.stack.kafka.bootstrap,
            registry=self.stack.registry.url,
            kind="mariadb" if source.startswith("mariadb:") else "postgres",
            source=source,
            target=json.dumps(place),
            **values,
        )
        file.write_text(text, "utf-8")
        return Pipeline(name, file)

    def forget(self, *topics: str) -> None:
        """Delete topics, so that a run's rows do not lie in the next one's way."""
        there = list(topic_ids(self.kafka, topics))
        if there:
            admin = admin_client(self.kafka)  # lives until its answers are here
            for answer in admin.delete_topics(there).values():
                answer.result(30)

    @contextmanager
    def worker(
        self, pipeline: Pipeline, *arguments: str, env: Mapping[str, str] | None = None
    ) -> Iterator[psutil.Process]:
        """Run one worker process while the block runs; `CDC_*` and `PYTHON*` are passed on."""
        argv = [sys.executable, "-m", "cdc", *arguments, "--config", str(pipeline.file)]
        ours = {k: v for k, v in os.environ.items() if k.startswith(("PYTHON", "CDC_"))}
        command = Command(self.name("worker"), lambda: argv, self.folder, {**ours, **(env or {})})
        server = Server(command)
        server.start()
        try:
            assert server.pid is not None
            yield psutil.Process(server.pid)
            assert server.running, end_of_log(server.log)
        except BaseException as error:
            error.add_note(f"the end of {command.name}'s log:\n{end_of_log(server.log)}")
            raise
        finally:
            server.stop(20.0)


def _place(target: str | Path | Mapping[str, object], workers: object) -> Mapping[str, object]:
    """The options of a sink into a target."""
    if isinstance(target, Mapping):
        return target
    if isinstance(target, Path):
        return {"type": "sqlite", "path": str(target)}
    if target.startswith("mariadb:"):
        return {"type": "mariadb", "url": target}
    return {"type": "postgres", "url": target, "workers": workers}


def fill(url: str, first: int, last: int, note: str = NOTE) -> None:
    """Insert the orders `first` to `last`, in transactions of `BATCH` rows; `note` is SQL."""
    with psycopg.connect(url, autocommit=True) as connection:
        for begin in range(first, last + 1, BATCH):
            end = min(begin + BATCH - 1, last)
            connection.execute(INSERT.format(first=begin, last=end, note=note))


def login(url: str) -> dict[str, object]:
    """What a peer's settings want to know of a database."""
    parts = urlsplit(url)
    return {
        "port": parts.port,
        "user": parts.username,
        "password": parts.password,
        "database": parts.path[1:],
    }


def make_slot(url: str, name: str) -> None:
    """Make a slot from which everything after this moment can be read."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
