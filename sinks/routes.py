"""From a record's topic and schema id to the decoder compiled for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from confluent_kafka import Message

from cdc.errors import ConfigError, DataError
from schemas.avro import table_schema
from schemas.table import TableSchema
from schemas.wire import schema_id
from sinks.decode import Decoder, Event, poison
from sinks.lines import Read, line_reader
from sinks.mapping import MappedTable, Selection

__all__ = ["Routes", "Schemas"]


class Schemas(Protocol):
    """Where writer schemas come from: `schemas.registry.Registry`."""

    def get(self, schema_id: int) -> dict[str, Any]:
        """Return the schema of an id. Raises `errors.DataError` when there is none."""
        ...


class Routes:
    """Compiles a decoder at the first record of a schema; for one thread.

    `applied` are the topics whose changes reached the target before; `tables` are the target
    tables met so far, each with whether it must be there already. `lines` says that the target
    takes rows as lines of COPY text.
    """

    def __init__(
        self,
        selection: Selection,
        schemas: Schemas,
        writers: Callable[[str], int],
        *,
        lines: bool = False,
    ) -> None:
        self._selection = selection
        self._writers = writers
        self._schemas = schemas
        self._lines = lines
        self._readers: dict[tuple[str, bytes], Read] = {}
        self.applied: set[str] = set()
        self.tables: list[tuple[TableSchema, bool]] = []

    def read(self, message: Message, value: bytes) -> Event:
        """Return what `message` does. Raises `errors.ConfigError`, `errors.RegistryUnavailable`."""
        topic = message.topic() or ""
        read = self._readers.get((topic, value[:5]))
        if read is None:
            try:
                read = self._compile(topic, value)
            except (DataError, ValueError, KeyError) as error:
                wrong = error if isinstance(error, DataError) else _unreadable(error)
                return poison(message, len(value), wrong)
        return read(message, value)

    def _compile(self, topic: str, value: bytes) -> Read:
        envelope = self._schemas.get(schema_id(value))
        table = self._selection.find(topic)
        if table is None:
            raise DataError(f"topic {topic} is not mapped")
        source = table_schema(envelope)
        bound = MappedTable.bind(source, topic, table)
        if self._writers(topic) > 1 and not bound.keeps_apart(source):
            raise ConfigError(
                f"tables.{topic}.key: several workers would write rows of one target key, since "
                f"it does not hold the topic's key ({', '.join(source.key) or 'there is none'})",
                hint="Set `workers: 1` for this sink, or add the topic's key columns to the key.",
            )
        decoder = Decoder(envelope, bound)
        read = line_reader(envelope, bound, decoder) if self._lines else decoder.read
        self._readers[topic, value[:5]] = read
        self.tables.append((decoder.schema, topic in self.applied))
        return read


def _unreadable(error: Exception) -> DataError:
    return DataError(
        f"the record is no change envelope: {error!r}",
        hint="Leave the topic out with `!topic` when it carries something else.",
    )
