"""PostgreSQL's text → the values Debezium's PostgreSQL connector sends, and their Connect schema.

What `sinks.debezium_types` reads, the other way round. A form is made once per column: the schema
as `JsonConverter` spells it, and one function from the text of a cell to what JSON holds. Settings
are Debezium's defaults but for two that lose values: intervals are ISO texts
(`interval.handling.mode=string`), an hstore is a map (`hstore.handling.mode=map`).

Sources: Debezium 3.6 documentation, "PostgreSQL connector, Data type mappings"; what a live 3.6
wrote (tests/interchange/recorded), which a test compares with what is written here.
"""

from __future__ import annotations

import math
import re
import struct
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec

from schemas.connect_times import (
    clock,
    day,
    interval,
    millis_clock,
    millis_moment,
    moment,
    zoned_clock,
    zoned_moment,
)
from schemas.table import Type

__all__ = ["UNAVAILABLE", "Form", "form_of"]

UNAVAILABLE = "__debezium_unavailable_value"
"""What stands for a value the log did not carry (R6), by Debezium's default."""

_TIME, _DATA = "io.debezium.time.", "io.debezium.data."
_DECIMAL = "org.apache.kafka.connect.data.Decimal"
_EPOCH = "1970-01-01T00:00:00.000000Z"

Value = Callable[[bytes], Any]


class Form(msgspec.Struct, frozen=True):
    """How a column is sent.

    `schema` is Connect's, without `optional`; `more` is what it says behind that. `value` makes
    the JSON value of a text and raises `ValueError` where there is none. `missing` stands for a
    value that was not sent, None where nothing does; `zero` for one of a column that forbids null
    in an old row of which only the key is known.
    """

    schema: dict[str, Any]
    value: Value
    more: dict[str, Any] = {}
    missing: Any = None
    zero: Any = None

    def described(self, *, optional: bool) -> dict[str, Any]:
        """Return the schema, its parts in the order in which JsonConverter writes them."""
        return {**self.schema, "optional": optional, **self.more}


def form_of(kind: Type) -> Form:
    """Return how a column of `kind` is sent; what Debezium does not know is its text."""
    native = kind.native.removeprefix("postgres ")
    if native.endswith("[]"):
        return _array(native.removesuffix("[]"))
    made = _BY_LOGICAL.get(kind.logical)
    if made is not None:
        return made(kind)
    return _of_text(native)


def _of_text(native: str) -> Form:
    """Return the form of a type that has text alone, by its name."""
    name, length = _split(native)
    made = _BY_NAME.get(name)
    return _STRING if made is None else made(length)


def _split(native: str) -> tuple[str, int | None]:
    """Return a type's name without schema and modifier, and the modifier's first number."""
    found = _MODIFIER.search(native)
    name = _MODIFIER.sub("", native).replace('"', "")
    return name.rpartition(".")[2], int(found[1]) if found else None


_MODIFIER = re.compile(r"\((\d+)(?:,-?\d+)?\)")


def _plain(base: str, value: Value, zero: Any) -> Form:
    missing = UNAVAILABLE if base == "string" else None
    return Form({"type": base}, value, missing=missing, zero=zero)


def _named(base: str, name: str, value: Value, zero: Any, **more: Any) -> Form:
    form = _plain(base, value, zero)
    return msgspec.structs.replace(form, more={"name": name, "version": 1, **more})


def _always(form: Form) -> Callable[[Any], Form]:
    return lambda _kind: form


def _text(value: bytes) -> str:
    return value.decode()


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode()


_MISSING_BYTES = _base64(UNAVAILABLE.encode())


def _bytes(value: bytes) -> str:
    return _base64(bytes.fromhex(value[2:].decode()))


def _float(value: bytes) -> float | str:
    """Return a number; what is not finite is a text in Connect's JSON."""
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _unscaled(digits: bytes) -> str:
    """Return a whole number as Java's BigInteger writes it: two's complement, no byte too many."""
    number = int(digits)
    size = (number if number >= 0 else ~number).bit_length() // 8 + 1
    return _base64(number.to_bytes(size, "big", signed=True))


def _decimal(kind: Type) -> Form:
    scale = kind.scale

    def value(text: bytes) -> str:
        whole, _, fraction = text.partition(b".")
        if len(fraction) > scale:
            raise ValueError(f"{text!r} has more than {scale} decimal places")
        return _unscaled(whole + fraction.ljust(scale, b"0"))

    parameters = {"scale": str(scale), "connect.decimal.precision": str(kind.precision)}
    return _named("bytes", _DECIMAL, value, "AA==", parameters=parameters)


def _variable(text: bytes) -> dict[str, Any]:
    whole, _, fraction = text.partition(b".")
    return {"scale": len(fraction), "value": _unscaled(whole + fraction)}


_VARIABLE = Form(
    {
        "type": "struct",
        "fields": [
            {"type": "int32", "optional": False, "field": "scale"},
            {"type": "bytes", "optional": False, "field": "value"},
        ],
    },
    _variable,
    {"name": _DATA + "VariableScaleDecimal", "version": 1, "doc": "Variable scaled decimal"},
    zero={"scale": 0, "value": "AA=="},
)


def _point(text: bytes) -> dict[str, Any]:
    x, _, y = text.strip(b"()").partition(b",")
    wkb = struct.pack("<bIdd", 1, 1, float(x), float(y))
    return {"x": _float(x), "y": _float(y), "wkb": _base64(wkb), "srid": None}


_POINT = Form(
    {
        "type": "struct",
        "fields": [
            {"type": "double", "optional": False, "field": "x"},
            {"type": "double", "optional": False, "field": "y"},
            {"type": "bytes", "optional": True, "field": "wkb"},
            {"type": "int32", "optional": True, "field": "srid"},
        ],
    },
    _point,
    {"name": _DATA + "geometry.Point", "version": 1, "doc": "Geometry (POINT)"},
    zero=_point(b"(0,0)"),
)


def _bits(length: int | None) -> Form:
    """Bits come as little-endian bytes, none for zeros; a single one is a boolean."""
    if length == 1:
        return _plain("boolean", lambda text: text == b"1", zero=False)

    def value(text: bytes) -> str:
        number = int(text or b"0", 2)
        return _base64(number.to_bytes((number.bit_length() + 7) // 8, "little"))

    parameters = {"length": str(length or 2_147_483_647)}
    form = _named("bytes", _DATA + "Bits", value, "", parameters=parameters)
    return msgspec.structs.replace(form, missing=_MISSING_BYTES)


def _enum(kind: Type) -> Form:
    allowed = {"allowed": ",".join(kind.labels)}
    return _named("string", _DATA + "Enum", _text, "", parameters=allowed)


def _time(kind: Type) -> Form:
    if _is_coarse(kind):
        return _named("int32", _TIME + "Time", millis_clock, 0)
    return _named("int64", _TIME + "MicroTime", clock, 0)


def _timestamp(kind: Type) -> Form:
    if _is_coarse(kind):
        return _named("int64", _TIME + "Timestamp", millis_moment, 0)
    return _named("int64", _TIME + "MicroTimestamp", moment, 0)


def _is_coarse(kind: Type) -> bool:
    """Tell whether a type has milliseconds at most."""
    digits = _split(kind.native)[1]
    return digits is not None and digits <= 3


_PAIR = re.compile(r'"((?:[^"\\]|\\.)*)"=>(?:NULL|"((?:[^"\\]|\\.)*)")', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def _hstore(text: bytes) -> dict[str, str | None]:
    pairs = _PAIR.finditer(text.decode())
    return {_plainly(found[1]): None if found[2] is None else _plainly(found[2]) for found in pairs}


def _plainly(quoted: str) -> str:
    return _ESCAPED.sub(r"\1", quoted)


_HSTORE = Form(
    {
        "type": "map",
        "keys": {"type": "string", "optional": False},
        "values": {"type": "string", "optional": True},
    },
    _hstore,
    missing={UNAVAILABLE: UNAVAILABLE},
    zero={},
)

_ITEM = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^",]+))(?:,|$)', re.DOTALL)
_CODES = list(UNAVAILABLE.encode())


def _array(native: str) -> Form:
    """Return the form of an array whose items are of the type called `native`."""
    item = form_of(_item_type(native))

    def value(text: bytes) -> list[Any]:
        return [None if one is None else item.value(one) for one in _items(text)]

    base = item.schema["type"]
    missing = [UNAVAILABLE] if base == "string" else _CODES if base.startswith("int") else None
    schema = {"type": "array", "items": item.described(optional=True)}
    return Form(schema, value, missing=missing, zero=[])


def _items(text: bytes) -> list[bytes | None]:
    """Return the items of an array of one dimension, which is all that Debezium knows."""
    if not text.startswith(b"{") or text.startswith(b"{{"):
        raise ValueError(f"{text[:80]!r}: an array of one dimension that begins at 1 can be sent")
    found = _ITEM.finditer(text[1:-1].decode())
    return [_plainly(one[1]).encode() if one[2] is None else _bare(one[2]) for one in found]


def _bare(item: str) -> bytes | None:
    return None if item.upper() == "NULL" else item.encode()


def _item_type(native: str) -> Type:
    """Return the type called `native`, as far as items of an array are told apart."""
    name, precision = _split(native)
    if name == "numeric" and precision is not None:
        scale = int(native.partition(",")[2].rstrip(")"))
        return Type("decimal", f"postgres {native}", precision, scale)
    return Type(_LOGICAL_OF.get(name, "text"), f"postgres {native}")


_STRING = _plain("string", _text, "")

_BY_LOGICAL: dict[str, Callable[[Type], Form]] = {
    "boolean": _always(_plain("boolean", lambda text: text == b"t", zero=False)),
    "int16": _always(_plain("int16", int, 0)),
    "int32": _always(_plain("int32", int, 0)),
    "int64": _always(_plain("int64", int, 0)),
    "float32": _always(_plain("float", _float, 0.0)),
    "float64": _always(_plain("double", _float, 0.0)),
    "decimal": _decimal,
    "date": _always(_named("int32", _TIME + "Date", day, 0)),
    "time": _time,
    "timestamp": _timestamp,
    "timestamptz": _always(_named("string", _TIME + "ZonedTimestamp", zoned_moment, _EPOCH)),
    "bytes": _always(Form({"type": "bytes"}, _bytes, missing=_MISSING_BYTES, zero="")),
    "uuid": _always(_named("string", _DATA + "Uuid", _text, "")),
    "json": _always(_named("string", _DATA + "Json", _text, "{}")),
    "enum": _enum,
    "string": _always(_STRING),
}
"""Types with a form of their own here; adding one is one line."""

_BY_NAME: dict[str, Callable[[int | None], Form]] = {
    "numeric": _always(_VARIABLE),
    "interval": _always(_named("string", _TIME + "Interval", interval, "P0Y0M0DT0H0M0S")),
    "time with time zone": _always(
        _named("string", _TIME + "ZonedTime", zoned_clock, "00:00:00Z"),
    ),
    "bit": _bits,
    "bit varying": _bits,
    "point": _always(_POINT),
    "hstore": _always(_HSTORE),
    "xml": _always(_named("string", _DATA + "Xml", _text, "")),
    "ltree": _always(_named("string", _DATA + "Ltree", _text, "")),
    "tsvector": _always(_named("string", _DATA + "Tsvector", _text, "")),
}
"""Types that are text here, by name; what is in neither table is its text there, too."""

_LOGICAL_OF = {
    "boolean": "boolean",
    "smallint": "int16",
    "integer": "int32",
    "bigint": "int64",
    "oid": "int64",
    "real": "float32",
    "double precision": "float64",
    "bytea": "bytes",
    "date": "date",
    "time without time zone": "time",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "uuid": "uuid",
    "json": "json",
    "jsonb": "json",
}
"""Name of an array's item → its logical type; text where it is not told."""
