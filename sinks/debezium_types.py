"""Debezium's logical types: what a value of each is as PostgreSQL text.

A Connect schema names a base type and, for most columns, what it stands for: an int32 that is
`io.debezium.time.Date` counts days. `column` compiles that, once per schema, into the type of our
column and one function from the value, as JSON or Avro hands it out, to its text. A name that is
not listed here is refused: a number whose meaning is not known is not a value.

What Debezium does not send cannot come back; `sinks/debezium.md` lists it. Sources: Debezium 3.6
documentation, "PostgreSQL connector, Data type mappings"; Kafka Connect `org.apache.kafka.connect`
`.data`; what a live 3.6 wrote (tests/interchange).
"""

from __future__ import annotations

import re
import struct
from base64 import b64decode
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from schemas.change import ABSENT, Absent
from schemas.errors import DataError
from schemas.floats import float32_text, float64_text
from schemas.table import Type
from sinks.cast import CASTS
from sinks.debezium_times import (
    clock,
    day,
    duration,
    iso_clock,
    iso_moment,
    iso_zoned,
    iso_zoned_clock,
    moment,
    scaled,
)

__all__ = ["UNAVAILABLE", "Kind", "Read", "column"]

UNAVAILABLE = "__debezium_unavailable_value"
"""What stands for a value the log did not carry (R6), by Debezium's default."""

_CODES = list(UNAVAILABLE.encode())

Read = Callable[[Any], bytes | Absent]
"""A value that is not null → its text, or ABSENT. Raises what bad input raises: `ValueError`,
`TypeError`, `KeyError`."""
Text = Callable[[Any], bytes]


class Kind(msgspec.Struct, frozen=True):
    """A Connect schema. `type` is the base type, `name` the logical type's or the struct's.

    `fields` are a struct's, `items` are an array's and a map's values. `is_json` says that bytes
    come as base64.
    """

    type: str
    name: str = ""
    optional: bool = False
    parameters: Mapping[str, str] = {}
    fields: Mapping[str, Kind] = {}
    items: Kind | None = None
    is_json: bool = False


def _encoded(value: str) -> bytes:
    return value.encode()


def _decimal_text(unscaled: bytes, scale: int) -> bytes:
    """Return a two's complement number without its last `scale` places, every digit kept."""
    number = Decimal(int.from_bytes(unscaled, "big", signed=True))
    digits = str(number.copy_abs()) + "0" * -scale
    if scale > 0:
        digits = digits.rjust(scale + 1, "0")
        digits = f"{digits[:-scale]}.{digits[-scale:]}"
    return f"{'-' if number < 0 else ''}{digits}".encode()


def _plain_number(value: Any) -> bytes:
    """Return a number that came as text or, by `decimal.handling.mode: double`, as a float."""
    return value.encode() if isinstance(value, str) else float64_text(float(value))


def _raw(kind: Kind) -> Callable[[Any], bytes]:
    """Return what gives the bytes of a value."""
    return _from_base64 if kind.is_json else bytes


def _from_base64(value: str) -> bytes:
    return b64decode(value, validate=True)


def _decimal(kind: Kind) -> tuple[Type, Text]:
    scale = int(kind.parameters["scale"])
    precision = int(kind.parameters.get("connect.decimal.precision", 0))
    raw = _raw(kind)
    type_ = CASTS["numeric"]
    if precision:
        type_ = Type("decimal", f"postgres numeric({precision},{scale})", precision, scale)
    return type_, lambda value: _decimal_text(raw(value), scale)


def _variable_decimal(kind: Kind) -> tuple[Type, Text]:
    raw = _raw(kind)

    def text(value: Any) -> bytes:
        if isinstance(value, Mapping):
            return _decimal_text(raw(value["value"]), value["scale"])
        return _plain_number(value)

    return CASTS["numeric"], text


_MOST_BITS = 83_886_080
"""Longer bit strings than PostgreSQL has: the length of a column that has none."""


def _bits(kind: Kind) -> tuple[Type, Text]:
    length, raw = int(kind.parameters["length"]), _raw(kind)
    if length > _MOST_BITS:
        raise DataError(
            "bit varying without a length: Debezium leaves leading zeros out",
            hint="Leave the column out with Debezium's `column.exclude.list`.",
        )

    def text(value: Any) -> bytes:
        number = int.from_bytes(raw(value), "little")
        return f"{number:0{length}b}".encode()

    return Type("text", f"postgres bit({length})"), text


def _point(_kind: Kind) -> tuple[Type, Text]:
    def text(value: Any) -> bytes:
        return b"(%s,%s)" % (_double(value["x"]), _double(value["y"]))

    return Type("text", "postgres point"), text


def _geometry(kind: Kind) -> tuple[Type, Text]:
    raw = _raw(kind)
    native = kind.name.rpartition(".")[2].lower()
    # What PostGIS prints is the hex of what Debezium sends: EWKB, the SRID inside.
    return Type("text", f"postgres {native}"), lambda v: raw(v["wkb"]).hex().upper().encode()


def _vector(native: str, number: Text) -> Callable[[Kind], tuple[Type, Text]]:
    type_ = Type("text", f"postgres {native}")
    return lambda _kind: (type_, lambda value: b"[%s]" % b",".join(map(number, value)))


def _double(value: Any) -> bytes:
    """Print a float8; in JSON what is not finite is a text."""
    return float64_text(float(value))


def _single(value: Any) -> bytes:
    """Print a float4; JSON's shortest decimal is brought back to the float it came from."""
    number = float(value)
    return float32_text(struct.unpack("<f", struct.pack("<f", number))[0])


def _truth(value: Any) -> bytes:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is no boolean")
    return b"t" if value else b"f"


def _whole(value: Any) -> bytes:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no integer")
    return b"%d" % value


def _binary(kind: Kind) -> tuple[Type, Text]:
    raw = _raw(kind)
    return CASTS["bytes"], lambda value: b"\\x" + raw(value).hex().encode()


def _always(type_: Type, text: Text) -> Callable[[Kind], tuple[Type, Text]]:
    return lambda _kind: (type_, text)


def _array(kind: Kind) -> tuple[Type, Text]:
    """An array of one dimension, which is all Debezium sends."""
    if kind.items is None:
        raise DataError("an array whose items have no schema")
    inner, read = column(kind.items)
    native = inner.native or "postgres text"

    def text(values: Any) -> bytes:
        return b"{%s}" % b",".join(b"NULL" if v is None else _item(read(v)) for v in values)

    return Type("text", f"{native}[]"), text


_UNQUOTED = re.compile(rb"[^\s{}\",\\]+")


def _item(text: bytes | Absent) -> bytes:
    if text is ABSENT:
        raise ValueError(f"an array holds {UNAVAILABLE} beside other values")
    if _UNQUOTED.fullmatch(text) and text.upper() != b"NULL":
        return text
    return _quoted(text)


def _quoted(text: bytes) -> bytes:
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _hstore(_kind: Kind) -> tuple[Type, Text]:
    def text(value: Any) -> bytes:
        pairs = (
            _quoted(key.encode()) + b"=>" + (b"NULL" if v is None else _quoted(v.encode()))
            for key, v in value.items()
        )
        return b", ".join(pairs)

    return Type("text", "postgres hstore"), text


_STRING = _always(CASTS["text"], _encoded)
_TIMETZ = Type("text", "postgres time with time zone")
_INTERVAL = Type("text", "postgres interval")
_MILLIS, _MICROS, _NANOS = 1000, 1, -1000


def _times(factor: int) -> Callable[[Kind], tuple[Type, Text]]:
    return _always(CASTS["time"], scaled(clock, factor, iso_clock))


def _moments(factor: int) -> Callable[[Kind], tuple[Type, Text]]:
    return _always(CASTS["timestamp"], scaled(moment, factor, iso_moment))


def _durations(factor: int) -> Callable[[Kind], tuple[Type, Text]]:
    return _always(_INTERVAL, scaled(duration, factor, _encoded))


_BASE: dict[str, Callable[[Kind], tuple[Type, Text]]] = {
    "boolean": _always(CASTS["bool"], _truth),
    "int8": _always(CASTS["smallint"], _whole),
    "int16": _always(CASTS["smallint"], _whole),
    "int32": _always(CASTS["int"], _whole),
    "int64": _always(CASTS["bigint"], _whole),
    "float32": _always(Type("float32", "postgres real"), _single),
    "float64": _always(CASTS["float"], _double),
    "string": _STRING,
    "bytes": _binary,
    "array": _array,
    "map": _hstore,
}

_LOGICAL: dict[str, Callable[[Kind], tuple[Type, Text]]] = {
    "org.apache.kafka.connect.data.Decimal": _decimal,
    "org.apache.kafka.connect.data.Date": _always(CASTS["date"], day),
    "org.apache.kafka.connect.data.Time": _times(_MILLIS),
    "org.apache.kafka.connect.data.Timestamp": _moments(_MILLIS),
    "io.debezium.data.VariableScaleDecimal": _variable_decimal,
    "io.debezium.time.Date": _always(CASTS["date"], day),
    "io.debezium.time.IsoDate": _always(CASTS["date"], day),
    "io.debezium.time.Time": _times(_MILLIS),
    "io.debezium.time.MicroTime": _times(_MICROS),
    "io.debezium.time.NanoTime": _times(_NANOS),
    "io.debezium.time.IsoTime": _times(_MICROS),
    "io.debezium.time.ZonedTime": _always(_TIMETZ, iso_zoned_clock),
    "io.debezium.time.Timestamp": _moments(_MILLIS),
    "io.debezium.time.MicroTimestamp": _moments(_MICROS),
    "io.debezium.time.NanoTimestamp": _moments(_NANOS),
    "io.debezium.time.IsoTimestamp": _moments(_MICROS),
    "io.debezium.time.ZonedTimestamp": _always(CASTS["timestamptz"], iso_zoned),
    "io.debezium.time.MicroDuration": _durations(_MICROS),
    "io.debezium.time.NanoDuration": _durations(_NANOS),
    "io.debezium.time.Interval": _always(_INTERVAL, _encoded),
    "io.debezium.time.Year": _always(CASTS["int"], _whole),
    "io.debezium.data.Bits": _bits,
    "io.debezium.data.Enum": _STRING,
    "io.debezium.data.Json": _always(Type("json", "postgres json"), _encoded),
    "io.debezium.data.Ltree": _always(Type("text", "postgres ltree"), _encoded),
    "io.debezium.data.Tsvector": _always(Type("text", "postgres tsvector"), _encoded),
    "io.debezium.data.Uuid": _always(CASTS["uuid"], _encoded),
    "io.debezium.data.Xml": _always(Type("text", "postgres xml"), _encoded),
    "io.debezium.data.DoubleVector": _vector("vector", _single),
    "io.debezium.data.FloatVector": _vector("halfvec", _single),
    "io.debezium.data.geometry.Point": _point,
    "io.debezium.data.geometry.Geometry": _geometry,
    "io.debezium.data.geometry.Geography": _geometry,
}
"""Name of a schema → its type and text. Adding a type is one line."""


def column(kind: Kind) -> tuple[Type, Read]:
    """Return the type a column of `kind` has here, and how a value of it is read.

    Raises `errors.DataError` for a type that is not known.
    """
    make = _LOGICAL.get(kind.name) if kind.name else _BASE.get(kind.type)
    if make is None:
        raise DataError(
            f"{kind.name or kind.type} is no type this version knows",
            hint="Leave the column out with Debezium's `column.exclude.list`, or have Debezium "
            "send it as text.",
        )
    type_, text = make(kind)
    missing = _placeholder(kind)
    if missing is None:
        return type_, text
    return type_, lambda value: ABSENT if value in missing else text(value)


def _placeholder(kind: Kind) -> tuple[Any, ...] | None:
    """Return what stands for a value that was not sent; it is of the column's base type."""
    if kind.type == "string":
        return (UNAVAILABLE,)
    if kind.type == "bytes":
        raw = UNAVAILABLE.encode()
        return (_BASE64,) if kind.is_json else (raw,)
    if kind.type == "array":
        return ([UNAVAILABLE], _CODES)
    return ({UNAVAILABLE: UNAVAILABLE},) if kind.type == "map" else None


_BASE64 = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="
