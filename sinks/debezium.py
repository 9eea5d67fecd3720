"""Records that Debezium wrote → the events of `sinks.decode`, so that all behind is the same.

    enveloped   before after source op ts_ms          as Debezium writes
    unwrapped   the row, or a tombstone for a delete  behind ExtractNewRecordState

Such records carry no stamp: they go by offset alone. An LSN is no event's name (all rows of one
COPY share it) and begins again on another server, so nothing could be dropped by it safely. What
the guarantee then is, is told on the page `sinks/debezium.md`.

A deletion is known by the record key: Debezium fills what an old row does not carry with null, or
with zero where the column forbids that, and says nowhere which it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from confluent_kafka import Message

from cdc.errors import DataError
from schemas.change import ABSENT
from schemas.table import TableSchema
from sinks.binding import MappedTable
from sinks.debezium_record import Records, Schemas, Shape
from sinks.debezium_table import BoundTable, Tables, Values
from sinks.decode import DELETE, SKIP, TRUNCATE, UPSERT, Event, poison
from sinks.mapping import TableMap

__all__ = ["DebeziumTopic", "Surroundings"]

_LEFT, _CAME = "__debezium.newkey", "__debezium.oldkey"
"""Headers of the two records of a key change: the delete, and the create behind it."""


class Surroundings(Protocol):
    """What a topic's reader needs of the sink: `sinks.routes.Routes`."""

    def bind(self, source: TableSchema, topic: str, table: TableMap) -> MappedTable:
        """Bind a mapping, have the target prepared. Raises `errors.ConfigError`."""
        ...

    def partitions(self, topic: str) -> int:
        """Return how many partitions `topic` has."""
        ...

    def has_begun(self, topic: str) -> bool:
        """Tell whether the target has a cursor of `topic` from an earlier life."""
        ...


class DebeziumTopic:
    """Reads one topic. For one thread."""

    def __init__(self, topic: str, table: TableMap, schemas: Schemas, sink: Surroundings) -> None:
        self._topic = topic
        self._sink = sink
        self._values = Records(schemas)
        self._tables = Tables(topic, table, schemas, sink.bind)
        self._shape: Shape | None = None
        self._buries = True

    def read(self, message: Message, value: bytes) -> Event:
        """Return what a record does. Raises `errors.ConfigError`, `errors.RegistryUnavailable`."""
        return _guarded(message, len(value), lambda event: self._read(event, value))

    def bury(self, message: Message) -> Event:
        """Return what a tombstone does: where rows are unwrapped, it is the delete."""
        return _guarded(message, len(message.key() or b""), self._bury)

    def _read(self, event: Event, value: bytes) -> None:
        shape, payload = self._values.parse(value)
        if payload is None:
            self._bury(event)
            return
        if shape.enveloped:
            self._change(event, shape, payload)
        else:
            self._unwrapped(event, shape, payload)
        self._shape = shape

    def _change(self, event: Event, shape: Shape, payload: Values) -> None:
        """Fill in what an envelope does."""
        op, source = payload["op"], payload["source"] or {}
        self._buries = False
        event.ts_ms, event.snapshot = source.get("ts_ms") or 0, op == "r"
        if op == "m":
            return
        if op == "t":
            self._truncate(event, shape, source)
            return
        if op not in ("c", "u", "d", "r"):
            raise DataError(f"operation {op!r} is none that this version knows")
        table, key = self._tables.find(shape, event.message.key(), source)
        event.schema = table.schema
        if op == "d":
            self._delete(event, table, key, payload["before"])
        elif op == "u" and key is None:
            self._replace(event, table, payload["after"], payload["before"])
        else:
            self._upsert(event, table, payload["after"])

    def _unwrapped(self, event: Event, shape: Shape, payload: Values) -> None:
        """Fill in what a row without its envelope does."""
        table, key = self._tables.find(shape, event.message.key(), {})
        event.schema = table.schema
        deleted, op = payload.get("__deleted"), payload.get("__op")
        self._buries = deleted is None
        if deleted in ("true", True) or op == "d":
            self._delete(event, table, key, payload)
        elif key is None and op not in ("c", "r"):
            self._replace(event, table, payload, None)
        else:
            self._upsert(event, table, payload)

    def _upsert(self, event: Event, table: BoundTable, after: Values) -> None:
        event.kind = UPSERT
        event.row = table.row(after)
        event.key = table.key(event.row)
        event.place = self._pair(event.message, _CAME)

    def _replace(
        self, event: Event, table: BoundTable, after: Values, before: Values | None
    ) -> None:
        """Fill in an update of a table without a key; its old row is whole, or missing."""
        if before is None:
            raise DataError(
                f"a change of {table.schema.table}, which has no key, came without its old row",
                hint="Use the enveloped form, and REPLICA IDENTITY FULL on the source table.",
            )
        old, new = table.row(before), table.row(after)
        event.row = [was if now is ABSENT else now for now, was in zip(new, old, strict=True)]
        event.kind, event.key = UPSERT, tuple(event.row)
        event.old = None if old == event.row else tuple(old)

    def _delete(
        self, event: Event, table: BoundTable, key: Values | None, before: Values | None
    ) -> None:
        event.kind = DELETE
        if key is not None:
            event.key = table.key_from(key)
        elif before is not None:
            event.key = table.key(table.row(before))
        else:
            raise DataError(
                f"a delete in {table.schema.table}, which has no key, came without the old row",
                hint="Use the enveloped form, and REPLICA IDENTITY FULL on the source table.",
            )
        event.place = self._pair(event.message, _LEFT)

    def _pair(self, message: Message, header: str) -> tuple[int, ...]:
        """Return what the two records of a key change share, nothing for any other record.

        They follow one another where the topic has one partition, and only there.
        """
        headers: Any = message.headers() or ()
        is_half = (
            any(name == header for name, _ in headers) and self._sink.partitions(self._topic) == 1
        )
        return (hash(self._topic),) if is_half else ()

    def _truncate(self, event: Event, shape: Shape, source: Values) -> None:
        """Fill in a truncation, which has neither row nor key: any version of the table will do.

        Where none is known and nothing of the topic was ever applied, nothing is to be removed.
        """
        if self._sink.partitions(self._topic) > 1:
            raise DataError(
                f"a truncation in one of several partitions of {self._topic}: what it removes of "
                "the others is not known",
                hint="Empty the target's table by hand, and give the topic one partition.",
            )
        table = self._tables.newest
        if table is None and self._sink.has_begun(self._topic):
            table, _ = self._tables.find(shape, None, source)
        if table is not None:
            event.kind, event.schema = TRUNCATE, table.schema

    def _bury(self, event: Event) -> None:
        """Fill in a tombstone: nothing where the delete is a record of its own.

        As long as neither form was seen it is taken for a delete: the other form's delete came
        just before it, and to delete a row twice changes nothing.
        """
        if not self._buries:
            return
        key = event.message.key()
        if key is None:
            raise DataError(
                f"a tombstone without a key in {self._topic}: which row it deletes is not known",
                hint="Use the enveloped form for tables without a key.",
            )
        if self._shape is not None or self._sink.has_begun(self._topic):
            table, values = self._tables.find(self._shape, key, {})
            event.schema = table.schema
            self._delete(event, table, values, None)


def _guarded(message: Message, size: int, fill: Callable[[Event], None]) -> Event:
    """Return an event that does nothing, filled in; poison where that is not possible."""
    event = Event(SKIP, None, None, snapshot=False, message=message, size=size)
    try:
        fill(event)
    except DataError as error:
        return poison(message, size, error)
    except (ValueError, LookupError, EOFError, OverflowError, TypeError, AttributeError) as error:
        wrong = DataError(f"the record is none of Debezium's, or torn: {error!r}")
        return poison(message, size, wrong)
    return event
