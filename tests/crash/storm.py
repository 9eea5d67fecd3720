"""A storm: real servers, a pipeline under `cdc run`, writers, and misfortunes at random.

python tests/crash/storm.py --changes 200000 --source-kills 10 --sink-kills 5 \
    --broker-kills 3 --postgres-kills 3 --freezes 2
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from cdc.kafka import KafkaConfig
from cdc.local import LocalStack
from cdc.local.process import Command, Server, end_of_log
from cdc.status import StatusReader
from crash.checker import TopicReader, check_sum, check_target, check_topics, journal
from crash.misfortunes import Misfortunes
from crash.workload import TABLES, Writer
from fix_pipeline import Pipeline, wait_until

HERE = Path(__file__).parent

CONFIG = """
pipeline: storm
kafka: {bootstrap: "%(kafka)s", registry: "%(registry)s"}
sources:
  bank: {type: postgres, url: "%(source)s", tables: ["public.*"]}
sinks:
  one: {type: postgres, url: "%(one)s", tables: ["bank.public.*"]}
  two: {type: postgres, url: "%(two)s", tables: ["bank.public.*"]}
"""


@dataclass
class Plan:
    """How much, and how rough."""

    changes: int = 40_000
    source_kills: int = 4
    sink_kills: int = 2
    broker_kills: int = 0
    postgres_kills: int = 0
    freezes: int = 0
    writers: int = 4
    seed: int = 1
    settle_s: float = 120.0

    def misfortunes(self) -> list[str]:
        """Return what is to happen; one of `freezes` is one of the source and one of a sink."""
        return [
            *["kill source"] * self.source_kills,
            *["kill sink one", "kill sink two"] * self.sink_kills,
            *["kill broker"] * self.broker_kills,
            *["kill postgres"] * self.postgres_kills,
            *["freeze source", "freeze sink one"] * self.freezes,
        ]


@dataclass
class Report:
    """What happened, and what was found broken: nothing, it is hoped."""

    changes: int = 0
    events: int = 0
    misfortunes: Counter[str] = field(default_factory=Counter)
    sum_reads: int = 0
    dead: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        yield f"changes committed at the source   {self.changes:>10,}"
        yield f"events read from the topics       {self.events:>10,}"
        for name, times in sorted(self.misfortunes.items()):
            yield f"{name:<33} {times:>10,}"
        yield f"reads of the bank's sum           {self.sum_reads:>10,}"
        yield f"dead letters                      {self.dead:>10,}"
        yield f"seconds                           {self.seconds:>10.1f}"
        yield f"broken invariants                 {len(self.broken):>10,}"
        yield from self.broken


class SumReader(threading.Thread):
    """Reads the bank's sum in the target, over and over."""

    def __init__(self, url: str) -> None:
        super().__init__(name="sum-reader")
        self._url = url
        self._over = threading.Event()
        self.readings: list[int] = []

    def end(self) -> list[int]:
        self._over.set()
        self.join()
        return self.readings

    def run(self) -> None:
        while not self._over.wait(0.01):
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    self._read(connection)
            except psycopg.OperationalError:  # the server is down; it will be back
                continue

    def _read(self, connection: psycopg.Connection) -> None:
        while not self._over.wait(0.01):
            row = connection.execute("select coalesce(sum(balance), 0) from accounts")
            self.readings.append(int((row.fetchone() or (0,))[0]))


class Storm:
    """One storm; `run` returns its report."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._random = random.Random(plan.seed)  # noqa: S311 - a storm must repeat
        self._report = Report()

    def run(self) -> Report:
        started = time.monotonic()
        with LocalStack() as stack, ExitStack() as cleanup:
            urls = self._databases(stack)
            workers = self._start(stack, urls)
            cleanup.callback(workers.stop, 20.0)
            readers = [SumReader(urls["one"]), SumReader(urls["two"])]
            for reader in readers:
                reader.start()
                cleanup.callback(reader.end)
            self._wait_for_stream(stack, workers)
            self._rage(urls["source"], Misfortunes(stack, workers, self._random))
            self._settle(urls, workers)
            workers.stop(20.0)
            self._check(stack, urls, [reader.end() for reader in readers])
        self._report.seconds = time.monotonic() - started
        return self._report

    def _databases(self, stack: LocalStack) -> dict[str, str]:
        urls = {name: stack.postgres.create_database(name) for name in ("source", "one", "two")}
        for name, url in urls.items():
            script = "source.sql" if name == "source" else "target.sql"
            with psycopg.connect(url) as connection:
                connection.execute((HERE / script).read_bytes())
        return urls

    def _start(self, stack: LocalStack, urls: dict[str, str]) -> Server:
        config = self._folder / "tailrace.yaml"
        places = {"kafka": stack.kafka.bootstrap, "registry": stack.registry.url, **urls}
        config.write_text(CONFIG % places)
        argv = [sys.executable, "-m", "cdc", "run", "--config", str(config)]
        env = {k: v for k, v in os.environ.items() if k.startswith(("PYTHON", "CDC_"))}
        server = Server(Command("workers", lambda: argv, self._folder, env))
        server.start()
        return server

    def _wait_for_stream(self, stack: LocalStack, workers: Server) -> None:
        """Begin when the first snapshot is over: what it reads has no entry of its own."""
        places = {"bootstrap": stack.kafka.bootstrap, "registry": stack.registry.url}
        status = StatusReader(KafkaConfig.model_validate(places), "storm")

        def streaming() -> bool:
            assert workers.running, end_of_log(workers.log)
            beat = status.read().get("source/bank")
            return beat is not None and beat.state == "streaming" and not beat.snapshots

        wait_until(streaming, f"the source to stream\n{end_of_log(workers.log)}", 90)
        status.close()

    def _rage(self, source: str, misfortunes: Misfortunes) -> None:
        plan = self._plan
        each = plan.changes // plan.writers
        writers = [Writer(source, n + 1, each, plan.seed) for n in range(plan.writers)]
        for writer in writers:
            writer.start()
        names = plan.misfortunes()
        self._random.shuffle(names)
        try:
            for name in names:
                misfortunes.bring(name)
        finally:
            for writer in writers:
                writer.join()
        failures = [writer.failure for writer in writers if writer.failure is not None]
        if failures:
            raise failures[0]
        self._report.misfortunes = misfortunes.happened
        self._report.changes = sum(writer.changes for writer in writers)

    def _settle(self, urls: dict[str, str], workers: Server) -> None:
        with psycopg.connect(urls["source"]) as connection:
            connection.execute("insert into reborn (id, round) values (-1, 0)")
        for name in ("one", "two"):
            with psycopg.connect(urls[name], autocommit=True) as target:

                def arrived(target: psycopg.Connection = target) -> bool:
                    assert workers.running, end_of_log(workers.log)
                    query = "select from reborn where id = -1"
                    return target.execute(query).fetchone() is not None

                what = f"sink {name} to catch up\n{end_of_log(workers.log)}"
                wait_until(arrived, what, self._plan.settle_s)

    def _check(self, stack: LocalStack, urls: dict[str, str], sums: list[list[int]]) -> None:
        broken = self._report.broken
        reading = Pipeline(stack.kafka.bootstrap, stack.registry.url)
        reader = TopicReader(reading.registry)
        read = [e for t in TABLES for e in reader.events(reading.read(f"bank.public.{t}"))]
        reading.registry.close()
        self._report.dead = len(reading.read("storm.dead"))
        self._report.events = len(read)
        broken += check_topics(journal(urls["source"]), read)
        for name in ("one", "two"):
            broken += [f"{name}: {found}" for found in check_target(urls["source"], urls[name])]
        for readings in sums:
            broken += check_sum(readings)
            self._report.sum_reads += len(readings)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in Plan.__annotations__.items():
        default = getattr(Plan, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
        assert kind
    plan = Plan(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory(prefix="tailrace-storm-") as folder:
        report = Storm(plan, Path(folder)).run()
    for line in report.lines():
        sys.stdout.write(f"{line}\n")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
