"""Everything the demo stands on: servers, three databases, the pipeline file, the `cdc run` child.

Source and target are each a kind of server (`engines.py`); what is of one kind is one server.

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
from typing import Self

import msgspec

from cdc.demo.engines import Engine, Pair
from cdc.demo.shop import create_shop
from cdc.errors import CdcError
from cdc.kafka import KafkaConfig
from cdc.local import LocalStack
from cdc.local.process import Command, Server, end_of_log
from cdc.status import StatusReader

__all__ = ["Stage", "Urls"]

_SEED = 20_260
_MARK = "tailrace-demo-mark"


class Urls(msgspec.Struct, frozen=True):
    """Where things are; all three databases are empty at first."""

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
    """`with Stage(folder, pair, say) as stage:` brings everything up; leaving takes it down."""

    def __init__(self, folder: Path, pair: Pair, say: Callable[[str], None]) -> None:
        self._folder = folder
        self.pair = pair
        self._say = say
        self._stack = LocalStack(databases=pair.engines)
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
        source, target = self.pair.source, self.pair.target
        databases = " and ".join(dict.fromkeys((source.title, target.title)))
        self._say(f"starting Kafka, schema registry, {databases}")
        self._stack.start()
        self.urls = Urls(
            kafka=self._stack.kafka.bootstrap,
            registry=self._stack.registry.url,
            source=self._database(source, "shop"),
            mirror=self._database(target, "mirror"),
            crm=self._database(target, "crm"),
        )
        self._say("creating the shop")
        with source.session(self.urls.source) as session:
            create_shop(source, session, self.random)
        self.config.write_bytes(files("cdc.demo").joinpath("pipeline.yaml").read_bytes())
        self._say("starting one source worker and two sinks")
        self._workers = self._start_workers()

    def _database(self, engine: Engine, name: str) -> str:
        """Create a database on the server of that kind; its URL."""
        stack = self._stack
        server = stack.mariadb if engine.name == "mariadb" else stack.postgres
        return server.create_database(name)

    def _start_workers(self) -> Server:
        argv = [sys.executable, "-m", "cdc", "run", "--config", str(self.config)]
        source, target = self.pair.source, self.pair.target
        kinds = {"SOURCE": source.name, "SCHEMA": source.schema, "TARGET": target.name}
        env = {**_ours(os.environ), **self.urls.environment(), **kinds}
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
        mark = f"{_MARK} {started}"
        with self.pair.source.session(self.urls.source, autocommit=True) as source:
            if not source.execute(
                "update customers set full_name = %s where email = %s", (mark, _MARK)
            ):
                source.execute(
                    "insert into customers (full_name, email, address) values (%s, %s, '{}')",
                    (mark, _MARK),
                )
        self._wait_for(self.urls.mirror, "customers", "full_name", (mark, started + deadline_s))
        self._wait_for(self.urls.crm, "crm.clients", "name", (mark, started + deadline_s))
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

    def _wait_for(self, url: str, table: str, column: str, what: tuple[str, float]) -> None:
        mark, deadline = what
        with self.pair.target.session(url, autocommit=True) as target:
            while time.monotonic() < deadline:
                if target.finds(table, f"{column} = %s", mark):
                    return
                self.check()
                time.sleep(0.05)
        raise CdcError(
            f"{table} did not catch up in time",
            hint=f"The workers' log: {self._folder / 'workers.log'}",
        )

    def close(self) -> None:
        """Stop the workers, then the servers; nothing is left running."""
        if self._workers is not None:
            self._workers.stop(15.0)
            self._workers = None
        self._stack.stop()


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of our environment the workers may need: Python's and Tailrace's own."""
    return {k: v for k, v in environment.items() if k.startswith(("PYTHON", "CDC_", "VIRTUAL_ENV"))}
