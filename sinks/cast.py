"""From the text of one type to the text of another: casts, constants and places inside json.

Text is what travels, so a cast is mostly a new type over the same text and the target's own
parser judges it. Only where texts of two types differ is there a function.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from cdc.errors import DataError
from schemas.table import Type

__all__ = ["CASTS", "Convert", "cast", "constant", "convert_between", "json_path"]

Convert = Callable[[bytes], bytes | None]
"""Text → text, or NULL. Raises `errors.DataError` for a text that has no such form."""

CASTS: dict[str, Type] = {
    "text": Type("string", "postgres text"),
    "int": Type("int32", "postgres integer"),
    "bigint": Type("int64", "postgres bigint"),
    "smallint": Type("int16", "postgres smallint"),
    "float": Type("float64", "postgres double precision"),
    "numeric": Type("text", "postgres numeric"),
    "bool": Type("boolean", "postgres boolean"),
    "date": Type("date", "postgres date"),
    "time": Type("time", "postgres time without time zone"),
    "timestamp": Type("timestamp", "postgres timestamp without time zone"),
    "timestamptz": Type("timestamptz", "postgres timestamp with time zone"),
    "json": Type("json", "postgres jsonb"),
    "uuid": Type("uuid", "postgres uuid"),
    "bytes": Type("bytes", "postgres bytea"),
}
"""What `as:` may say → the type of the target column."""

_MOMENTS = frozenset({"timestamp", "timestamptz"})
_INTEGERS = frozenset({"int16", "int32", "int64"})


def _date_of(text: bytes) -> bytes:
    """Cut the day out of a moment; the zone is the pinned one, UTC (R9)."""
    day, _, rest = text.partition(b" ")
    return day + b" BC" if rest.endswith(b" BC") else day


def _time_of(text: bytes) -> bytes:
    parts = text.split(b" ")
    if len(parts) == 1:
        raise DataError(f"{text.decode()} has no time of day")
    return parts[1].partition(b"+")[0].partition(b"-")[0]


def _with_zone(text: bytes) -> bytes:
    """Read a moment without a zone as UTC; ±infinity and BC keep their form."""
    if text.endswith(b"infinity"):
        return text
    return text[:-3] + b"+00 BC" if text.endswith(b" BC") else text + b"+00"


def _without_zone(text: bytes) -> bytes:
    era = b" BC" if text.endswith(b" BC") else b""
    body = text.removesuffix(b" BC")
    return body.removesuffix(b"+00") + era


def _integer(text: bytes) -> bytes:
    try:
        number = Decimal(text.decode())
        whole = int(number)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise DataError(f"{text.decode(errors='replace')!r} is no integer") from error
    if whole != number:
        raise DataError(f"{text.decode()} has a fraction, a cast to an integer would lose it")
    return b"%d" % whole


def _truth(text: bytes) -> bytes:
    return b"true" if text == b"t" else b"false"


def _number_of_truth(text: bytes) -> bytes:
    return b"1" if text == b"t" else b"0"


def convert_between(before: Type, after: Type) -> Convert | None:
    """Return the function between two texts, None where they are the same."""
    old, new = before.logical, after.logical
    if old in _MOMENTS and new in ("date", "time"):
        return _date_of if new == "date" else _time_of
    if old in _MOMENTS and new in _MOMENTS and old != new:
        return _with_zone if new == "timestamptz" else _without_zone
    if old == "boolean" and new == "string":
        return _truth
    if new in _INTEGERS and old not in _INTEGERS:
        return _number_of_truth if old == "boolean" else _integer
    return None


def cast(before: Type, name: str | None) -> tuple[Type, Convert | None]:
    """Return the type after `as: name` and the function on the text, None where none is needed."""
    if name is None:
        return before, None
    after = CASTS[name]
    return after, convert_between(before, after)


def constant(value: str | bool | float | None) -> tuple[Type, bytes | None]:  # noqa: FBT001
    """Return the type and the text of a constant of the mapping."""
    if value is None:
        return CASTS["text"], None
    if isinstance(value, bool):
        return CASTS["bool"], b"t" if value else b"f"
    if isinstance(value, int):
        return CASTS["bigint"], b"%d" % value
    if isinstance(value, float):
        return CASTS["float"], repr(value).encode()
    return CASTS["text"], value.encode()


def _step(value: Any, part: str) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and part.isdigit() and int(part) < len(value):
        return value[int(part)]
    return None


def _json_text(value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Decimal | int):
        return str(value).encode()
    return orjson.dumps(value, default=float)


def json_path(path: Sequence[str], convert: Convert | None) -> Convert:
    """Return a function that reads the text of json and hands out what lies at `path`.

    A place that is not there is NULL. Numbers keep every digit, strings lose their quotes.
    """

    def read(text: bytes) -> bytes | None:
        try:
            value = json.loads(text, parse_float=Decimal)
        except ValueError as error:
            raise DataError(f"not json: {text[:40]!r}") from error
        for part in path:
            value = _step(value, part)
        found = _json_text(value)
        return convert(found) if convert is not None and found is not None else found

    return read
