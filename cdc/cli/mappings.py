"""What `cdc check` says of a sink's mapping: does it fit the tables that are in Kafka already?

A mapping is bound to a table's newest schema just as the worker will bind it, so that a column, a
type, a lookup or a function that is not there is found before a row comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cdc.brokers import topic_ids
from cdc.compacted import reach
from cdc.config import Pipeline, Unit
from cdc.connector import Finding
from cdc.errors import CdcError
from schemas.avro import table_schema
from schemas.registry import Registry
from schemas.subjects import Strategy
from sinks.debezium_record import is_debezium
from sinks.mapping import Selection, TableMap, Tables
from sinks.routes import Routes
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
            there = reach(pipeline.kafka, 5.0)
            taken = [name for name in sorted(there) if selection.takes(name)]
            routes = Routes(selection, registry, _Workers(there, getattr(config, "workers", 1)))
            found = [
                one
                for topic in taken
                for one in _misfits(routes, selection.mappings(topic), topic, registry)
            ]
            found += _missing(pipeline, tables)
    except CdcError as error:
        yield Finding("warn", "mapping", f"it could not be looked at: {error}", error.hint)
        return
    yield from found
    if not found:
        yield Finding("ok", "mapping", f"fits the tables that are in Kafka, {len(taken)}")


def _missing(pipeline: Pipeline, tables: Tables) -> Iterator[Finding]:
    """Yield the topics that are looked up in and not there: the sink would wait for them."""
    wanted = {lookup.topic for lookup in topic_lookups(tables)}
    for topic in sorted(wanted - topic_ids(pipeline.kafka, wanted).keys()):
        yield Finding("warn", topic, "is to be looked up in, and there is no such topic")


class _Workers:
    """How the topics will be spread over the workers of the sink."""

    def __init__(self, topics: Mapping[str, int], workers: int) -> None:
        self._topics = topics
        self._workers = workers

    def partitions(self, topic: str) -> int:
        """Return how many partitions `topic` has."""
        return self._topics.get(topic, 1)

    def writers(self, topic: str) -> int:
        """Return how many workers may write the tables of `topic` at once."""
        return min(self._workers, self.partitions(topic))


def _misfits(
    routes: Routes, mappings: Sequence[TableMap], topic: str, registry: Registry
) -> Iterator[Finding]:
    """Yield what of a topic's mappings does not fit its newest schema."""
    latest = registry.latest(f"{topic}-value")
    if latest is None or is_debezium(latest[1]):
        return
    for mapping in mappings:
        try:
            routes.bind(table_schema(latest[1]), topic, mapping)
        except KeyError:
            yield Finding("warn", topic, "its records are no change envelopes")
            return
        except CdcError as error:
            yield Finding("fail", topic, str(error), error.hint)
