"""How a value of each logical type is stored: which class of SQLite's, and made how from its text.

SQLite knows integers, reals, texts and blobs, and a column's declared type only leans values
towards one of them ("affinity"). So every value is bound as exactly the class it is to have, and
what none of the numeric ones holds exactly is text: a numeric keeps every digit of the source.

Source: sqlite.org/datatype3.html.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isnan

import msgspec

from schemas.table import Type

__all__ = ["FORMS", "Bind", "Form", "Value", "binder", "storage"]

Value = int | float | str | bytes
Bind = Callable[[bytes], Value]
"""Text of a value → what is bound. Raises `ValueError` for a text the type has no value for."""

_TRUTHS = {b"t": 1, b"true": 1, b"1": 1, b"f": 0, b"false": 0, b"0": 0}


class Form(msgspec.Struct, frozen=True):
    """The declared type of a column and what makes its values."""

    storage: str
    bind: Callable[[Type], Bind]


def _truth(text: bytes) -> int:
    found = _TRUTHS.get(text)
    if found is None:
        raise ValueError(f"{text!r} is no boolean")
    return found


def _real(text: bytes) -> Value:
    """Keep NaN as text: SQLite would make it NULL."""
    number = float(text)
    return "NaN" if isnan(number) else number


def _moment(text: bytes) -> str:
    """Write the zone as SQLite's own date functions read it; ±infinity and BC stay as they are."""
    return text.decode() + ":00" if text.endswith(b"+00") else text.decode()


def _blob(text: bytes) -> bytes:
    if not text.startswith(b"\\x"):
        raise ValueError(f"{text[:20]!r} is no bytea in hexadecimal form")
    return bytes.fromhex(text[2:].decode())


def _decimal(kind: Type) -> Bind:
    digits, scale = kind.precision - kind.scale, kind.scale

    def bind(text: bytes) -> str:
        whole, _, fraction = text.partition(b".")
        too_long = len(whole.lstrip(b"-0")) > digits or len(fraction) > scale
        if too_long and text != b"NaN":
            raise ValueError(f"{text!r} does not fit numeric({kind.precision},{scale})")
        return text.decode()

    return bind


def _always(bind: Bind) -> Callable[[Type], Bind]:
    return lambda _: bind


_INTEGER = Form("INTEGER", _always(int))
_REAL = Form("REAL", _always(_real))
_TEXT = Form("TEXT", _always(bytes.decode))

FORMS: dict[str, Form] = {
    "boolean": Form("INTEGER", _always(_truth)),
    "int16": _INTEGER,
    "int32": _INTEGER,
    "int64": _INTEGER,
    "float32": _REAL,
    "float64": _REAL,
    "decimal": Form("TEXT", _decimal),
    "date": _TEXT,
    "time": _TEXT,
    "timestamp": _TEXT,
    "timestamptz": Form("TEXT", _always(_moment)),
    "bytes": Form("BLOB", _always(_blob)),
    "uuid": _TEXT,
    "string": _TEXT,
    "json": _TEXT,
    "enum": _TEXT,
    "text": _TEXT,
}
"""Logical type (`schemas.types.LOGICAL`) → form."""


def storage(kind: Type) -> str:
    """Return the type a column of ours is declared with."""
    return FORMS[kind.logical].storage


def binder(kind: Type) -> Bind:
    """Return what makes the values of a column, once per version of its table."""
    return FORMS[kind.logical].bind(kind)
