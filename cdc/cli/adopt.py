"""What `cdc position adopt` does to the cursors of every sink."""

from __future__ import annotations

from typing import Any

from cdc.config import Pipeline, Unit
from cdc.control import ControlWriter
from sinks.mapping import Selection
from sinks.target import Cursor, Span, Target
from sinks.topics import Topics

__all__ = ["adopted"]


def adopted(pipeline: Pipeline, source: str, *, dry_run: bool) -> list[dict[str, Any]]:
    """Forget the source stamp in each sink's cursors over topics of `source`; return them."""
    out: list[dict[str, Any]] = []
    for unit in pipeline.sinks.values():
        target: Target = unit.connector.offer("create")(unit.context, unit.config)
        try:
            target.open()
            spans = _stamped(pipeline, unit, target, source)
            if spans and not dry_run:
                target.apply([], spans)
                ControlWriter(pipeline.kafka, pipeline.name).send(unit.address, "restart")
        finally:
            target.close()
        out += [
            {
                "sink": unit.context.name,
                "topic": span.partition.topic,
                "partition": span.partition.partition,
                "offset": span.end.offset,
            }
            for span in spans
        ]
    return out


def _stamped(pipeline: Pipeline, unit: Unit, target: Target, source: str) -> list[Span]:
    settings: Any = unit.config
    selection = Selection(settings.tables)

    def is_wanted(topic: str) -> bool:
        return topic.startswith(f"{source}.") and selection.takes(topic)

    topics = Topics(pipeline.kafka, is_wanted)
    partitions = [p for group in topics.describe(topics.names()).values() for p in group]
    stored = target.cursors(partitions) if partitions else {}
    return [
        Span(partition, cursor, Cursor(cursor.offset))
        for partition, cursor in stored.items()
        if cursor is not None and cursor.stamp is not None
    ]
