"""A store of a test's own, a folder, memory or S3: targets on it, and the rows in its files."""

from __future__ import annotations

import csv
import io
import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from cdc.connector import Context
from schemas.change import Cell
from schemas.table import Column, TableId, TableSchema, Type
from sinks.files.store import WRITER
from sinks.journal import FACTS, KEY, POSITION
from sinks.target import Mapped, Step, TopicPartition
from sinks.targets.files import Config, FilesTarget, create

CONTEXT = Context("shop", "archive")
PLACE = TopicPartition("shop.public.items", "topic-1", 0)


class Files:
    """A place for files; every target of it is closed after the test."""

    def __init__(self, path: str, **options: object) -> None:
        self.path = path
        given = {"path": path, "tables": ["shop.*"], "every": 0, **options}
        self.config = Config.model_validate(given)
        self.opened: list[FilesTarget] = []

    def connect(self) -> FilesTarget:
        self.opened.append(create(CONTEXT, self.config))
        return self.opened[-1]

    def open(self, *schemas: TableSchema) -> FilesTarget:
        target = self.connect()
        target.open()
        for schema in schemas:
            target.prepare(schema)
        return target

    def names(self) -> list[str]:
        """Paths of all files, below the store's own, but for the note of who wrote last."""
        files, root = self._below()
        files.invalidate_cache()
        found = {path[len(root) + 1 :] for path in files.find(root)}
        return sorted(found - {WRITER})

    def read(self, name: str) -> bytes:
        files, root = self._below()
        content: bytes = files.cat_file(f"{root}/{name}")
        return content

    def _below(self) -> tuple[Any, str]:
        files, root = fsspec.core.url_to_fs(self.path, **self.config.storage.get_secret_value())
        return files, root.rstrip("/")

    def rows(self) -> list[dict[str, Any]]:
        """The rows of all files, as a reader of the folder finds them, in the order of offsets."""
        found = [row for name in self.names() for row in self._rows_of(name)]
        return sorted(found, key=lambda row: int(row["cdc_offset"]))

    def _rows_of(self, name: str) -> list[dict[str, Any]]:
        content = self.read(name)
        if name.endswith(".parquet"):
            rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
            return rows
        if name.endswith(".jsonl"):
            return [json.loads(line) for line in content.splitlines()]
        if name.endswith(".csv"):
            return list(csv.DictReader(io.StringIO(content.decode(), newline="")))
        return []

    def close(self) -> None:
        for target in self.opened:
            target.close()


def journal(*columns: Column, name: str = "items") -> TableSchema:
    return TableSchema(TableId("shop", name), (*columns, *FACTS, POSITION), KEY)


ITEMS = journal(Column("id", Type("int64")), Column("name", Type("string")))


def row(offset: int, *cells: Cell, partition: TopicPartition = PLACE) -> list[Cell]:
    """A change of the record at `offset`, committed on the 20th of a month, hour by hour."""
    at = b"2026-01-20 %02d:00:00+00" % (offset % 24)
    place = (partition.topic.encode(), b"%d" % partition.partition, b"%d" % offset)
    return [*cells, b"u", at, None, *place, b"1-%d-0-0" % offset]


def steps(*rows: Sequence[Cell], schema: TableSchema = ITEMS) -> list[Step]:
    return [[Mapped(schema, list(rows), [])]]


def items(*offsets: int, partition: TopicPartition = PLACE) -> list[Step]:
    rows = [row(n, b"%d" % (n % 10), b"item %d" % n, partition=partition) for n in offsets]
    return steps(*rows)


def offsets(store: Files) -> list[int]:
    return [int(found["cdc_offset"]) for found in store.rows()]


@pytest.fixture(scope="session")
def bucket() -> Iterator[dict[str, Any]]:
    """The `storage` of a double of S3 (moto), which holds one bucket, `lake`."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    at = {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-west-1"}
    storage = {"key": "archive", "secret": "archive", "client_kwargs": at}
    fsspec.filesystem("s3", **storage).mkdir("lake")
    yield storage
    server.stop()


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest) -> Iterator[Files]:
    """One that renames, and two that put, as an object store does."""
    if request.param == "memory":
        place = Files(f"memory://{secrets.token_hex(4)}")
        yield place
        place.close()
    else:
        yield request.getfixturevalue(request.param)


@pytest.fixture
def s3(bucket: dict[str, Any]) -> Iterator[Files]:
    place = Files(f"s3://lake/{secrets.token_hex(4)}", storage=bucket)
    yield place
    place.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Files]:
    place = Files(str(tmp_path / "lake"))
    yield place
    place.close()
