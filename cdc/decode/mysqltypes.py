"""The types of MariaDB and MySQL: one table of rules for the log and for snapshots.

A column is known by the name of its type in the catalogue ("bigint", "uuid") and by what belongs
to it; a `Column` says the same whether it was read in the log or there. From it follow its logical
type, how its value stands in a row image, and what SELECT has to ask for, so that a row read in a
snapshot is, byte for byte, the row of the log.

Zero and partial dates and TIME outside a day have no place in other systems: they stay the text
they are (`schemas/types.py` tells what becomes of it).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import msgspec

from cdc.decode import mysqlvalues as values
from cdc.decode.binlogtables import BINARY, JSON, VECTOR, LoggedColumn
from cdc.decode.charsets import decoder
from cdc.decode.mysqljson import json_text
from schemas.floats import float32_text, float64_text
from schemas.table import Type

__all__ = [
    "KINDS",
    "MysqlColumn",
    "Native",
    "fits",
    "logged_column",
    "logical",
    "native",
    "printed",
    "reader",
    "selected",
    "text",
]

Native = tuple[str, int, int]
"""(kind of `schemas/_images.pyx` or "", size, scale)."""


class MysqlColumn(msgspec.Struct, frozen=True):
    """One column: `kind` is its type's name in the catalogue, `spelled` its whole type there.

    `size` is bits of a BIT, bytes of a BINARY, digits of a second's fraction, bytes of the length
    of a text or of a label's number; `precision` and `scale` are a decimal's.
    """

    name: str
    kind: str
    spelled: str
    unsigned: bool = False
    size: int = 0
    precision: int = 0
    scale: int = 0
    charset: str = "binary"
    labels: tuple[str, ...] = ()


class Kind(msgspec.Struct, frozen=True):
    """What the log calls a type: its code, or codes, and the logical type it has here."""

    codes: tuple[int, ...]
    logical: str


_INTEGERS = {"tinyint": 1, "smallint": 2, "mediumint": 3, "int": 4, "bigint": 8}
_UNSIGNED = {"tinyint": "int16", "smallint": "int32", "mediumint": "int32", "int": "int64"}
_LENGTHS = {"tiny": 1, "": 2, "medium": 3, "long": 4}
_GEOMETRIES = (
    "geometry",
    "point",
    "linestring",
    "polygon",
    "multipoint",
    "multilinestring",
    "multipolygon",
    "geometrycollection",
    "geomcollection",  # the same, as MySQL's catalogue has it
)

KINDS: dict[str, Kind] = {
    "tinyint": Kind((1,), "int16"),
    "smallint": Kind((2,), "int16"),
    "mediumint": Kind((9,), "int32"),
    "int": Kind((3,), "int32"),
    "bigint": Kind((8,), "int64"),
    "float": Kind((4,), "float32"),
    "double": Kind((5,), "float64"),
    "decimal": Kind((246,), "decimal"),
    "bit": Kind((16,), "text"),
    "year": Kind((13,), "int16"),
    "date": Kind((10, 14), "date"),
    "time": Kind((19,), "text"),
    "datetime": Kind((18,), "timestamp"),
    "timestamp": Kind((17,), "timestamptz"),
    "char": Kind((254,), "string"),
    "varchar": Kind((15, 253), "string"),
    "binary": Kind((254,), "bytes"),
    "varbinary": Kind((15, 253), "bytes"),
    **{f"{size}text": Kind((252,), "string") for size in _LENGTHS},
    **{f"{size}blob": Kind((252,), "bytes") for size in _LENGTHS},
    "json": Kind((252, JSON), "json"),
    "vector": Kind((VECTOR,), "bytes"),
    "enum": Kind((247,), "enum"),
    "set": Kind((248,), "text"),
    "uuid": Kind((254,), "uuid"),
    "inet4": Kind((254,), "text"),
    "inet6": Kind((254,), "text"),
    **{name: Kind((255,), "bytes") for name in _GEOMETRIES},
}
"""MariaDB 10.6 to 11.8, MySQL 8.0 to 9.7. A type that is not here is refused by name."""

_FIXED = {"uuid": 16, "inet6": 16, "inet4": 4}
_MOMENTS = ("date", "time", "datetime", "timestamp")
_READ_ALONE = {"float", "double", "bit", "year", "binary", "enum", "set", *_FIXED}
_OLD_TIMES = {7: "timestamp", 11: "time", 12: "datetime"}
_BY_CODE = {
    code: name
    for name, kind in reversed(KINDS.items())
    for code in kind.codes
    if name not in _FIXED
} | {255: "geometry"}


def logical(column: MysqlColumn, word: str) -> Type:
    """Return a column's type; `word` begins the native one.

    Raises `ValueError` for one that cannot be captured.
    """
    if column.kind not in KINDS:
        raise ValueError(f"column {column.name} is {column.spelled}, which cannot be captured")
    if "COMPRESSED" in column.spelled:
        raise ValueError(f"column {column.name} is compressed, which cannot be captured")
    if column.charset != "binary":
        decoder(column.charset)
    native = f"{word} {column.spelled}"
    name = KINDS[column.kind].logical
    if column.kind == "bigint" and column.unsigned:
        return Type("decimal", native, 20, 0)
    if column.kind in _UNSIGNED and column.unsigned:
        return Type(_UNSIGNED[column.kind], native)
    if name == "decimal":
        return Type(name, native, column.precision, column.scale)
    return Type(name, native, labels=column.labels if name == "enum" else ())


def logged_column(logged: LoggedColumn, charsets: Mapping[int, str]) -> MysqlColumn:
    """Return what the log alone says of a column; `charsets` are a server's, by collation.

    Raises `ValueError` for a type that cannot be captured.
    """
    if logged.code in _OLD_TIMES:
        raise ValueError(
            f"column {logged.name} keeps its {_OLD_TIMES[logged.code]} in the format of MySQL 5.5"
        )
    kind = _BY_CODE.get(logged.code)
    if kind is None:
        raise ValueError(f"column {logged.name} has type {logged.code} in the log")
    charset = charsets.get(logged.collation, f"of collation {logged.collation}")
    binary = logged.collation == BINARY
    if logged.code == 252:
        size = {wide: name for name, wide in _LENGTHS.items()}[logged.size]
        kind = f"{size}{'blob' if binary else 'text'}"
    elif kind in ("char", "varchar", "binary", "varbinary"):
        kind = {"char": "binary", "varchar": "varbinary"}[_CHARS[kind]] if binary else _CHARS[kind]
    found = MysqlColumn(
        logged.name,
        kind,
        kind,
        logged.unsigned,
        logged.size,
        charset="binary" if binary else charset,
        labels=_labels(logged.labels, charset),
    )
    if kind == "decimal":
        found = msgspec.structs.replace(found, precision=logged.size, scale=logged.scale, size=0)
    return msgspec.structs.replace(found, spelled=_spell(found))


_CHARS = {"char": "char", "binary": "char", "varchar": "varchar", "varbinary": "varchar"}


def _labels(labels: tuple[bytes, ...], charset: str) -> tuple[str, ...]:
    if not labels:
        return ()
    decode = decoder(charset)
    return tuple((label if decode is None else decode(label)).decode() for label in labels)


def _spell(column: MysqlColumn) -> str:
    """Return a type a column of the same values can be made with."""
    kind, size = column.kind, column.size
    tail = " unsigned" if column.unsigned else ""
    if kind == "decimal":
        return f"decimal({column.precision},{column.scale}){tail}"
    if kind in ("enum", "set"):
        return f"{kind}({','.join(map(_quoted, column.labels))})"
    sized = kind in ("bit", "binary", "varbinary", "char", "varchar")
    if sized or (kind in ("time", "datetime", "timestamp") and size):
        return f"{kind}({size})"
    return kind + tail


def _quoted(label: str) -> str:
    return "'" + label.replace("'", "''") + "'"


def fits(column: MysqlColumn, logged: LoggedColumn, charsets: Mapping[int, str]) -> bool:
    """Tell whether a column of the catalogue is what the log has in its place."""
    kind = KINDS.get(column.kind)
    if kind is None or logged.code not in kind.codes or column.name != logged.name:
        return False
    seen = logged_column(logged, charsets)
    if column.kind in _FIXED:
        return logged.size == _FIXED[column.kind]
    mine = (column.unsigned, column.precision, column.scale, column.charset, column.labels)
    theirs = (seen.unsigned, seen.precision, seen.scale, seen.charset, seen.labels)
    same = mine == theirs and column.kind in (seen.kind, *_same(seen.kind))
    return same and (column.kind not in _SIZED or column.size == seen.size)


_SIZED = ("bit", "binary", "time", "datetime", "timestamp")


def _same(kind: str) -> tuple[str, ...]:
    if kind == "geometry":
        return _GEOMETRIES
    return ("json",) if kind == "longtext" else ()


def reader(column: MysqlColumn, logged: LoggedColumn) -> values.Read:
    """Return what reads a value of `column` where the log has it as `logged`.

    Raises `ValueError` for a character set that cannot be read.
    """
    kind, size = column.kind, logged.size
    if kind in _INTEGERS:
        return values.integer(_INTEGERS[kind], unsigned=column.unsigned)
    if kind in _FIXED:
        return values.fixed(size, values.uuid_text if kind == "uuid" else values.inet_text)
    simple: dict[str, Callable[[], values.Read]] = {
        "float": lambda: values.floating(4),
        "double": lambda: values.floating(8),
        "decimal": lambda: values.decimal(column.precision, column.scale),
        "bit": lambda: values.bits(size),
        "year": lambda: values.year,
        "binary": lambda: values.fixed(size, hexed),
        "enum": lambda: values.enumerated(size, [label.encode() for label in column.labels]),
        "set": lambda: values.set_of(size, [label.encode() for label in column.labels]),
    }
    if kind in simple:
        return simple[kind]()
    if kind in _MOMENTS:
        return values.moment(kind, size)
    if logged.code == JSON:
        return values.prefixed(logged.size, json_text)
    return values.prefixed(_prefix(logged), hexed if _is_bytes(kind) else decoder(column.charset))


def native(column: MysqlColumn, logged: LoggedColumn) -> Native:
    """Return what compiled code knows such a value as: a kind, and two numbers that go with it.

    The kind is empty for what `reader` alone reads: rare types, and text that is not UTF-8.
    """
    kind = column.kind
    if kind in _INTEGERS:
        return "unsigned" if column.unsigned else "signed", _INTEGERS[kind], 0
    if kind == "decimal":
        return kind, column.precision, column.scale
    if kind in _MOMENTS:
        return kind, logged.size, 0
    if kind in _READ_ALONE or logged.code == JSON:
        return "", 0, 0
    if _is_bytes(kind):
        return "bytes", _prefix(logged), 0
    return ("text", _prefix(logged), 0) if decoder(column.charset) is None else ("", 0, 0)


def _prefix(logged: LoggedColumn) -> int:
    """Return how many bytes the length of a text has."""
    if logged.code in (252, 255, VECTOR):
        return logged.size
    return 1 if logged.size < 256 else 2


def _is_bytes(kind: str) -> bool:
    return KINDS[kind].logical == "bytes"


def hexed(value: bytes) -> bytes:
    """Return the text of bytes, as PostgreSQL writes it."""
    return b"\\x" + value.hex().encode()


def selected(column: MysqlColumn, name: str) -> str:
    """Return the expression that asks for a column whose quoted name is `name`.

    FLOAT prints six digits only, a product all; CAST to DOUBLE is not known before MySQL 8.0.17.
    """
    return f"({name} * 1e0)" if column.kind == "float" else name


def text(column: MysqlColumn) -> Callable[[bytes], bytes] | None:
    """Return what makes the canonical text of what SELECT returned, None when it is that."""
    kind = column.kind
    if _is_bytes(kind):
        return hexed
    if kind in _INTEGERS or kind == "year":
        return lambda value: b"%d" % int(value)  # ZEROFILL prints zeros in front
    found: dict[str, Callable[[bytes], bytes]] = {
        "float": lambda value: float32_text(
            struct.unpack("<f", struct.pack("<f", float(value)))[0]
        ),
        "double": lambda value: float64_text(float(value)),
        "decimal": _plain,
        "bit": lambda value: _bit_text(value, column.size),
        "time": _trimmed,
        "datetime": _trimmed,
        "timestamp": lambda value: _trimmed(value) + b"+00",
    }
    return found.get(kind)


def printed(column: MysqlColumn) -> str:
    """Return what compiled code knows as that which `text` has to do with a value.

    One of the kinds of `schemas/_results.pyx`; empty for what `text` alone does.
    """
    kind = column.kind
    if _is_bytes(kind):
        return "bytes"
    if kind in _INTEGERS or kind == "year":
        return "integer"
    if kind in ("float", "double", "bit"):
        return ""
    found = {"decimal": kind, "time": "moment", "datetime": "moment", "timestamp": "zoned"}
    return found.get(kind, "text")


def _trimmed(value: bytes) -> bytes:
    return value.rstrip(b"0").removesuffix(b".") if b"." in value else value


def _plain(value: bytes) -> bytes:
    """Return a decimal without the zeros ZEROFILL puts in front."""
    whole, dot, fraction = value.partition(b".")
    sign = b"-" if whole.startswith(b"-") else b""
    return sign + (whole.lstrip(b"-0") or b"0") + dot + fraction


def _bit_text(value: bytes, count: int) -> bytes:
    return format(int.from_bytes(value, "big"), f"0{count}b").encode()
