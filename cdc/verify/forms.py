"""One text for each value: what engines print differently is brought to the same form.

Needed where the two sides are different engines, or their columns of different types: one server
pads a fraction with zeros, another writes a zone or a truth in other letters.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation

from cdc.verify.compare import Form
from schemas.floats import float64_text
from schemas.table import Type

__all__ = ["form_of"]

_NUMERIC = re.compile(r"\w+ (?:numeric|decimal)(?:\(.*\))?")
_TRUTHS = {b"true": b"t", b"1": b"t", b"false": b"f", b"0": b"f"}


def _truth(text: bytes) -> bytes:
    return _TRUTHS.get(text, text)


def _float(text: bytes) -> bytes:
    try:
        return float64_text(float(text))
    except ValueError:
        return text


def _number(text: bytes) -> bytes:
    """Leave out zeros that say nothing: scales are the columns' own."""
    try:
        number = Decimal(text.decode())
    except InvalidOperation:
        return text
    if not number.is_finite() or not number:
        return b"0" if not number.is_nan() and not number else text
    return format(number.normalize(), "f").encode()


def _moment(text: bytes) -> bytes:
    """Leave out a zone, which is UTC on every connection, and zeros at the end of a fraction."""
    era = b" BC" if text.endswith(b" BC") else b""
    body = text.removesuffix(b" BC").removesuffix(b":00" if b"+00:00" in text else b"")
    body = body.removesuffix(b"+00")
    return (body.rstrip(b"0").rstrip(b".") if b"." in body else body) + era


def _json(text: bytes) -> bytes:
    try:
        value = json.loads(text, parse_float=_kept, parse_int=_kept)
    except ValueError:
        return text
    return json.dumps(value, sort_keys=True).encode()


def _kept(number: str) -> list[str]:
    """Keep every digit of a number, apart from a string of the same letters."""
    return ["number", _number(number.encode()).decode()]


_FORMS: dict[str, Form] = {
    "boolean": _truth,
    "float32": _float,
    "float64": _float,
    "decimal": _number,
    "time": _moment,
    "timestamp": _moment,
    "timestamptz": _moment,
    "json": _json,
}


def form_of(kind: Type) -> Form | None:
    """Return the form of a column's texts, None where equal values have equal texts."""
    if kind.logical == "text" and _NUMERIC.fullmatch(kind.native):
        return _number
    return _FORMS.get(kind.logical)
