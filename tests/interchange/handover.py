"""A live Debezium hands its slot over to our source while rows keep coming: none is missing.

Stopped, it repeats none either; killed, what it wrote behind its stored offset comes again. Both
write into one topic, as JSON. Run by `make interchange`.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from bench.peers import Connect
from cdc.brokers import high_watermark, topic_ids
from cdc.connector import Context
from cdc.override import overwrite
from cdc.positions import Stored
from cdc.sources.postgres import Config, take_over
from fix_pipeline import Pipeline, wait_until
from interchange.live import settings, streaming
from interchange.writing import writing
from schemas.change import Stamp

STARTING_S = 120.0


class Ticks(threading.Thread):
    """Inserts rows without end, in transactions of 1 to 40; `count` is how many are committed."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._ending = threading.Event()
        self.count = 0

    def run(self) -> None:
        insert = "INSERT INTO ticks SELECT n FROM generate_series(%s::int, %s::int) n"
        with psycopg.connect(self._url, autocommit=True) as db:
            while not self._ending.wait(0.002):
                size = 1 + self.count % 40
                db.execute(insert, (self.count + 1, self.count + size))
                self.count += size

    def end(self) -> None:
        self._ending.set()
        self.join(30)


class Scene:
    """One connector, and what comes after it under the same name."""

    def __init__(self, pipeline: Pipeline, url: str, connect: Connect, registry: str) -> None:
        self.pipeline, self.url, self.connect = pipeline, url, connect
        self.name = f"shop{secrets.token_hex(3)}"
        self.topic = f"{self.name}.public.ticks"
        self.ticks = Ticks(url)
        pipeline.source, pipeline.context = self.name, Context(pipeline.name, self.name)
        self._settings = settings("json", url, registry, self.name)

    def run_debezium(self, db: psycopg.Connection[Any]) -> None:
        """Let it write some thousand rows."""
        db.execute("CREATE TABLE ticks (id int PRIMARY KEY)")
        # Heartbeats and transactions would move the offset to the end of a transaction.
        quiet = {"heartbeat.interval.ms": "0", "provide.transaction.metadata": "false"}
        self.connect.configure(self.name, {**self._settings, **quiet})
        wait_until(lambda: streaming(db, self.connect, [self.name]), "Debezium", STARTING_S)
        self.ticks.start()
        wait_until(lambda: self.written() > 3_000, "rows of Debezium", 60.0)

    def written(self) -> int:
        if not topic_ids(self.pipeline.kafka, [self.topic]):
            return 0
        return high_watermark(self.pipeline.kafka, self.topic, 0)

    def go_on(self, db: psycopg.Connection[Any], offset: bytes) -> None:
        """Take over, catch up, and read to the end of the ticks."""
        free = "SELECT active FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
        wait_until(lambda: db.execute(free, (self.name,)).fetchone(), "the slot to be free")
        options = {"slot": self.name, "publication": self.name, "snapshot": "never"}
        config = Config.model_validate({"url": self.url, **options})
        position = take_over(self.pipeline.context, config, offset)
        stored = Stored(position, Stamp(position["incarnation"], 0), {})
        overwrite(self.pipeline.kafka, self.pipeline.name, self.name, stored)
        publish = {"format": "json", "json_schemas": True}
        tables = ["public.ticks"]
        with writing(self.pipeline, self.url, publish, tables=tables, **options) as life:
            life.until_caught_up(db)
            self.ticks.end()
            life.until_caught_up(db)

    def ids(self) -> list[int]:
        found = self.pipeline.read(self.topic)
        return [orjson.loads(one.value() or b"")["payload"]["after"]["id"] for one in found]


@pytest.fixture
def scene(
    kafka: Any, registry: Any, pipeline: Pipeline, pg_database: str, tmp_path: Path
) -> Iterator[Scene]:
    with Connect("source", tmp_path, kafka=kafka.bootstrap, registry=registry.url) as connect:
        made = Scene(pipeline, pg_database, connect, registry.url)
        yield made
        made.ticks.end()


@pytest.fixture
def db(pg_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(pg_database, autocommit=True) as connection:
        yield connection


def test_a_stopped_debezium_is_followed_without_a_gap_or_a_repetition(
    scene: Scene, db: psycopg.Connection[Any]
) -> None:
    scene.run_debezium(db)
    scene.connect.stop(scene.name)
    theirs = scene.written()
    scene.go_on(db, orjson.dumps(scene.connect.offsets(scene.name)))
    ids = scene.ids()
    assert 3_000 < theirs < scene.ticks.count
    assert ids == list(range(1, scene.ticks.count + 1))


def test_a_killed_debezium_is_followed_without_a_gap(
    scene: Scene, db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    scene.run_debezium(db)
    file = tmp_path / "offsets"
    wait_until(lambda: file.exists() and b"lsn_commit" in file.read_bytes(), "its offset", 30.0)
    scene.connect.process.kill()
    theirs = scene.written()
    scene.go_on(db, file.read_bytes())
    ids = scene.ids()
    assert 3_000 < theirs < scene.ticks.count
    assert list(dict.fromkeys(ids)) == list(range(1, scene.ticks.count + 1))
