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
Bind = Callable[[str], Value]
"""Text of a value → what is bound. Raises `ValueError` for a text the type has no value for."""

_TRUTHS = {"t": 1, "true": 1, "1": 1, "f": 0, "false": 0, "0": 0}


class Form(msgspec.Struct, frozen=True):
    """The declared type of a column, and what makes its values: None where the text is one."""

    storage: str
    bind: Callable[[Type], Bind] | None = None


def _truth(text: str) -> int:
    found = _TRUTHS.get(text)
    if found is None:
        raise ValueError(f"{text!r} is no boolean")
    return found


def _real(text: str) -> Value:
    """Keep NaN as text: SQLite would make it NULL."""
    number = float(text)
    return "NaN" if isnan(number) else number


def _moment(text: str) -> str:
    """Write the zone as SQLite's own date functions read it; ±infinity and BC stay as they are."""
    return text + ":00" if text.endswith("+00") else text


def _blob(text: str) -> bytes:
    if not text.startswith("\\x"):
        raise ValueError(f"{text[:20]!r} is no bytea in hexadecimal form")
    return bytes.fromhex(text[2:])


def _decimal(kind: Type) -> Bind:
    """Refuse what is no value of the type, as a database with such a type would."""
    digits = kind.precision - kind.scale

    def bind(text: str) -> str:
        if len(text) > digits and text != "NaN":  # a short text always fits
            whole = text.partition(".")[0].lstrip("-0")
            if len(whole) > digits:
                raise ValueError(f"{text} does not fit numeric({kind.precision},{kind.scale})")
        return text

    return bind


def _always(bind: Bind) -> Callable[[Type], Bind]:
    return lambda _: bind


_INTEGER = Form("INTEGER", _always(int))
_REAL = Form("REAL", _always(_real))
_TEXT = Form("TEXT")

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


def binder(kind: Type) -> Bind | None:
    """Return what makes the values of a column, once per version of its table."""
    bind = FORMS[kind.logical].bind
    return None if bind is None else bind(kind)
