"""Which records the compiled reader can take: the envelope is ours, the mapping copies columns.

A row then travels as one line of COPY text from the bytes of the record to the target's staging,
with no object per column. Everything else (a table without a key, a key of its own, a place in
json, a cast that changes the text, a computed column, a filter, an Avro type that is not the one
we write) is read by the plain decoder, whole table or single record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import Message

from schemas.avro import column_type, envelope_schema
from schemas.executor import compiled
from schemas.table import TableId, TableSchema
from schemas.types import LOGICAL
from sinks.binding import MappedTable
from sinks.decode import Decoder, Event
from sinks.fields import MappedColumn
from sinks.sql import escaped

__all__ = ["Read", "line_reader"]

Read = Callable[[Message, bytes], Event]

_OURS = envelope_schema(TableSchema(TableId("", ""), ()), "x")["fields"][2:]
_Column = tuple[bytes, str, bool, int, Callable[[Any], bytes]]


def line_reader(envelope: dict[str, Any], table: MappedTable, decoder: Decoder) -> Read:
    """Return what reads the records of a schema id: compiled where that can be, else `decoder`."""
    module = compiled("sinks._lines")
    columns = _columns(envelope) if module is not None and table.copies else None
    if module is None or columns is None:
        return decoder.read
    places = {column[0].decode(): place for place, column in enumerate(columns)}
    targets = tuple(_target(mapped, places) for mapped in table.columns)
    key = tuple(targets[place] for place in table.schema.key_indexes())
    if table.rekeyed or not key or None in targets or any(isinstance(k, bytes) for k in key):
        return decoder.read
    read: Read = module.LineReader(decoder.schema, columns, targets, key, decoder.read).read
    return read


def _target(mapped: MappedColumn, places: dict[str, int]) -> int | bytes | None:
    """Return the column's place in the topic's row, or a constant's text; None: neither."""
    if mapped.source is not None:
        return None if mapped.convert is not None else places[mapped.source.name]
    cell = None if mapped.convert is None else mapped.convert(b"")
    return b"\\N" if cell is None else escaped(cell)


def _columns(envelope: dict[str, Any]) -> tuple[_Column, ...] | None:
    """Return the columns of the topic's row, None when the envelope is not as we write it."""
    before, after, *tail = envelope["fields"]
    if (before["name"], after["name"], _shape(tail)) != ("before", "after", _shape(_OURS)):
        return None
    null, row = before["type"]
    names = ["null", row["name"]] if isinstance(row, dict) else []
    if null != "null" or [str(kind).rpartition(".")[2] for kind in after["type"]] != names:
        return None
    found = [_column(field) for field in row["fields"]]
    return None if None in found else tuple(column for column in found if column is not None)


def _column(field: dict[str, Any]) -> _Column | None:
    kind = field["type"]
    optional = isinstance(kind, list)
    if optional and (len(kind) != 2 or kind[0] != "null"):
        return None
    bare = kind[1] if optional else kind
    as_dict = bare if isinstance(bare, dict) else {"type": bare}
    if not isinstance(as_dict["type"], str):
        return None
    type_ = column_type(as_dict)
    logical = LOGICAL[type_.logical]
    if _shape(logical.avro(type_)) != _shape(as_dict):
        return None
    name = field.get("cdc.name", field["name"])
    return name.encode(), type_.logical, optional, type_.scale, logical.decode(type_)


def _shape(schema: Any) -> Any:
    """Return what decides about the bytes: types and the order of fields, nothing advisory."""
    if isinstance(schema, list):
        return tuple(_shape(part) for part in schema)
    if isinstance(schema, str):
        return schema
    if "name" in schema and schema.get("type") != "record":
        return (schema["name"], _shape(schema["type"]))
    if schema["type"] == "record":
        return ("record", _shape(schema["fields"]))
    inner = [_shape(schema[part]) for part in ("items", "values") if part in schema]
    return (schema["type"], *inner) if inner else _shape(schema["type"])
