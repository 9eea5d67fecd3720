"""Schemas of Kafka Connect as `Kind`: out of JSON records, out of Avro, or declared by a person.

Connect's converters keep its schemas in both: JSON beside each payload, Avro as properties
("connect.*") of the registered schema. Where a record has no schema at all (JsonConverter with
`schemas.enable=false`) the mapping's `columns:` says the type each column has in the source, and
it is read as Debezium sends that type by default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.errors import DataError
from sinks.debezium_types import Kind

__all__ = ["declared", "kind_of_avro", "kind_of_json"]

_Schema = Mapping[str, Any]

_JSON = {"float": "float32", "double": "float64"}
_AVRO = {
    "int": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "enum": "string",
    "fixed": "bytes",
}
"""Base types that are called differently there."""


def kind_of_json(schema: _Schema) -> Kind:
    """Return the kind of the `schema` beside a JSON payload. Raises `KeyError`."""
    items = schema.get("items", schema.get("values"))
    base = str(schema["type"])
    return Kind(
        _JSON.get(base, base),
        schema.get("name") or "",
        optional=bool(schema.get("optional")),
        parameters=schema.get("parameters") or {},
        fields={field["field"]: kind_of_json(field) for field in schema.get("fields", ())},
        items=None if items is None else kind_of_json(items),
        is_json=True,
    )


def kind_of_avro(schema: Any, named: dict[str, Kind] | None = None) -> Kind:
    """Return the kind of an Avro schema made by a Connect converter.

    `named` are the records met so far, which Avro spells out once. Raises `errors.DataError` for
    a union of several types, which Connect does not write, `KeyError` for other shapes.
    """
    named = {} if named is None else named
    if isinstance(schema, list):
        return _union(schema, named)
    if isinstance(schema, str):
        schema = {"type": schema}
    base = schema["type"]
    if isinstance(base, dict | list):
        return kind_of_avro(base, named)
    if base in named:
        return named[base]
    items = schema.get("items", schema.get("values"))
    kind = Kind(
        "struct" if base == "record" else schema.get("connect.type") or _AVRO.get(base, base),
        schema.get("connect.name", ""),
        parameters=_parameters(schema),
        fields={f["name"]: kind_of_avro(f["type"], named) for f in schema.get("fields", ())},
        items=None if items is None else kind_of_avro(items, named),
    )
    if base == "record":
        named[schema["name"]] = named[_full_name(schema)] = kind
    return kind


def _union(schema: list[Any], named: dict[str, Kind]) -> Kind:
    others = [one for one in schema if one != "null"]
    if len(others) != 1:
        raise DataError(f"a union of {len(others)} types, which Kafka Connect does not write")
    return msgspec.structs.replace(kind_of_avro(others[0], named), optional=True)


def _full_name(schema: _Schema) -> str:
    space = schema.get("namespace")
    return f"{space}.{schema['name']}" if space else str(schema["name"])


def _parameters(schema: _Schema) -> dict[str, str]:
    """Return what Connect said, and a decimal's scale, which Avro has itself."""
    given = dict(schema.get("connect.parameters") or {})
    if schema.get("logicalType") == "decimal":
        given.setdefault("scale", schema.get("scale", 0))
    return {name: str(value) for name, value in given.items()}


_DECLARED = re.compile(r"([a-z][a-z0-9_ ]*?)\s*(?:\(\s*(\d+)\s*(?:,\s*(-?\d+)\s*)?\))?((?:\[\])?)")
_ZONE = re.compile(r"(time|timestamp)( ?\(\d+\))? (with|without) time zone")
_ALIASES = {
    "bool": "boolean",
    "int2": "smallint",
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float": "double precision",
    "float8": "double precision",
    "decimal": "numeric",
    "bytes": "bytea",
}
_TIME = "io.debezium.time."
_DATA = "io.debezium.data."
_SENT = {
    "boolean": ("boolean", ""),
    "smallint": ("int16", ""),
    "integer": ("int32", ""),
    "bigint": ("int64", ""),
    "oid": ("int64", ""),
    "real": ("float32", ""),
    "double precision": ("float64", ""),
    "numeric": ("struct", _DATA + "VariableScaleDecimal"),
    "date": ("int32", _TIME + "Date"),
    "time": ("int64", _TIME + "MicroTime"),
    "timestamp": ("int64", _TIME + "MicroTimestamp"),
    "timestamptz": ("string", _TIME + "ZonedTimestamp"),
    "timetz": ("string", _TIME + "ZonedTime"),
    "interval": ("int64", _TIME + "MicroDuration"),
    "bytea": ("bytes", ""),
    "json": ("string", _DATA + "Json"),
    "jsonb": ("string", _DATA + "Json"),
    "uuid": ("string", _DATA + "Uuid"),
    "xml": ("string", _DATA + "Xml"),
    "ltree": ("string", _DATA + "Ltree"),
    "tsvector": ("string", _DATA + "Tsvector"),
    "point": ("struct", _DATA + "geometry.Point"),
    "geometry": ("struct", _DATA + "geometry.Geometry"),
    "geography": ("struct", _DATA + "geometry.Geography"),
    "hstore": ("map", ""),
    **dict.fromkeys(
        (
            *("text", "varchar", "character varying", "char", "character", "bpchar", "citext"),
            *("name", "inet", "cidr", "macaddr", "macaddr8", "int4range", "int8range", "numrange"),
            *("tsrange", "tstzrange", "daterange"),
        ),
        ("string", ""),
    ),
}
"""Type in the source → what Debezium sends for it by default."""


def declared(text: str) -> Kind:
    """Return the kind of a column declared as `numeric(12,2)` or `text[]`.

    Raises `ValueError` for a type that is not known.
    """
    words = _ZONE.sub(_zoned, " ".join(text.lower().split()))
    found = _DECLARED.fullmatch(words)
    base = _ALIASES.get(found[1], found[1]) if found is not None else ""
    if found is None or base not in (*_SENT, "bit"):
        raise ValueError(f"`{text}` is not one of {', '.join(sorted((*_SENT, 'bit')))}")
    first, second = found[2], found[3]
    kind = _one(base, first, second)
    return Kind("array", items=kind, is_json=True) if found[4] else kind


def _zoned(found: re.Match[str]) -> str:
    return f"{found[1]}{'tz' if found[3] == 'with' else ''}{found[2] or ''}"


def _one(base: str, first: str | None, second: str | None) -> Kind:
    """Return the kind of one value; `first` and `second` stand in parentheses behind `base`."""
    if base == "bit":
        length = first or "1"
        if length == "1":
            return Kind("boolean", is_json=True)
        return Kind("bytes", _DATA + "Bits", parameters={"length": length}, is_json=True)
    if base == "numeric" and first is not None:
        name = "org.apache.kafka.connect.data.Decimal"
        parameters = {"scale": second or "0", "connect.decimal.precision": first}
        return Kind("bytes", name, parameters=parameters, is_json=True)
    if base in ("time", "timestamp") and first is not None and int(first) <= 3:
        return Kind("int64", _TIME + base.capitalize(), is_json=True)
    type_, name = _SENT[base]
    return Kind(type_, name, is_json=True)
