"""A Postgres source of ours that writes into Kafka as the worker does, and what it wrote."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from cdc.postgres.position import Position
from cdc.publish import PublishConfig, Publisher, Written
from cdc.source import Source
from cdc.sources.postgres import Config, create
from fix_pipeline import Pipeline
from schemas.plan import SourceName

DEADLINE_S = 60.0


class Writing:
    """One life of a source: what is read is committed at once."""

    def __init__(self, source: Source, publisher: Publisher) -> None:
        self._source = source
        self._publisher = publisher
        self._confirmed = 0

    def step(self) -> None:
        """Read once, and commit what there is."""
        batch = self._source.read(0.1)
        if batch is None:
            return
        self._publisher.add(batch)
        committed = self._publisher.commit()
        assert committed is not None
        assert isinstance(committed.position, Position)
        self._source.confirm(committed.position)
        self._confirmed = committed.position.confirmed_lsn

    def until_streaming(self) -> None:
        """Read to the end of the snapshot."""
        self._until(lambda: self._source.status().state == "streaming")

    def until_caught_up(self, db: psycopg.Connection[Any]) -> None:
        """Read to where the log ends now."""
        row = db.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
        assert row is not None
        db.execute("SELECT pg_logical_emit_message(true, 'tailrace', '{}')")
        self._until(lambda: self._confirmed >= row[0])

    def _until(self, done: Any) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not done():
            assert time.monotonic() < deadline, self._source.status()
            self.step()


@contextmanager
def writing(
    pipeline: Pipeline, url: str, publish: dict[str, Any], database: str = "", **options: Any
) -> Iterator[Writing]:
    """Acquire the pipeline's source, open it where it stands, and close it behind."""
    config = Config.model_validate({"url": url, **options})
    written = PublishConfig.model_validate(publish)
    block = SourceName("1", "postgres", pipeline.source, database)
    publisher = Publisher(
        pipeline.context, pipeline.kafka, pipeline.registry, block, Written(written, {})
    )
    source = create(pipeline.context, config)
    try:
        stored = publisher.acquire()
        source.open(stored.position, stored.progress_list())
        yield Writing(source, publisher)
    finally:
        source.close()
        publisher.close()
