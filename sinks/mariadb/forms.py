"""How a value of each logical type is stored: the column's type, and its literal in a statement.

MariaDB's strict mode judges every value: what a column cannot hold is an error, so nearly all
literals are simply the text in quotes. Three types have a text that MariaDB reads otherwise.

Source: MariaDB documentation, "Data Types", "String Literals", "InnoDB Limitations".
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from schemas.change import Cell
from schemas.table import Type

__all__ = ["FORMS", "NULL", "Form", "Literal", "key_storage", "literal", "storage", "text_literal"]

Literal = Callable[[bytes], bytes]
"""Text of a value → its literal. Raises `ValueError` for a text the type has no value for."""

NULL = b"NULL"
WIDE = ("string", "json", "enum", "text", "bytes")
"""Types without a bound, which a key needs: a key of InnoDB has one of 3,072 bytes."""
_KEY_BYTES = 3072
_NARROW_BYTES = 40
"""More than any other type takes in a key."""
_DIGITS, _SCALE = 65, 38
"""The most a DECIMAL has."""

_TRUTHS = {b"t": b"1", b"true": b"1", b"1": b"1", b"f": b"0", b"false": b"0", b"0": b"0"}


class Form(msgspec.Struct, frozen=True):
    """The type of a column, and what makes its literals: None where the quoted text is one."""

    storage: Callable[[Type], str]
    literal: Literal | None = None


def text_literal(cell: bytes) -> bytes:
    """Return a text in quotes, whatever it holds; the connection's character set is UTF-8."""
    if b"\\" in cell:
        cell = cell.replace(b"\\", b"\\\\")
    if b"'" in cell:
        cell = cell.replace(b"'", b"\\'")
    return b"'" + cell + b"'"


def _truth(text: bytes) -> bytes:
    found = _TRUTHS.get(text)
    if found is None:
        raise ValueError(f"{text.decode()!r} is no boolean")
    return found


def _moment(text: bytes) -> bytes:
    """Leave out the zone, which is that of the session: UTC."""
    return text_literal(text.removesuffix(b"+00"))


def _blob(text: bytes) -> bytes:
    if not text.startswith(b"\\x"):
        raise ValueError(f"{text[:20].decode()!r} is no bytea in hexadecimal form")
    return b"X'" + bytes.fromhex(text[2:].decode()).hex().encode() + b"'"


def _decimal(kind: Type) -> str:
    if kind.precision > _DIGITS or kind.scale > _SCALE:
        return "LONGTEXT"
    return f"DECIMAL({kind.precision},{kind.scale})"


def _is(name: str) -> Callable[[Type], str]:
    return lambda _: name


_TEXT = Form(_is("LONGTEXT"))

FORMS: dict[str, Form] = {
    "boolean": Form(_is("TINYINT(1)"), _truth),
    "int16": Form(_is("SMALLINT")),
    "int32": Form(_is("INT")),
    "int64": Form(_is("BIGINT")),
    "float32": Form(_is("DOUBLE")),  # a FLOAT is shown with six digits
    "float64": Form(_is("DOUBLE")),
    "decimal": Form(_decimal),
    "date": Form(_is("DATE")),
    "time": Form(_is("TIME(6)")),
    "timestamp": Form(_is("DATETIME(6)")),
    "timestamptz": Form(_is("DATETIME(6)"), _moment),  # a TIMESTAMP ends in 2038
    "bytes": Form(_is("LONGBLOB"), _blob),
    "uuid": Form(_is("UUID")),
    "string": _TEXT,
    "json": _TEXT,
    "enum": _TEXT,
    "text": _TEXT,
}
"""Logical type (`schemas.types.LOGICAL`) → form."""


def storage(kind: Type) -> str:
    """Return the type a column of ours is declared with."""
    return FORMS[kind.logical].storage(kind)


def key_storage(kind: Type, beside: list[Type]) -> str:
    """Return the type of a key column: as `storage`, but with a bound.

    `beside` are the types of all columns of the key, which share its room.
    """
    if kind.logical not in WIDE:
        return storage(kind)
    wide = sum(other.logical in WIDE for other in beside)
    room = (_KEY_BYTES - _NARROW_BYTES * (len(beside) - wide)) // wide
    return f"VARBINARY({room})" if kind.logical == "bytes" else f"VARCHAR({room // 4})"


def literal(kind: Type, cell: Cell) -> bytes:
    """Return the literal of a cell. Raises `ValueError` for a text that is none of its type."""
    if not isinstance(cell, bytes):
        return NULL
    return (FORMS[kind.logical].literal or text_literal)(cell)
