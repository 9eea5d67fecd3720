"""`cdc tail TOPIC`: the records of a topic as JSON, decoded with their schemas."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Annotated, Any

import orjson
import typer
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from rich.console import Console

from cdc.brokers import topic_ids
from cdc.cli.shared import DEFAULT_FILE, ConfigFile, outline_of
from cdc.errors import CdcError, ConfigError
from cdc.kafka import DEADLINE_S, KafkaConfig, arrived, consumer_client, kafka_error
from cdc.plugins import nearest
from schemas.plain import PlainReader
from schemas.registry import Registry
from schemas.wire import FRAME_BYTES, schema_id

__all__ = ["Decoder", "TopicReader", "newest_or_from", "tail"]

_BATCH = 1000
_HIDDEN_S = 20.0
"""Longer than an abandoned transaction stays open."""


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
    pipeline = outline_of(config)
    consumer = consumer_client(pipeline.kafka)
    show = _printer(json=json)
    try:
        with Registry(pipeline.kafka.registry) as registry:
            decoder = Decoder(registry)
            for message in newest_or_from(
                TopicReader(consumer, pipeline.kafka, topic), offset, count
            ):
                show(decoder.record(message))
            while follow:
                for message in arrived(consumer, _BATCH, 0.2):
                    if _is_record(message):
                        show(decoder.record(message))
    except KafkaException as error:
        raise kafka_error(error, f"reading {topic}") from error
    finally:
        consumer.close()


def newest_or_from(reader: TopicReader, offset: str | None, count: int) -> Iterator[Message]:
    """Yield `count` records from `offset` on, or the last ones, by time, when there is none."""
    if offset is not None:
        yield from islice(reader.read(lambda low, high: _first(offset, low, high)), count)
        return
    window = 2 * count + 8
    while True:
        found = list(reader.read(partial(_back, window)))
        if len(found) >= count or window >= reader.longest:
            break
        window *= 4
    yield from sorted(found, key=lambda message: message.timestamp()[1])[-count:] if count else []


def _back(window: int, low: int, high: int) -> int:
    return max(low, high - window)


class TopicReader:
    """Reads a topic up to where it ends when asked. Offsets have gaps: transaction markers."""

    def __init__(self, consumer: Consumer, kafka: KafkaConfig, given: str) -> None:
        topic, _, only = given.removesuffix("]").partition("[")
        self._consumer = consumer
        self._topic = topic
        self._partitions = _partitions(kafka, topic, int(only) if only.isdecimal() else None)
        self.longest = 0

    def read(self, first: Callable[[int, int], int]) -> Iterator[Message]:
        """Yield committed records; `first` maps the bounds of a partition to where to begin."""
        places, ends = [], {}
        for number in self._partitions:
            place = TopicPartition(self._topic, number)
            low, high = self._consumer.get_watermark_offsets(
                place, timeout=DEADLINE_S, cached=False
            )
            self.longest = max(self.longest, high - low)
            begin = first(low, high)
            places.append(TopicPartition(self._topic, number, begin))
            if begin < high:
                ends[number] = high
        self._consumer.assign(places)
        return self._messages(ends)

    def _messages(self, ends: dict[int, int]) -> Iterator[Message]:
        deadline = time.monotonic() + _HIDDEN_S
        while ends:
            for message in arrived(self._consumer, _BATCH, 0.2):
                if _is_record(message):
                    yield message
                    deadline = time.monotonic() + _HIDDEN_S
                number = message.partition() or 0
                reached = (message.offset() or 0) + (message.error() is None)
                if reached >= ends.get(number, reached + 1):
                    del ends[number]
            if time.monotonic() > deadline:
                hidden = ", ".join(f"{self._topic}[{n}] up to {end}" for n, end in ends.items())
                print(f"an open transaction hides {hidden}", file=sys.stderr)
                return


def _is_record(message: Message) -> bool:
    failed = message.error()
    if failed is None:
        return True
    if failed.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own code
        return False
    raise kafka_error(failed, f"reading {message.topic()}")


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
