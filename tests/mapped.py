"""A change on its way through a plan and a mapping, without Kafka: what the sink makes of it."""

from __future__ import annotations

from typing import Any

from schemas.avro import envelope_schema
from schemas.change import Change, Origin, Rows
from schemas.plan import Plan, SourceName
from schemas.table import Column, TableId, TableSchema, Type
from sinks.binding import MappedTable
from sinks.decode import Decoder, Event
from sinks.mapping import TableMap

__all__ = ["ORDERS", "TOPIC", "payloads", "reader", "through"]

TOPIC = "shop.public.orders"
NO_MESSAGE: Any = None
ORDERS = TableSchema(
    TableId("public", "orders"),
    (
        Column("id", Type("int64", "postgres bigint")),
        Column("note", Type("string", "postgres text")),
        Column("amount", Type("decimal", "postgres numeric(12,2)", 12, 2)),
    ),
    ("id",),
)


def payloads(table: TableSchema, change: Change) -> list[bytes]:
    """The values of the records that a source writes for one change."""
    plan = Plan(table, table, SourceName("1", "test", "shop"), (1, 2))
    run = Rows(table, "changes", Origin(3, 77, 1_700_000_000_000_000), [change], [5])
    return [record.value for record in plan.records(run, 0) if record.value is not None]


def reader(table: TableSchema, mapping: TableMap | dict[str, Any] | None = None) -> Decoder:
    """The decoder of a table's records under a mapping."""
    given = TableMap.model_validate(mapping or {})
    return Decoder(envelope_schema(table, TOPIC), MappedTable.bind(table, TOPIC, given))


def through(
    table: TableSchema, change: Change, mapping: TableMap | dict[str, Any] | None = None
) -> list[Event]:
    """The events of one change, written by a plan and read by a decoder."""
    decoder = reader(table, mapping)
    return [decoder.read(NO_MESSAGE, value) for value in payloads(table, change)]
