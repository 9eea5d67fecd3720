"""The text of a cell ↔ the value that expressions, functions and rules see.

| logical type                     | value                    | back, without `as:` |
|----------------------------------|--------------------------|---------------------|
| boolean                          | bool                     | bool                |
| int16, int32, int64              | int                      | bigint              |
| float32, float64                 | double                   | float               |
| decimal, numeric                 | double, when it is exact | float               |
| date, timestamp, timestamptz     | timestamp (UTC)          | timestamptz         |
| bytes                            | bytes                    | bytes               |
| json                             | what it holds            | json                |
| time, uuid, enum, and all others | string                   | text                |

A value that has no such form (a decimal of more digits than a double keeps, infinity, a year
before 1) is `errors.DataError`: nothing is rounded silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from cdc.errors import DataError
from schemas.floats import float64_text
from schemas.table import Type

__all__ = ["cast_named", "read_cell", "sample", "text_of"]

_Read = Callable[[bytes], Any]

_EXAMPLES: dict[str, Any] = {
    "boolean": True,
    "int16": 1,
    "int32": 1,
    "int64": 1,
    "float32": 1.5,
    "float64": 1.5,
    "decimal": 1.5,
    "date": datetime(2001, 1, 1, tzinfo=UTC),
    "timestamp": datetime(2001, 1, 1, tzinfo=UTC),
    "timestamptz": datetime(2001, 1, 1, tzinfo=UTC),
    "bytes": b"\x00",
}


_NUMERIC = re.compile(r"(?:numeric|decimal)(?:\(.*\))?")


def _is_numeric(kind: Type) -> bool:
    """Tell whether a text type is a number without a fixed scale."""
    name = kind.native.partition(" ")[2]
    return kind.logical == "decimal" or (
        kind.logical == "text" and _NUMERIC.fullmatch(name) is not None
    )


def _double(text: bytes) -> float:
    number = float(text)
    try:
        same = number != number or Decimal(repr(number)) == Decimal(text.decode())  # noqa: PLR0124
    except InvalidOperation:
        same = False
    if not same:
        raise DataError(
            f"{text.decode()} has more digits than a double keeps",
            hint="Take such a column with `from`, which keeps every digit.",
        )
    return number


def _decimal(text: bytes) -> Decimal:
    return Decimal(text.decode())


def _moment(text: bytes) -> datetime:
    try:
        moment = datetime.fromisoformat(text.decode())
    except ValueError:
        raise DataError(f"{text.decode()} lies outside the years 1 to 9999") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _bytes(text: bytes) -> bytes:
    return bytes.fromhex(text[2:].decode())


_READ: dict[str, _Read] = {
    "boolean": lambda text: text == b"t",
    "int16": int,
    "int32": int,
    "int64": int,
    "float32": float,
    "float64": float,
    "date": _moment,
    "timestamp": _moment,
    "timestamptz": _moment,
    "bytes": _bytes,
    "json": orjson.loads,
}


def read_cell(kind: Type, *, exact: bool = False) -> _Read:
    """Return text → value for a column; `exact` makes numbers `Decimal` instead of doubles.

    The function raises `errors.DataError`, and `ValueError` for a text that is not of the type.
    """
    if _is_numeric(kind):
        return _decimal if exact else _double
    return _READ.get(kind.logical, bytes.decode)


def sample(kind: Type) -> Any:
    """Return some value of the type; None for json, of which nothing is known."""
    if kind.logical == "json":
        return None
    return 1.5 if _is_numeric(kind) else _EXAMPLES.get(kind.logical, "a")


def _json(value: Any) -> bytes:
    # A map of CEL has no order of its own, and a row applied twice must be the same.
    return orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def _moment_text(value: datetime) -> bytes:
    moment = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    text = moment.replace(tzinfo=None).isoformat(" ")
    return (text.rstrip("0") if moment.microsecond else text).encode() + b"+00"


_WRITE: dict[type, tuple[str, Callable[[Any], bytes]]] = {
    bool: ("bool", lambda value: b"t" if value else b"f"),
    int: ("bigint", lambda value: b"%d" % value),
    float: ("float", float64_text),
    Decimal: ("numeric", lambda value: format(value, "f").encode()),
    str: ("text", str.encode),
    bytes: ("bytes", lambda value: b"\\x" + value.hex().encode()),
    datetime: ("timestamptz", _moment_text),
    date: ("date", lambda value: value.isoformat().encode()),
    dict: ("json", _json),
    list: ("json", _json),
}


def cast_named(value: Any) -> str:
    """Return the name (`sinks.cast.CASTS`) of the type of `value`.

    Raises `errors.DataError` for a value that no column holds.
    """
    return _written(value)[0]


def text_of(value: Any) -> bytes | None:
    """Return `value` as text. Raises `errors.DataError` for one that no column holds."""
    if value is None:
        return None
    try:
        return _written(value)[1](value)
    except (TypeError, UnicodeEncodeError) as error:
        raise DataError(f"{value!r} is no value of a column: {error}") from error


def _written(value: Any) -> tuple[str, Callable[[Any], bytes]]:
    found = _WRITE.get(type(value))
    if found is None:
        raise DataError(
            f"a {type(value).__name__} is no value of a column",
            hint="A duration has parts (`getSeconds()`); an optional has `orValue(…)`.",
        )
    return found
