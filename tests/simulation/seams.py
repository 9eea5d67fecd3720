"""Where the twins take the place of the outside: clients, clocks, threads; nothing in the loops."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import cdc.kafka
import cdc.postgres.chunks
import cdc.postgres.creation
import cdc.postgres.session
import cdc.postgres.snapshots
import cdc.postgres.stream
import cdc.publish
import sinks.deadletter
import sinks.postgres.rivals
import sinks.postgres.straight
import sinks.session
import sinks.targets.postgres
from cdc.connector import Context
from cdc.kafka import KafkaConfig
from cdc.publish import PublishConfig, Publisher, Written
from cdc.sources import postgres as source_module
from cdc.worker import Command, SourceJob, run_source
from schemas.plan import SourceName
from simulation import broker, catalog, staging, target, walsender
from simulation.checker import PIPELINE, SINK, SOURCE
from simulation.world import HERE, Clock, Process, call
from sinks.job import SinkJob
from sinks.mapping import Selection
from sinks.worker import run_sink

_URL = "postgresql://cdc@127.0.0.1:1/shop"


class Executor:
    """The sink's apply thread, as late as it may be: work waits until somebody asks for it."""

    def __init__(self, *_: Any) -> None:
        self._left: list[Callable[[], None]] = []

    def submit(self, work: Callable[..., Any], *given: Any) -> Future[Any]:
        future = _Late(lambda: work(*given))
        self._left = [future.work]
        return future

    def shutdown(self, **_: Any) -> None:
        for work in self._left:
            work()


class Ahead(Executor):
    """The source's reading thread: every other time done at once, else as late as it may be."""

    def submit(self, work: Callable[..., Any], *given: Any) -> Future[Any]:
        future = super().submit(work, *given)
        if HERE.world.steps % 2:
            future.exception()
        return future


class _Late(Future[Any]):
    """Done when it has been asked for; whether it is by now is up to the dice."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self._work = work

    def work(self) -> None:
        if super().done():
            return
        try:
            self.set_result(self._work())
        except Exception as error:  # noqa: BLE001 - as concurrent.futures does
            self.set_exception(error)

    def done(self) -> bool:
        if HERE.world.dice.random() < 0.3:
            self.work()
        return super().done()

    def result(self, timeout: float | None = None) -> Any:
        self.work()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self.work()
        return super().exception(timeout)


class Registry:
    """A twin of the schema registry: ids by subject and schema."""

    def __init__(self) -> None:
        self.process = HERE.world.current
        self.schemas: dict[int, Any] = HERE.world.checker.schemas  # type: ignore[attr-defined]

    @call("registry.register")
    def register_for(self, topic: str, schema: Any, *, key: bool = False) -> int:
        made = {"topic": topic, "key": key, **schema} if key else schema
        known = [identity for identity, old in self.schemas.items() if old == made]
        identity = known[0] if known else len(self.schemas) + 1
        self.schemas[identity] = made
        return identity

    @call("registry.get")
    def get(self, identity: int) -> Any:
        return self.schemas[identity]

    def history(self, _topic: str, _identity: int) -> list[Any]:
        return []


class Desk:
    """Control and reporter of a worker; `requests` are handed over once."""

    def __init__(self) -> None:
        self.requests: list[Command] = []
        self.given: list[Command] = []

    def poll(self) -> list[Command]:
        out, self.requests = self.requests, []
        self.given += out
        return out

    def rewind(self) -> None:
        self.requests, self.given = [*self.given, *self.requests], []

    def acknowledge(self) -> None:
        self.given = []

    def published(self, _committed: object) -> None:
        """Nobody counts."""

    def applied(self, _applied: object) -> None:
        """Nobody counts."""

    def invalid(self, _rows: object) -> None:
        """Nobody counts."""

    def beat(self, _status: object, _error: object) -> None:
        """Nobody looks."""


def _kafka() -> KafkaConfig:
    return KafkaConfig.model_validate({"bootstrap": "twin:1", "registry": "http://twin:1"})


def _publisher(registry: Any) -> Publisher:
    publish = PublishConfig(partitions={"public.branches": 2}, max_rows=12)
    name = SourceName("0", "postgres", SOURCE)
    return Publisher(Context(PIPELINE, SOURCE), _kafka(), registry, name, Written(publish, {}))


def source_worker(desk: Desk) -> Callable[[Process], None]:
    """Return the source worker of the shop, as `cdc source` would run it."""

    def work(process: Process) -> None:
        context, registry = Context(PIPELINE, SOURCE), Registry()
        options = {"url": _URL, "tables": ["public.*"], "chunk_rows": 3, "memory": 600}
        config = source_module.Config.model_validate(options)
        job = SourceJob(
            source=lambda: source_module.create(context, config),
            publisher=lambda: _publisher(registry),
            control=desk,
            reporter=desk,
            stop=lambda: process.stop,
            back_off=lambda _: 0.5,
        )
        run_source(job)

    return work


def sink_worker(desk: Desk) -> Callable[[Process], None]:
    """Return the sink worker of the mirror."""

    def work(process: Process) -> None:
        context = Context(PIPELINE, SINK)
        config = sinks.targets.postgres.Config.model_validate(
            {"url": _URL, "tables": [f"{SOURCE}.public.*"]}
        )
        job = SinkJob(
            context=context,
            kafka=_kafka(),
            target=lambda: sinks.targets.postgres.create(context, config),
            selection=Selection(config.tables),
            schemas=Registry(),
            control=desk,
            reporter=desk,
            stop=lambda: process.stop,
            back_off=lambda _: 0.5,
        )
        run_sink(job)

    return work


class _Secrets:
    """Stands for `secrets`: the same history has the same marks."""

    @staticmethod
    def token_hex(size: int) -> str:
        return HERE.world.dice.randbytes(size).hex()


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    yield cdc.kafka, "Producer", broker.Producer
    yield cdc.kafka, "Consumer", broker.Consumer
    yield cdc.kafka, "AdminClient", broker.AdminClient
    yield cdc.kafka, "ensure_admitted", lambda _: None
    yield cdc.postgres.session, "connect", catalog.Connection
    yield cdc.postgres.session, "connect_replication", walsender.Walsender
    yield cdc.postgres.chunks, "connect", catalog.Connection
    yield cdc.postgres.chunks, "copy_lines", catalog.copy_lines
    yield cdc.postgres.chunks, "hang_up", catalog.Connection.close
    yield cdc.postgres.chunks, "ThreadPoolExecutor", Ahead
    yield cdc.postgres.snapshots, "secrets", _Secrets
    yield cdc.postgres.stream, "select", walsender.Select
    yield cdc.postgres.creation, "select", walsender.Select
    yield sinks.targets.postgres, "connect", target.Connection
    yield sinks.targets.postgres, "StagedTable", staging.StagedTable
    yield sinks.targets.postgres, "Catalog", target.Catalog
    yield sinks.postgres.straight, "_FEW", 1
    yield sinks.postgres.straight, "_PAUSE", 1
    yield sinks.postgres.rivals, "connect", target.Connection
    yield sinks.postgres.rivals, "_log", SimpleNamespace(warning=lambda *_, **__: None)
    yield (
        cdc.publish,
        "_log",
        SimpleNamespace(info=lambda *_, **__: None, debug=lambda *_, **__: None),
    )
    yield sinks.deadletter, "_log", SimpleNamespace(warning=lambda *_, **__: None)
    yield sinks.session, "ThreadPoolExecutor", Executor
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("cdc", "sinks", "schemas") and vars(module).get("time") is time:
            yield module, "time", Clock


@contextmanager
def twins() -> Iterator[None]:
    """Put the twins in place of the outside, for as long as this lasts."""
    kept: list[tuple[Any, str, Any]] = []
    try:
        for module, name, twin in _replacements():
            kept.append((module, name, getattr(module, name)))
            setattr(module, name, twin)
        yield
    finally:
        for module, name, original in reversed(kept):
            setattr(module, name, original)
