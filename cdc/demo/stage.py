"""Everything the demo stands on: servers, three databases, the pipeline file, the `cdc run` child.

All of it lives in one temporary folder and ends with the demo, however the demo ends: the worker
processes hang below the same guard as the servers.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import psycopg

from cdc.demo.shop import TABLES, create_shop
from cdc.errors import CdcError
from cdc.kafka import KafkaConfig
from cdc.local import LocalStack
from cdc.local.process import Command, Server, end_of_log
from cdc.status import StatusReader

__all__ = ["Stage", "Urls"]

_SEED = 20_260
_MARK = "tailrace-demo-mark"


class Urls(msgspec.Struct, frozen=True):
    """Where things are; the three databases live on one server."""

    kafka: str
    registry: str
    source: str
    mirror: str
    crm: str

    def environment(self) -> dict[str, str]:
        """Return what the pipeline file refers to."""
        return {
            "KAFKA": self.kafka,
            "REGISTRY": self.registry,
            "SHOPDB_URL": self.source,
            "CRM_URL": self.crm,
            "MIRROR_URL": self.mirror,
        }


class Stage:
    """`with Stage(folder, say) as stage:` brings everything up; leaving takes it down again."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._stack = LocalStack()
        self._workers: Server | None = None
        self.config = folder / "tailrace.yaml"
        self.random = random.Random(_SEED)  # noqa: S311 - the load must repeat, not be secret
        self.urls = Urls("", "", "", "", "")

    def __enter__(self) -> Self:
        try:
            self._up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _up(self) -> None:
        self._say("starting Kafka, schema registry and PostgreSQL 18")
        self._stack.start()
        postgres = self._stack.postgres
        self.urls = Urls(
            kafka=self._stack.kafka.bootstrap,
            registry=self._stack.registry.url,
            source=postgres.create_database("shop"),
            mirror=postgres.create_database("mirror"),
            crm=postgres.create_database("crm"),
        )
        self._say("creating the shop")
        with psycopg.connect(self.urls.source) as connection:
            create_shop(connection, self.random)
        self.config.write_bytes(files("cdc.demo").joinpath("pipeline.yaml").read_bytes())
        self._say("starting one source worker and two sinks")
        self._workers = self._start_workers()

    def _start_workers(self) -> Server:
        argv = [sys.executable, "-m", "cdc", "run", "--config", str(self.config)]
        env = {**_ours(os.environ), **self.urls.environment()}
        server = Server(Command("workers", lambda: argv, self._folder, env))
        server.start()
        return server

    def check(self) -> None:
        """Raise `errors.CdcError` with the end of their log when the workers have ended."""
        workers = self._workers
        if workers is not None and not workers.running:
            workers.stop()
            raise CdcError(
                f"the workers ended with exit code {workers.exit_code}; the end of their log:\n"
                f"{end_of_log(workers.log)}"
            )

    def settle(self, deadline_s: float) -> float:
        """Wait until everything committed so far has arrived in both targets; return the seconds.

        Both sinks move between source-consistent cuts, so a customer inserted last arrives after,
        or together with, everything before it. Raises `errors.CdcError` past the deadline.
        """
        started = time.monotonic()
        self._wait_for_snapshot(started + deadline_s)
        with psycopg.connect(self.urls.source, autocommit=True) as source:
            source.execute(
                "insert into customers (full_name, email, address) values (%s, %s, '{}')"
                " on conflict (email) do update set loyalty_points = customers.loyalty_points + 1,"
                " full_name = excluded.full_name",
                (f"{_MARK} {started}", _MARK),
            )
        self._wait_for(self.urls.mirror, "customers", "full_name", (started, deadline_s))
        self._wait_for(self.urls.crm, "crm.clients", "name", (started, deadline_s))
        return time.monotonic() - started

    def _wait_for_snapshot(self, deadline: float) -> None:
        """A change that came through the log says nothing of tables still being read."""
        places = {"bootstrap": self.urls.kafka, "registry": self.urls.registry}
        status = StatusReader(KafkaConfig.model_validate(places), "demo")
        try:
            while time.monotonic() < deadline:
                beat = status.read().get("source/shopdb")
                if beat is not None and beat.state == "streaming" and not beat.snapshots:
                    return
                self.check()
                time.sleep(0.05)
        finally:
            status.close()
        raise CdcError("the snapshot was not done in time")

    def _wait_for(self, url: str, table: str, column: str, times: tuple[float, float]) -> None:
        started, deadline_s = times
        query = (
            f"select to_regclass('{table}') is not null and exists("  # noqa: S608 - our own names
            f"select from {table} where {column} = '{_MARK} {started}')"
        )
        with psycopg.connect(url, autocommit=True) as target:
            while time.monotonic() - started < deadline_s:
                if _true(target, table, query):
                    return
                self.check()
                time.sleep(0.05)
        raise CdcError(
            f"{table} did not catch up within {deadline_s:.0f} s",
            hint=f"The workers' log: {self._folder / 'workers.log'}",
        )

    def counts(self) -> Mapping[str, int]:
        """Return the number of rows of every table of the shop."""
        with psycopg.connect(self.urls.source) as source:
            return {table: _count(source, table) for table in TABLES}

    def close(self) -> None:
        """Stop the workers, then the servers; nothing is left running."""
        if self._workers is not None:
            self._workers.stop(15.0)
            self._workers = None
        self._stack.stop()


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of our environment the workers may need: Python's and Tailrace's own."""
    return {k: v for k, v in environment.items() if k.startswith(("PYTHON", "CDC_", "VIRTUAL_ENV"))}


def _true(connection: psycopg.Connection[Any], table: str, query: str) -> bool:
    exists = connection.execute("select to_regclass(%s) is not null", (table,)).fetchone()
    if exists is None or not exists[0]:
        return False
    row = connection.execute(query.encode()).fetchone()
    return row is not None and bool(row[0])


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(f"select count(*) from {table}".encode()).fetchone()  # noqa: S608
    return 0 if row is None else int(row[0])
