"""How a value of each logical type is stored: the column's type, and its literal in a statement.

The server's strict mode judges every value: what a column cannot hold is an error, so nearly all
literals are simply the text in quotes. Three types have a text that it reads otherwise.

Source: MariaDB documentation, "Data Types", "String Literals", "InnoDB Limitations"; MySQL
documentation, the same and "InnoDB Limits".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from schemas.change import Cell
from schemas.table import Type

__all__ = ["NULL", "WIDE", "Form", "Forms", "Literal", "is_", "text_literal"]

Literal = Callable[[bytes], bytes]
"""Text of a value → its literal. Raises `ValueError` for a text the type has no value for."""

NULL = b"NULL"
WIDE = ("string", "json", "enum", "text", "bytes")
"""Types without a bound, which a key needs: a key of InnoDB has one of 3,072 bytes."""
_KEY_BYTES = 3072
_DIGITS = 65
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


def _decimal(scale: int) -> Callable[[Type], str]:
    def decimal(kind: Type) -> str:
        if kind.precision > _DIGITS or kind.scale > scale:
            return "LONGTEXT"
        return f"DECIMAL({kind.precision},{kind.scale})"

    return decimal


def is_(name: str) -> Callable[[Type], str]:
    """Return what declares every column as `name`."""
    return lambda _: name


_TEXT = Form(is_("LONGTEXT"))
_FORMS: Mapping[str, Form] = {
    "boolean": Form(is_("TINYINT(1)"), _truth),
    "int16": Form(is_("SMALLINT")),
    "int32": Form(is_("INT")),
    "int64": Form(is_("BIGINT")),
    "float32": Form(is_("DOUBLE")),  # a FLOAT is shown with six digits
    "float64": Form(is_("DOUBLE")),
    "date": Form(is_("DATE")),
    "time": Form(is_("TIME(6)")),
    "timestamp": Form(is_("DATETIME(6)")),
    "timestamptz": Form(is_("DATETIME(6)"), _moment),  # a TIMESTAMP ends in 2038
    "bytes": Form(is_("LONGBLOB"), _blob),
    "string": _TEXT,
    "json": _TEXT,
    "enum": _TEXT,
    "text": _TEXT,
}
"""Logical type → form, of those that are alike everywhere."""


class Forms:
    """The forms of one server."""

    def __init__(self, uuid: Form, scale: int, narrow: int) -> None:
        """`scale` is the most digits behind a point, `narrow` the most bytes of others in a key."""
        self._by_type = {**_FORMS, "uuid": uuid, "decimal": Form(_decimal(scale))}
        self._narrow = narrow

    def __getitem__(self, logical: str) -> Form:
        """Return the form of a logical type (`schemas.types.LOGICAL`)."""
        return self._by_type[logical]

    def storage(self, kind: Type) -> str:
        """Return the type a column of ours is declared with."""
        return self[kind.logical].storage(kind)

    def key_storage(self, kind: Type, beside: list[Type]) -> str:
        """Return the type of a key column: as `storage`, but with a bound.

        `beside` are the types of all columns of the key, which share its room.
        """
        if kind.logical not in WIDE:
            return self.storage(kind)
        wide = sum(other.logical in WIDE for other in beside)
        room = (_KEY_BYTES - self._narrow * (len(beside) - wide)) // wide
        return f"VARBINARY({room})" if kind.logical == "bytes" else f"VARCHAR({room // 4})"

    def literal(self, kind: Type, cell: Cell) -> bytes:
        """Return the literal of a cell. Raises `ValueError` for a text that is none of its type."""
        if not isinstance(cell, bytes):
            return NULL
        return (self[kind.logical].literal or text_literal)(cell)
