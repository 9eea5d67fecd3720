"""A source worker as a process of its own, and what can be seen of it from outside."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from cdc.brokers import high_watermark, topic_ids
from cdc.kafka import KafkaConfig, consumer_client
from cdc.local.process import Command, Server, end_of_log
from fix_pipeline import wait_until

CONFIG = """
pipeline: {name}
kafka: {{bootstrap: "{bootstrap}", registry: "{registry}"}}
sources:
  {name}: {{type: postgres, url: "{url}", {options}}}
"""
IDLE_S = 600.0
"""As long as a server may take, on a busy machine, to read a huge transaction once more."""


@dataclass(frozen=True)
class Place:
    """Where a measurement is made: the servers, an empty database, a folder."""

    bootstrap: str
    registry: str
    url: str
    folder: Path
    name: str = field(default_factory=lambda: f"size{secrets.token_hex(3)}")

    @property
    def kafka(self) -> KafkaConfig:
        places = {"bootstrap": self.bootstrap, "registry": self.registry}
        return KafkaConfig.model_validate(places)

    def topic(self, table: str) -> str:
        return f"{self.name}.public.{table}"

    def written(self, table: str) -> int:
        """Return the end of a table's topic, markers of transactions counted."""
        topic = self.topic(table)
        return high_watermark(self.kafka, topic, 0) if topic_ids(self.kafka, [topic]) else 0


class SourceWorker:
    """`cdc source` on a place; `with` starts and ends it. Options are YAML, as in the file.

    `failpoints` are as in `cdc.failpoints`: where it is to die.
    """

    def __init__(self, place: Place, options: str, failpoints: str = "") -> None:
        self.place = place
        config = place.folder / f"{place.name}.yaml"
        settings = {"bootstrap": place.bootstrap, "registry": place.registry, "url": place.url}
        config.write_text(CONFIG.format(name=place.name, options=options, **settings))
        argv = [sys.executable, "-m", "cdc", "source", place.name, "--config", str(config)]
        env = {k: v for k, v in os.environ.items() if k.startswith(("PYTHON", "CDC_"))}
        env["CDC_FAILPOINTS"] = failpoints
        self.server = Server(Command(f"worker-{place.name}", lambda: argv, place.folder, env))

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.stop(20.0)

    def until(self, condition: Callable[[], Any], what: str, deadline_s: float = 60.0) -> Any:
        """Wait for a condition while the worker lives."""

        def reached() -> Any:
            assert self.server.running, end_of_log(self.server.log)
            return condition()

        return wait_until(reached, what, deadline_s)

    def until_streaming(self, db: psycopg.Connection[Any], deadline_s: float = 60.0) -> None:
        query = (
            "select from pg_replication_slots where database = current_database() and active"
            " and confirmed_flush_lsn is not null"
        )
        self.until(lambda: db.execute(query).fetchone() is not None, "the slot", deadline_s)

    @property
    def peak_mb(self) -> float:
        """Return the most memory it ever had resident (VmHWM, proc(5))."""
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        line = next(x for x in status.splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1e3

    @property
    def spilled(self) -> int:
        """Return the bytes in its unnamed temporary files."""
        total = 0
        for entry in Path(f"/proc/{self.server.pid}/fd").iterdir():
            try:
                if "/cdc-" in str(entry.readlink()) or "/#" in str(entry.readlink()):
                    total += entry.stat().st_size
            except OSError:  # closed meanwhile
                continue
        return total

    def keys(self, table: str, count: int) -> Iterator[bytes]:
        """Yield the keys of the first `count` committed records, without registry frame."""
        consumer = consumer_client(self.place.kafka, group_id=secrets.token_hex(4))
        consumer.assign([TopicPartition(self.place.topic(table), 0, OFFSET_BEGINNING)])
        try:
            quiet = time.monotonic() + IDLE_S
            while count > 0:
                assert self.server.running, end_of_log(self.server.log)
                waiting = f"{count} records of {table} did not come"
                assert time.monotonic() < quiet, f"{waiting}\n{end_of_log(self.server.log)}"
                for message in consumer.consume(min(count, 10_000), 0.2):
                    if message.error() is None:
                        count -= 1
                        quiet = time.monotonic() + IDLE_S
                        yield (message.key() or b"")[5:]
        finally:
            consumer.close()
