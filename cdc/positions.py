"""The positions topic: where each source stands, written inside the data transaction (§3).

One compacted topic `<pipeline>.positions`. A source's state lives in the partition
`crc32(name) % partitions` under its name (the position) and `<name>/<key>` (progress).
Take-over reads it all, nothing cached:

    init_transactions            the former owner is fenced, its open transaction aborted
    high watermark               by a read_uncommitted client: covers whatever was in flight
    read_committed up to there   end-of-partition alone is no proof: another source's open
                                 transaction in the same partition hides newer positions
    claim                        `<name>/owner` says which worker took over last
"""

from __future__ import annotations

import time
import zlib
from typing import Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from cdc.brokers import COMPACTED, TopicSettings, ensure_topic, high_watermark
from cdc.errors import KafkaUnavailable, StateError
from cdc.kafka import DEADLINE_S, KafkaConfig, arrived, assign, consumer_client, kafka_error
from cdc.source import Batch, Progress
from schemas.change import Stamp

__all__ = [
    "POSITIONS_PARTITIONS",
    "VERSION",
    "PositionsTopic",
    "Stored",
    "Tails",
    "decode_position",
    "partition_for",
]

VERSION = 1
_OWNER = "owner"
POSITIONS_PARTITIONS = 16
"""Partitions at creation; more sources than that share, which is safe (see the module's text)."""


Tails = dict[str, Stamp | None]
"""Topics one commit wrote to → stamp of the newest record; None where it would not tell a reader
that all of the topic is there."""


class Stored(msgspec.Struct):
    """What was committed last for one source; all empty at its first start.

    `number` counts the commits of one life of the source's worker and `tails` is what the last
    wrote (None: not told): who has seen number after number knows from them which records belong
    to `boundary`. `owner` is the worker that took over last.
    """

    position: dict[str, Any] | None = None
    boundary: Stamp | None = None
    progress: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    ts_ms: int = 0
    owner: str = ""
    number: int = 0
    tails: Tails | None = None

    def progress_list(self) -> list[Progress]:
        """Return the progress as the source's `open` takes it."""
        return [Progress(key, value) for key, value in self.progress.items()]


class _Value(msgspec.Struct):
    version: int
    position: dict[str, Any]
    boundary: tuple[int, int]
    ts_ms: int
    number: int = 0
    tails: Tails | None = None


def partition_for(unit: str, partitions: int) -> int:
    """Return the partition in which `unit` (a source, or a placement unit) lives."""
    return zlib.crc32(unit.encode()) % partitions


def decode_position(payload: bytes, place: str) -> Stored:
    """Return the position in a record's value. Raises `errors.StateError` naming `place`."""
    try:
        head = msgspec.json.decode(payload)
        if head.get("version", 0) > VERSION:
            raise StateError(
                f"{place} was written by a newer version ({head['version']} > {VERSION})",
                hint="Upgrade this worker; an older one must not take over.",
            )
        value = msgspec.convert(head, _Value)
    except (msgspec.MsgspecError, AttributeError) as error:
        raise StateError(
            f"{place} is not a position: {error}",
            hint="Look at it with `cdc position show`; replace it with `cdc position set`.",
        ) from error
    incarnation, commit = value.boundary
    boundary, told = Stamp(incarnation, commit), (value.number, value.tails)
    return Stored(value.position, boundary, {}, value.ts_ms, "", *told)


class PositionsTopic:
    """The positions of one pipeline. Does no I/O before a method is called."""

    def __init__(self, kafka: KafkaConfig, pipeline: str) -> None:
        self._kafka = kafka
        self.name = f"{pipeline}.positions"
        self._partitions = 0

    def partition(self, source: str) -> int:
        """Return the partition of `source`, creating the topic when it is missing."""
        if not self._partitions:
            settings = TopicSettings(POSITIONS_PARTITIONS, COMPACTED)
            self._partitions = ensure_topic(self._kafka, self.name, settings)[1]
        return partition_for(source, self._partitions)

    def read(self, source: str) -> Stored:
        """Return what is committed for `source`.

        Raises `errors.KafkaUnavailable` when the end is not reached in time, `errors.StateError`
        for a value that cannot be used.
        """
        partition = self.partition(source)
        end = high_watermark(self._kafka, self.name, partition)
        # The end is behind a commit's marker, so only an empty fetch says that it is reached.
        consumer = consumer_client(self._kafka, fetch_wait_max_ms=20)
        try:
            assign(consumer, [TopicPartition(self.name, partition, OFFSET_BEGINNING)])
            return self._collect(consumer, source, end)
        except KafkaException as error:
            raise kafka_error(error, f"reading {self.name}[{partition}]") from error
        finally:
            consumer.close()

    def _collect(self, consumer: Consumer, source: str, end: int) -> Stored:
        stored, reached = Stored(), 0
        deadline = time.monotonic() + DEADLINE_S
        while reached < end:
            if time.monotonic() > deadline:
                raise KafkaUnavailable(
                    f"{self.name} is readable to offset {reached} of {end} only",
                    hint="Another transaction is open there; it times out by itself in 15 s.",
                )
            for message in arrived(consumer, 10_000, 0.2):
                failed, offset = message.error(), message.offset() or 0
                if failed is None:
                    self._take(stored, source, message.key() or b"", message.value())
                    reached = offset + 1
                elif failed.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                    reached = offset
                else:
                    raise kafka_error(failed, f"reading {self.name}")
        return stored

    def _take(self, stored: Stored, source: str, key: bytes, value: bytes | None) -> None:
        name, _, rest = key.decode().partition("/")
        if name != source:
            return
        if rest == _OWNER:
            stored.owner = "" if value is None else msgspec.json.decode(value)["worker"]
        elif rest and value is None:
            stored.progress.pop(rest, None)
        elif rest and value is not None:
            stored.progress[rest] = msgspec.json.decode(value)
        elif value is None:
            stored.position, stored.boundary = None, None
        else:
            found = decode_position(value, f"{self.name} key {source}")
            stored.position, stored.boundary = found.position, found.boundary
            stored.ts_ms = found.ts_ms

    def claim(self, source: str, owner: str) -> dict[str, Any]:
        """Return the record, as `produce_batch` takes it, that says who owns `source`."""
        value = {"version": VERSION, "worker": owner}
        return {"key": f"{source}/{_OWNER}".encode(), "value": msgspec.json.encode(value)}

    def records(
        self, source: str, batch: Batch, now_ms: int, told: tuple[int, Tails | None] = (0, None)
    ) -> list[dict[str, Any]]:
        """Return the records, as `produce_batch` takes them, that store the end of `batch`.

        `told` is the commit's number and its tails, see `Stored`.
        """
        out: list[dict[str, Any]] = [
            {
                "key": f"{source}/{progress.key}".encode(),
                "value": None if progress.value is None else msgspec.json.encode(progress.value),
            }
            for progress in batch.progress
        ]
        boundary = (batch.boundary.incarnation, batch.boundary.commit)
        value = _Value(VERSION, batch.upto.encode(), boundary, now_ms, *told)
        out.append({"key": source.encode(), "value": msgspec.json.encode(value)})
        return out
