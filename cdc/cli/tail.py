"""`cdc tail TOPIC`: the records of a topic as JSON, decoded with their schemas."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import typer
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from rich.console import Console

from cdc.cli.shared import DEFAULT_FILE, ConfigFile, pipeline_of
from cdc.config import Pipeline
from cdc.errors import CdcError, ConfigError
from cdc.kafka import DEADLINE_S, KafkaConfig, consumer_client, kafka_error, topic_ids
from cdc.plugins import nearest
from schemas.plain import PlainReader
from schemas.registry import Registry
from schemas.wire import FRAME_BYTES, schema_id

__all__ = ["Decoder", "tail"]

_BATCH = 1000


def tail(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help="A topic, or `TOPIC[2]` for one partition.")
    ],
    count: Annotated[
        int, typer.Option("-n", "--count", min=0, help="Records; with no --offset, the last ones.")
    ] = 10,
    offset: Annotated[
        str | None, typer.Option("--offset", help="Begin here: `earliest` or an offset.")
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="One record a line, also on a terminal.")
    ] = False,
    config: ConfigFile = DEFAULT_FILE,
) -> None:
    """Print committed records, one JSON object each: offset, key, value, headers, decoded.

    Example: cdc tail shopdb.public.orders --offset earliest -n 5
    """
    pipeline = pipeline_of(config)
    consumer = consumer_client(pipeline.kafka)
    decoder = Decoder(Registry(pipeline.kafka.registry))
    show = _printer(json=json)
    try:
        ends = _begin(consumer, pipeline, topic, (offset, count))
        limit = None if follow else count
        for number, message in enumerate(_messages(consumer, ends, follow=follow)):
            if limit is not None and offset is not None and number >= limit:
                break
            show(decoder.record(message))
    except KafkaException as error:
        raise kafka_error(error, f"reading {topic}") from error
    finally:
        consumer.close()


def _begin(
    consumer: Consumer, pipeline: Pipeline, given: str, wanted: tuple[str | None, int]
) -> dict[int, int]:
    """Assign the partitions and return where each of them ends now."""
    offset, count = wanted
    topic, _, only = given.removesuffix("]").partition("[")
    partitions = _partitions(pipeline.kafka, topic, int(only) if only.isdecimal() else None)
    places, ends = [], {}
    for number in partitions:
        place = TopicPartition(topic, number)
        low, high = consumer.get_watermark_offsets(place, timeout=DEADLINE_S, cached=False)
        first = max(low, high - count) if offset is None else _first(offset, low, high)
        places.append(TopicPartition(topic, number, first))
        if first < high:
            ends[number] = high
    consumer.assign(places)
    return ends


def _partitions(kafka: KafkaConfig, topic: str, only: int | None) -> list[int]:
    found = topic_ids(kafka, [topic]).get(topic)
    if found is None:
        from cdc.compacted import reach  # noqa: PLC0415 - only to name the nearest

        known = [name for name in reach(kafka) if not name.startswith("_")]
        raise ConfigError(f"there is no topic {topic}", hint=nearest(topic, sorted(known)))
    if only is not None and only >= found[1]:
        raise ConfigError(f"{topic} has {found[1]} partitions, numbered from 0")
    return list(range(found[1])) if only is None else [only]


def _first(offset: str, low: int, high: int) -> int:
    if offset == "earliest":
        return low
    if not offset.isdecimal():
        raise ConfigError(f"--offset {offset}: neither `earliest` nor a number")
    return min(max(low, int(offset)), high)


def _messages(consumer: Consumer, ends: dict[int, int], *, follow: bool) -> Iterator[Message]:
    """Yield records until each partition has reached its end, or for ever."""
    open_ends = dict(ends)
    deadline = time.monotonic() + DEADLINE_S
    while open_ends or follow:
        for message in consumer.consume(_BATCH, 0.2):
            number, failed = message.partition() or 0, message.error()
            if failed is not None and failed.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
                raise kafka_error(failed, f"reading {message.topic()}")
            if failed is None:
                yield message
                deadline = time.monotonic() + DEADLINE_S
            reached = (message.offset() or 0) + (failed is None)
            if reached >= open_ends.get(number, reached + 1):
                del open_ends[number]
        if not follow and time.monotonic() > deadline:
            left = ", ".join(f"[{number}] to {end}" for number, end in open_ends.items())
            print(f"an open transaction hides {left}", file=sys.stderr)
            return


def _printer(*, json: bool) -> Any:
    if json or not sys.stdout.isatty():
        return lambda record: print(orjson.dumps(record, default=str).decode(), flush=True)
    console = Console()
    return lambda record: console.print_json(data=record, default=str)


class Decoder:
    """Turns records into plain JSON values, whatever they hold."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._readers: dict[int, PlainReader] = {}

    def record(self, message: Message) -> dict[str, Any]:
        """Return one record as JSON values."""
        headers: Any = message.headers() or []
        record: dict[str, Any] = {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp_ms": message.timestamp()[1],
            "key": self.payload(message.key()),
            "value": self.payload(message.value()),
        }
        if headers:
            record["headers"] = {name: _plain(value) for name, value in headers}
        return record

    def payload(self, payload: bytes | None) -> Any:
        """Return a key or value: Avro by its schema, else JSON, text, or hex."""
        if payload is None:
            return None
        if len(payload) < FRAME_BYTES or payload[0]:
            return _plain(payload)
        try:
            identity = schema_id(payload)
            if identity not in self._readers:
                self._readers[identity] = PlainReader(self._registry.get(identity))
            return self._readers[identity].read(payload)
        except CdcError as error:
            return {"error": str(error), "hex": payload.hex()}


def _plain(payload: Any) -> Any:
    if not isinstance(payload, bytes):
        return payload
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return payload.decode() if payload.isascii() else payload.hex()
