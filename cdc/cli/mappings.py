"""What `cdc check` says of a sink's mapping: does it fit the tables that are in Kafka already?

A mapping is bound to a table's newest schema just as the worker will bind it, so that a column, a
type, a lookup or a function that is not there is found before a row comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cdc.brokers import topic_ids
from cdc.compacted import reach
from cdc.config import Pipeline, Unit
from cdc.connector import Finding
from cdc.errors import CdcError
from schemas.avro import table_schema
from schemas.registry import Registry
from schemas.subjects import Strategy
from sinks.binding import MappedTable
from sinks.debezium_record import is_debezium
from sinks.mapping import Selection, Tables
from sinks.topic_lookup import topic_lookups

__all__ = ["mapping_findings"]


def mapping_findings(pipeline: Pipeline, unit: Unit) -> Iterator[Finding]:
    """Yield what is wrong with the mapping of a sink, or that all of it fits.

    Nothing for topics that Debezium wrote, whose tables are told by the record; nothing where Kafka
    or the registry cannot be asked, which has a finding of its own, and where subjects are not
    named after topics.
    """
    config: Any = unit.config
    tables = getattr(config, "tables", None)
    if tables is None or pipeline.kafka.registry.subjects is not Strategy.TOPIC:
        return
    selection = Selection(tables)
    try:
        with Registry(pipeline.kafka.registry) as registry:
            taken = [name for name in sorted(reach(pipeline.kafka, 5.0)) if selection.find(name)]
            found = [_misfit(registry, selection, topic) for topic in taken]
            found += _missing(pipeline, tables)
    except CdcError as error:
        yield Finding("warn", "mapping", f"it could not be looked at: {error}", error.hint)
        return
    wrong = [finding for finding in found if finding is not None]
    yield from wrong
    if not wrong:
        yield Finding("ok", "mapping", f"fits the tables that are in Kafka, {len(taken)}")


def _missing(pipeline: Pipeline, tables: Tables) -> Iterator[Finding]:
    """Yield the topics that are looked up in and not there: the sink would wait for them."""
    wanted = {lookup.topic for lookup in topic_lookups(tables)}
    for topic in sorted(wanted - topic_ids(pipeline.kafka, wanted).keys()):
        yield Finding("warn", topic, "is to be looked up in, and there is no such topic")


def _misfit(registry: Registry, selection: Selection, topic: str) -> Finding | None:
    latest = registry.latest(f"{topic}-value")
    mapping = selection.find(topic)
    if latest is None or mapping is None or is_debezium(latest[1]):
        return None
    try:
        MappedTable.bind(table_schema(latest[1]), topic, mapping)
    except KeyError:
        return Finding("warn", topic, "its records are no change envelopes")
    except CdcError as error:
        return Finding("fail", topic, str(error), error.hint)
    return None
