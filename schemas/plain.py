"""Records as a person reads them: the decoded payload as plain JSON values.

Names are the source's own, not Avro's; absent columns are left out of their row and an exact
text stands in its column, so that a row looks as it does in the source. Numbers that JSON readers
would round or refuse (decimal, NaN, infinity) are text, moments are ISO 8601, bytes are hex.
Any Avro schema is read; without our properties its own logical types decide.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from typing import Any

from fastavro import parse_schema, schemaless_reader

from schemas.avro import column_type, raw_schema, unescape
from schemas.errors import DataError
from schemas.table import Type
from schemas.types import LOGICAL
from schemas.wire import FRAME_BYTES

__all__ = ["PlainReader"]

AvroSchema = dict[str, Any]
_Show = Callable[[Any], Any]
_SIDES = ("before", "after")
_TORN = (EOFError, IndexError, ValueError, KeyError, TypeError, OverflowError, struct.error)


class PlainReader:
    """Reads the payloads of one schema, keys and values alike."""

    def __init__(self, schema: AvroSchema) -> None:
        self._parsed = parse_schema(raw_schema(schema))
        self._show = _shower(schema, {})

    def read(self, payload: bytes) -> Any:
        """Return a framed payload as JSON values. Raises `DataError` when it does not fit."""
        stream = io.BytesIO(payload[FRAME_BYTES:])
        try:
            record = schemaless_reader(stream, self._parsed, None)
            shown = self._show(record)
        except _TORN as error:
            raise DataError(
                f"the payload does not fit its schema: {error!r}",
                hint="It was written with another schema, or is damaged.",
            ) from error
        return shown


def _shower(schema: Any, named: dict[str, _Show]) -> _Show:
    """Return Avro value → JSON value; `named` holds the records met on the way."""
    if isinstance(schema, list):
        return _union(schema, named)
    if isinstance(schema, str):
        return named.get(schema.rpartition(".")[2]) or _scalar(column_type({"type": schema}))
    if schema["type"] == "record":
        return _record(schema, named)
    if schema["type"] == "array":
        item = _shower(schema["items"], named)
        return lambda values: [item(value) for value in values]
    if schema["type"] == "map":
        entry = _shower(schema["values"], named)
        return lambda values: {name: entry(value) for name, value in values.items()}
    return _scalar(column_type(schema))


def _union(branches: list[Any], named: dict[str, _Show]) -> _Show:
    """Only "null or one type" tells which branch a value is of; others are shown by their form."""
    given = [branch for branch in branches if branch != "null"]
    show = _shower(given[0], named) if len(given) == 1 else _scalar(Type("string"))
    return lambda value: None if value is None else show(value)


def _record(schema: AvroSchema, named: dict[str, _Show]) -> _Show:
    fields: list[tuple[str, str, _Show]] = []

    def show(record: Any) -> dict[str, Any]:
        shown = {name: convert(record[field]) for field, name, convert in fields}
        for side in _SIDES:
            if isinstance(shown.get(side), dict):
                _restore(shown[side], shown.get(f"absent_{side}"), shown.get(f"exact_{side}"))
        return shown

    named[schema["name"]] = show
    for field in schema["fields"]:
        name = field.get("cdc.name") or unescape(field["name"])
        fields.append((field["name"], name, _shower(field["type"], named)))
    return show


def _restore(row: dict[str, Any], absent: Any, exact: Any) -> None:
    """Take out of a row what was not sent, put in what has no native form (R6, R13)."""
    for name in absent or ():
        row.pop(name, None)
    row.update(exact or {})


def _scalar(kind: Type) -> _Show:
    decode = LOGICAL[kind.logical].decode(kind)
    if kind.logical in ("decimal", "date", "time", "bytes"):
        return lambda value: decode(value).decode()
    if kind.logical == "timestamp":
        return lambda value: decode(value).decode().replace(" ", "T")
    if kind.logical == "timestamptz":
        return lambda value: decode(value).decode().replace(" ", "T").replace("+00", "Z")
    if kind.logical in ("float32", "float64"):
        return lambda value: value if math.isfinite(value) else decode(value).decode()
    return _as_it_is


def _as_it_is(value: Any) -> Any:
    return "\\x" + value.hex() if isinstance(value, bytes) else value
