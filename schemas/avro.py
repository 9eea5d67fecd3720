"""TableSchema ⇄ Avro schema: the key, the row, and the Debezium-shaped envelope around it.

Avro allows [A-Za-z_][A-Za-z0-9_]* in names. `escape` maps any identifier into that and back:
a character outside becomes `_u<hex>_`, and so does an underscore that would look like one.
The original name, the logical and native type, nullability and default travel as properties
("cdc.*") that Avro readers ignore, so that a sink rebuilds the `TableSchema` from the registry.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from schemas.table import Column, Part, TableId, TableSchema, Type
from schemas.types import LOGICAL

__all__ = [
    "column_type",
    "envelope_schema",
    "escape",
    "key_schema",
    "key_type",
    "message_schema",
    "raw_schema",
    "row_schema",
    "table_schema",
    "unescape",
]

AvroSchema = dict[str, Any]

_ILLEGAL = re.compile(r"[^A-Za-z0-9_]|^[0-9]|_(?=u[0-9a-f]*[^A-Za-z0-9])")
_ESCAPED = re.compile(r"_u([0-9a-f]+)_")

_SOURCE_FIELDS: tuple[tuple[str, str], ...] = (
    ("version", "string"),
    ("connector", "string"),
    ("name", "string"),
    ("db", "string"),
    ("schema", "string"),
    ("table", "string"),
    ("snapshot", "string"),
    ("ts_ms", "long"),
    ("txId", "string"),
    ("incarnation", "long"),
    ("commit", "long"),
    ("ordinal", "long"),
    ("sub", "int"),
)
"""Constant per table, then constant per transaction, then per record: plans rely on the order."""


def escape(name: str) -> str:
    """Return a legal Avro name for any identifier; `unescape` gives it back."""
    return _ILLEGAL.sub(lambda found: f"_u{ord(found[0]):x}_", name) or "_u_"


def unescape(name: str) -> str:
    """Return the identifier that `escape` was given."""
    return "" if name == "_u_" else _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)


def _bare(column: Column) -> AvroSchema:
    bare = LOGICAL[column.type.logical].avro(column.type)
    bare["cdc.logical"] = column.type.logical
    if column.type.native:
        bare["cdc.native"] = column.type.native
    if column.type.labels:
        bare["cdc.labels"] = list(column.type.labels)
    return bare


def _value_field(column: Column, *, key: bool) -> AvroSchema:
    bare = _bare(column)
    field: AvroSchema = {"name": escape(column.name), "cdc.name": column.name}
    if key and not LOGICAL[column.type.logical].lossy:
        field["type"] = bare
    else:
        field["type"] = ["null", bare]
        field["default"] = None
    field["cdc.nullable"] = column.nullable
    if column.default is not None:
        field["cdc.default"] = column.default
    if column.generated:
        field["cdc.generated"] = True
    if column.parts:
        field["cdc.parts"] = msgspec.to_builtins(column.parts)
    return field


def _namespace(topic: str) -> str:
    return ".".join(escape(part) for part in topic.split("."))


def key_type(kind: Type) -> AvroSchema:
    """Return the type of a key column: text where the native form cannot hold every value."""
    logical = LOGICAL[kind.logical]
    return {"type": "string"} if logical.lossy else logical.avro(kind)


def key_schema(schema: TableSchema, topic: str) -> AvroSchema:
    """Return the canonical key: names and types alone, so that it is registered once (§3)."""
    columns = [schema.column(name) for name in schema.key]
    fields = [{"name": escape(c.name), "type": key_type(c.type)} for c in columns]
    return {"type": "record", "name": "Key", "namespace": _namespace(topic), "fields": fields}


def _source_record() -> AvroSchema:
    fields = [{"name": name, "type": kind} for name, kind in _SOURCE_FIELDS]
    return {"type": "record", "name": "Source", "fields": fields}


def _optional(name: str, kind: object) -> AvroSchema:
    return {"name": name, "type": ["null", kind], "default": None}


def _tail() -> list[AvroSchema]:
    names = {"type": "array", "items": "string"}
    texts = {"type": "map", "values": "string"}
    transaction = {
        "type": "record",
        "name": "Transaction",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "total_order", "type": "long"},
            {"name": "data_collection_order", "type": "long"},
        ],
    }
    return [
        {"name": "source", "type": _source_record()},
        {"name": "op", "type": "string"},
        {"name": "ts_ms", "type": "long"},
        _optional("transaction", transaction),
        _optional("absent_before", names),
        _optional("absent_after", names),
        _optional("exact_before", texts),
        _optional("exact_after", texts),
    ]


def row_schema(schema: TableSchema, topic: str) -> AvroSchema:
    """Return the value schema of a topic whose values are rows by themselves."""
    return {**_row(schema), "namespace": _namespace(topic)}


def _row(schema: TableSchema) -> AvroSchema:
    return {
        "type": "record",
        "name": "Value",
        "fields": [_value_field(c, key=c.name in schema.key) for c in schema.columns],
    }


def envelope_schema(schema: TableSchema, topic: str) -> AvroSchema:
    """Return the value schema of a table's topic."""
    row = _row(schema)
    return {
        "type": "record",
        "name": "Envelope",
        "namespace": _namespace(topic),
        "cdc.schema": schema.table.schema,
        "cdc.table": schema.table.name,
        "cdc.key": list(schema.key),
        "cdc.attributes": dict(schema.attributes),
        "fields": [_optional("before", row), _optional("after", "Value"), *_tail()],
    }


def message_schema(topic: str) -> AvroSchema:
    """Return the value schema of logical messages (`pg_logical_emit_message`)."""
    message = {
        "type": "record",
        "name": "Message",
        "fields": [{"name": "prefix", "type": "string"}, {"name": "content", "type": "bytes"}],
    }
    fields = [{"name": "message", "type": message}, *_tail()[:3]]
    return {
        "type": "record",
        "name": "MessageEnvelope",
        "namespace": _namespace(topic),
        "fields": fields,
    }


def raw_schema(schema: Any) -> Any:
    """Return `schema` without logical types, so that a reader hands out what is on the wire."""
    if isinstance(schema, dict):
        return {k: raw_schema(v) for k, v in schema.items() if k != "logicalType"}
    if isinstance(schema, list):
        return [raw_schema(part) for part in schema]
    return schema


_INFERRED = {
    "boolean": "boolean",
    "int": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "bytes": "bytes",
    "string": "string",
}
_INFERRED_LOGICAL = {
    "decimal": "decimal",
    "date": "date",
    "time-micros": "time",
    "local-timestamp-micros": "timestamp",
    "timestamp-micros": "timestamptz",
    "uuid": "uuid",
}


def column_type(bare: AvroSchema) -> Type:
    """Return the type an Avro type stands for: ours by its properties, others by inference."""
    inferred = _INFERRED_LOGICAL.get(
        bare.get("logicalType", ""), _INFERRED.get(bare["type"], "text")
    )
    return Type(
        logical=bare.get("cdc.logical", inferred),
        native=bare.get("cdc.native", ""),
        precision=bare.get("precision", 0),
        scale=bare.get("scale", 0),
        labels=tuple(bare.get("cdc.labels", ())),
    )


def _column(field: AvroSchema) -> Column:
    kind = field["type"]
    bare = kind if not isinstance(kind, list) else next(k for k in kind if k != "null")
    return Column(
        name=field["cdc.name"] if "cdc.name" in field else field["name"],
        type=column_type(bare if isinstance(bare, dict) else {"type": bare}),
        nullable=field.get("cdc.nullable", isinstance(kind, list)),
        default=field.get("cdc.default"),
        generated=field.get("cdc.generated", False),
        parts=msgspec.convert(field.get("cdc.parts", ()), tuple[Part, ...]),
    )


def table_schema(envelope: AvroSchema) -> TableSchema:
    """Return the `TableSchema` an envelope was made from. Raises `KeyError` on other shapes."""
    fields = {field["name"]: field for field in envelope["fields"]}
    row = next(kind for kind in fields["before"]["type"] if kind != "null")
    return TableSchema(
        table=TableId(envelope.get("cdc.schema", ""), envelope.get("cdc.table", "")),
        columns=tuple(_column(field) for field in row["fields"]),
        key=tuple(envelope.get("cdc.key", ())),
        attributes=tuple(sorted(envelope.get("cdc.attributes", {}).items())),
    )
