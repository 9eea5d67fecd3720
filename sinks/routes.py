"""From a record's topic and schema to the decoder compiled for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from confluent_kafka import Message

from cdc.errors import ConfigError, DataError
from schemas.avro import table_schema
from schemas.table import TableId, TableSchema
from schemas.wire import schema_id
from sinks.binding import MappedTable
from sinks.debezium import DebeziumTopic
from sinks.debezium_record import is_debezium
from sinks.decode import Decoder, Event, poison
from sinks.lines import Read, line_reader
from sinks.mapping import Selection, TableMap
from sinks.parts import split
from sinks.policy import ALONE, Lineage
from sinks.rules import Tally
from sinks.screen import Screen

__all__ = ["Routes", "Schemas", "Sharing"]


class Schemas(Protocol):
    """Where writer schemas come from: `schemas.registry.Registry`."""

    def get(self, schema_id: int) -> dict[str, Any]:
        """Return the schema of an id. Raises `errors.DataError` when there is none."""
        ...

    def history(self, topic: str, schema_id: int) -> Sequence[tuple[int, dict[str, Any]]]:
        """Return all versions of a topic's value schema with their ids, oldest first."""
        ...


class Sharing(Protocol):
    """How topics are spread: `sinks.session.Session`."""

    def partitions(self, topic: str) -> int:
        """Return how many partitions `topic` has."""
        ...

    def writers(self, topic: str) -> int:
        """Return how many workers may write the table of `topic` at once."""
        ...


class Routes:
    """Compiles a decoder at the first record of a schema; for one thread.

    `applied` are the topics whose changes reached the target before, `begun` those with a cursor
    there; `tables` are the target tables met so far, each with whether it must be there already.
    `lines` says that the target takes rows as lines of COPY text. `tally` counts the rows that
    break rules, and `screen` judges those of one transaction together.
    """

    def __init__(
        self, selection: Selection, schemas: Schemas, sharing: Sharing, *, lines: bool = False
    ) -> None:
        self._selection = selection
        self._sharing = sharing
        self._schemas = schemas
        self._lines = lines
        self._readers: dict[tuple[str, bytes], Read] = {}
        self._debezium: dict[str, Sequence[DebeziumTopic]] = {}
        self._homes: dict[tuple[str, TableId], str] = {}
        self._ours: set[tuple[str, bytes]] = set()
        self.applied: set[str] = set()
        self.begun: set[str] = set()
        self.tables: list[tuple[TableSchema, bool]] = []
        self.tally = Tally()
        self.screen = Screen(self.tally)

    def read(self, message: Message, value: bytes) -> Event:
        """Return what `message` does.

        Raises `errors.ConfigError`, `errors.RegistryUnavailable`, and `errors.Stop` by a rule.
        """
        topic = message.topic() or ""
        read = self._readers.get((topic, value[:5]))
        if read is None:
            try:
                read = self._compile(topic, message.key(), value)
            except (DataError, ValueError, KeyError) as error:
                wrong = error if isinstance(error, DataError) else _unreadable(error)
                tables = self._selection.mappings(topic)
                return _joined(tables, [poison(message, len(value), wrong)])
        return read(message, value)

    def bury(self, message: Message) -> Event | None:
        """Return what a tombstone does: nothing in a topic of ours, where the delete is a record.

        A stamp in the cursor says that a topic is ours; without one, the key does. Raises as
        `read` does.
        """
        key = message.key() or b""
        place = (message.topic() or "", key[:5])
        if place in self._ours or (place[0] in self.applied and key.startswith(b"\x00")):
            return None
        tables = self._selection.mappings(place[0])
        try:
            theirs = self._wrote_key(place[0], key)
        except (DataError, ValueError) as error:
            wrong = error if isinstance(error, DataError) else _unreadable(error)
            return _joined(tables, [poison(message, len(key), wrong)])
        if theirs:
            return _joined(tables, [one.bury(message) for one in self._debezium_of(place[0])])
        self._ours.add(place)
        return None

    def _wrote_key(self, topic: str, key: bytes) -> bool:
        """Tell whether a key is Debezium's; one without our frame is not ours."""
        form = self._mappings(topic)[0].format
        if form != "auto" or not key.startswith(b"\x00"):
            return form != "tailrace"
        return is_debezium(self._schemas.get(schema_id(key)))

    def _debezium_of(self, topic: str) -> Sequence[DebeziumTopic]:
        """Return a reader for each table of a topic."""
        found = self._debezium.get(topic)
        if found is None:
            schemas, tables = self._schemas.get, self._mappings(topic)
            found = [DebeziumTopic(topic, table, schemas, self) for table in tables]
            self._debezium[topic] = found
        return found

    def _mappings(self, topic: str) -> Sequence[TableMap]:
        tables = self._selection.mappings(topic)
        if not tables:
            raise DataError(f"topic {topic} is not mapped")
        return tables

    def _compile(self, topic: str, key: bytes | None, value: bytes) -> Read:
        tables = self._mappings(topic)
        identity = 0 if value.startswith(b"{") else schema_id(value)
        envelope = self._schemas.get(identity) if identity else {}
        theirs = not identity or is_debezium(envelope)
        form = tables[0].format
        if form == "debezium" or (form == "auto" and theirs):
            reads: list[Read] = [one.read for one in self._debezium_of(topic)]
        else:
            lineage = _lineage(self._schemas.history(topic, identity), identity)
            source = table_schema(envelope)
            mapped = [self.bind(source, topic, table, lineage) for table in tables]
            if key is not None:
                self._ours.add((topic, key[:5]))
            reads = [self._reader(envelope, bound) for bound in mapped]
        read = reads[0] if len(reads) == 1 else _each(reads)
        self._readers[topic, value[:5]] = read
        return read

    def _reader(self, envelope: dict[str, Any], bound: MappedTable) -> Read:
        decoder = Decoder(envelope, bound, self.tally)
        if bound.rules is not None:
            self.screen.add(decoder.schema, bound.rules)
        return line_reader(envelope, bound, decoder) if self._lines else decoder.read

    def bind(
        self,
        source: TableSchema,
        topic: str,
        table: TableMap,
        lineage: Lineage = ALONE,
    ) -> MappedTable:
        """Return `table` bound to `source`; the target prepares it before the next cut.

        `lineage` are the other versions of `source`, where they are known.

        Raises `errors.ConfigError` for a mapping that does not fit.
        """
        bound = MappedTable.bind(source, topic, table, lineage)
        self._refuse_crowd(bound.schema.table, topic, table)
        if self._sharing.writers(topic) > 1 and not bound.keeps_apart(source):
            raise ConfigError(
                f"{table.place(topic)}.key: several workers would write rows of one target key, "
                "since it does not hold the topic's key "
                f"({', '.join(source.key) or 'there is none'})",
                hint="Set `workers: 1` for this sink, or add the topic's key columns to the key.",
            )
        self.tables.append((bound.schema, topic in self.applied))
        return bound

    def _refuse_crowd(self, target: TableId, topic: str, table: TableMap) -> None:
        """Refuse what several tables of a topic must not be: the same, or emptied by several."""
        place = table.place(topic)
        other = self._homes.setdefault((topic, target), place)
        if other != place:
            raise ConfigError(f"{place}.to: {target} is the table of {other}, too")
        if table.is_part and self._sharing.writers(topic) > 1:
            raise ConfigError(
                f"{place}: several workers cannot bring a topic of several partitions into several "
                "tables: a truncation would wait for all partitions in each of them",
                hint="Set `workers: 1` for this sink, or take each table with a sink of its own.",
            )

    def partitions(self, topic: str) -> int:
        """Return how many partitions `topic` has."""
        return self._sharing.partitions(topic)

    def has_begun(self, topic: str) -> bool:
        """Tell whether the target has a cursor of `topic` from an earlier life."""
        return topic in self.begun


def _joined(tables: Sequence[TableMap], events: Sequence[Event]) -> Event:
    """Return what a record does to `tables`, of what it does to each, or of its being torn."""
    return split(events) if len(tables) > 1 else events[0]


def _each(reads: Sequence[Read]) -> Read:
    """Return what reads a record once for each table."""
    return lambda message, value: split([read(message, value) for read in reads])


def _lineage(versions: Iterable[tuple[int, dict[str, Any]]], identity: int) -> Lineage:
    """Return the versions around that of `identity`, as far as they are tables of ours."""
    ours = [(n, envelope) for n, envelope in versions if _is_table(envelope)]
    numbers = [n for n, _ in ours]
    if identity not in numbers:
        return ALONE
    place = numbers.index(identity)
    tables = [table_schema(envelope) for _, envelope in ours]
    return Lineage(tables[:place][::-1], tables[-1])


def _is_table(envelope: dict[str, Any]) -> bool:
    names = {field["name"] for field in envelope.get("fields", ())}
    return "before" in names and not is_debezium(envelope)


def _unreadable(error: Exception) -> DataError:
    return DataError(
        f"the record is no change envelope: {error!r}",
        hint="Leave the topic out with `!topic` when it carries something else.",
    )
