"""`cdc sink rewind NAME --to …`: apply again what was applied, from an offset or a time on.

Only the target's own cursors move, by the same compare-and-set as every batch. The source stamp of
a moved cursor is forgotten, else everything behind it would be dropped as a repeat (R5). A worker
that runs is asked to begin again from the cursors.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from cdc.cli.shared import (
    DEFAULT_FILE,
    ConfigFile,
    Json,
    SinkArgument,
    moment_ms,
    pipeline_of,
    print_json,
    print_rows,
)
from cdc.config import Pipeline, Unit
from cdc.control import ControlWriter
from cdc.errors import ConfigError, StateError, TopicChanged
from cdc.kafka import DEADLINE_S, KafkaConfig, consumer_client, kafka_error
from sinks.mapping import Selection
from sinks.target import Cursor, CursorMoved, Span, Target, TopicPartition
from sinks.topics import Topics

__all__ = ["rewind"]


def rewind(
    name: SinkArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="`earliest`, `latest`, an offset, or a time as 2026-01-31T08:00."
        ),
    ],
    topic: Annotated[str, typer.Option("--topic", help="Only topics that match this glob.")] = "*",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would move.")] = False,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Move the cursors of a sink, so that it applies again, or skips, what lies between.

    Upserts and deletes by key end where they did before. A table without a key gets its inserts
    a second time: empty it first. A time without a zone is UTC.

    Example: cdc sink rewind crm --to 2026-01-31T08:00 --topic 'shopdb.public.orders'
    """
    pipeline = pipeline_of(config)
    unit = pipeline.unit(f"sink/{name}")
    target: Target = unit.connector.offer("create")(unit.context, unit.config)
    try:
        target.open()
        spans = _spans(pipeline, unit, target, (topic, to))
        if not dry_run:
            target.place({span.partition: span.end for span in spans})
            ControlWriter(pipeline.kafka, pipeline.name).send(unit.address, "restart")
    except CursorMoved as error:
        raise StateError(
            f"{unit.address} moved its cursors meanwhile; nothing was changed",
            hint=f"cdc pause {unit.address}, then again",
        ) from error
    finally:
        target.close()
    if json:
        print_json({"moved": not dry_run, "partitions": [_as_json(span) for span in spans]})
        return
    columns = ("topic", "partition", "from", "to")
    print_rows(columns, [list(_as_json(span).values()) for span in spans])
    print("nothing was moved: --dry-run" if dry_run else f"{len(spans)} cursors moved")


def _spans(pipeline: Pipeline, unit: Unit, target: Target, wanted: tuple[str, str]) -> list[Span]:
    glob, to = wanted
    settings: Any = unit.config
    selection = Selection(settings.tables)
    topics = Topics(pipeline.kafka, selection.takes)
    names = [name for name in topics.names() if fnmatchcase(name, glob)]
    partitions = [p for group in topics.describe(names).values() for p in group]
    if not partitions:
        raise ConfigError(f"no topic of sink {unit.context.name} matches {glob}")
    try:
        stored = target.cursors(partitions)
    except TopicChanged:  # a topic made anew: its old cursors say nothing of the new offsets
        stored = dict.fromkeys(partitions)
    offsets = offsets_at(pipeline.kafka, partitions, to)
    return [Span(p, stored[p], Cursor(offsets[p])) for p in partitions]


def offsets_at(
    kafka: KafkaConfig, partitions: Sequence[TopicPartition], to: str
) -> dict[TopicPartition, int]:
    """Return the offset of `to` in each partition.

    Raises `errors.StateError` for an offset outside what a partition holds, `errors.ConfigError`
    for something that is neither offset nor time.
    """
    consumer = consumer_client(kafka)
    try:
        found = {p: _bounds(consumer, p) for p in partitions}
        if to == "earliest":
            return {p: low for p, (low, _) in found.items()}
        if to == "latest":
            return {p: high for p, (_, high) in found.items()}
        if to.isdecimal():
            return {p: _inside(p, int(to), bounds) for p, bounds in found.items()}
        moment = moment_ms("--to", to, "`earliest`, `latest`, an offset, or ")
        moments = [KafkaPartition(p.topic, p.partition, moment) for p in partitions]
        answers = consumer.offsets_for_times(moments, timeout=DEADLINE_S)
        by_place = {(a.topic, a.partition): a.offset for a in answers}
        at = {p: by_place[p.topic, p.partition] for p in partitions}
        return {p: offset if offset >= 0 else found[p][1] for p, offset in at.items()}
    except KafkaException as error:
        raise kafka_error(error, "looking up offsets") from error
    finally:
        consumer.close()


def _bounds(consumer: Any, partition: TopicPartition) -> tuple[int, int]:
    place = KafkaPartition(partition.topic, partition.partition)
    low, high = consumer.get_watermark_offsets(place, timeout=DEADLINE_S, cached=False)
    return int(low), int(high)


def _inside(partition: TopicPartition, offset: int, bounds: tuple[int, int]) -> int:
    low, high = bounds
    if not low <= offset <= high:
        raise StateError(
            f"{partition.topic}[{partition.partition}] holds offsets {low} to {high}, "
            f"{offset} is not among them",
            hint="Choose one of these, narrow --topic, or take `earliest` or `latest`.",
        )
    return offset


def _as_json(span: Span) -> dict[str, Any]:
    return {
        "topic": span.partition.topic,
        "partition": span.partition.partition,
        "from": None if span.start is None else span.start.offset,
        "to": span.end.offset,
    }
