"""Which values a type has room for: whether a column that is there takes those of another type.

A database rounds `1.005` into a `numeric(12,2)` and cuts a fraction of a second without a word;
what is too long or too large it refuses, row by row, after the sink ran well for weeks. So a
target asks before the first row. Types are measured by what they hold, whichever dialect spells
them: numbers by their largest value and digits behind the point, texts by their length, moments by
the digits of their seconds.

Source: PostgreSQL documentation, "Numeric Types", "Date/Time Types", "Character Types"; MariaDB
documentation, "Data Types".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

import msgspec

from schemas.table import Type

__all__ = ["holds"]

_Kind = Literal["number", "float", "text", "padded", "bytes", "date", "time", "moment", "interval"]


class _Room(msgspec.Struct, frozen=True):
    """What a type holds; None is without a bound.

    `size` are characters, bytes, or of a float the bits of its mantissa; `scale` are digits behind
    the point, of a second too; `least` and `most` a number's bounds; `zoned`: it knows its zone.
    """

    kind: _Kind
    size: int | None = None
    scale: int | None = None
    least: Fraction | None = None
    most: Fraction | None = None
    zoned: bool = False


_Args = tuple[int, ...]
_Make = Callable[[_Args], _Room]
_MICROS = 6
_EXACT = {24: 6, 53: 15}
"""Bits of a float's mantissa → the decimal digits that it surely keeps."""
_FLOAT_WIDTH, _MOMENT_WIDTH, _NAN_WIDTH = 24, 38, 3
_WIDTHS = {"boolean": 1, "uuid": 36}
"""Characters of the texts of types that have no room of their own."""


def holds(there: Type, wanted: Type) -> bool | None:
    """Tell whether a column of type `there` keeps every value of `wanted`; None: nobody knows.

    Unknown are types whose values are refused or kept, never rounded or cut: uuid, json, enums, and
    those of extensions.
    """
    if there.native and there.native == wanted.native:
        return True
    if there.native.endswith("[]") and wanted.native.endswith("[]"):
        return holds(*(Type("text", kind.native[:-2]) for kind in (there, wanted)))
    room, need = _room(there), _room(wanted)
    if room is None:
        return None
    if room.kind in ("text", "padded"):
        return _is_long_enough(room, need, wanted)
    return None if need is None else _FITS[room.kind](room, need)


def _is_long_enough(room: _Room, need: _Room | None, wanted: Type) -> bool:
    if need is not None and need.kind == "bytes":
        return False
    width = _width(wanted, need)
    if room.kind == "padded":
        # Blanks at the end are nothing to it: they may be none of the other's values either, or
        # all of these may be as long as it is.
        is_padded = need.kind == "padded" if need else width == room.size
        return is_padded and _within(width, room.size)
    return _within(width, room.size)


def _width(kind: Type, need: _Room | None) -> int | None:
    """Return how many characters the longest text of a value has, None where nothing says."""
    if need is None:
        labels = max(map(len, kind.labels), default=None)
        return _WIDTHS.get(kind.logical, labels if kind.logical == "enum" else None)
    if need.kind in ("text", "padded"):
        return need.size
    if need.kind != "number":
        return _FLOAT_WIDTH if need.kind == "float" else _MOMENT_WIDTH
    if need.most is None or need.scale is None:
        return None
    point = need.scale + 1 if need.scale > 0 else 0
    sign = need.least is None or need.least < 0
    return max(len(str(int(need.most))) + point + sign, _NAN_WIDTH)


def _within(value: int | None, bound: int | None) -> bool:
    return bound is None or (value is not None and value <= bound)


def _fits_number(room: _Room, need: _Room) -> bool:
    if need.kind == "float":
        return room.most is None
    if need.kind != "number" or not _within(need.scale, room.scale):
        return False
    if room.most is None or need.most is None:
        return room.most is None
    low = room.least is None or (need.least is not None and room.least <= need.least)
    return low and need.most <= room.most


def _fits_float(room: _Room, need: _Room) -> bool:
    bits = room.size or 0
    if need.kind == "float":
        return (need.size or 0) <= bits
    if need.kind != "number" or need.most is None or need.scale is None:
        return False
    digits = need.most * Fraction(10) ** need.scale
    return digits < Fraction(10 ** _EXACT[bits] if need.scale else 2**bits)


def _fits_bytes(room: _Room, need: _Room) -> bool:
    return need.kind == "bytes" and _within(need.size, room.size)


def _fits_clock(room: _Room, need: _Room) -> bool:
    if room.kind == "moment" and need.kind == "date":
        return True
    keeps_zone = room.zoned or not need.zoned
    return room.kind == need.kind and keeps_zone and _within(need.scale, room.scale)


_FITS: dict[_Kind, Callable[[_Room, _Room], bool]] = {
    "number": _fits_number,
    "float": _fits_float,
    "bytes": _fits_bytes,
    "date": _fits_clock,
    "time": _fits_clock,
    "moment": _fits_clock,
    "interval": _fits_clock,
}


def _integer(bits: int) -> _Make:
    most = 1 << bits - 1
    return lambda _: _Room("number", scale=0, least=Fraction(-most), most=Fraction(most - 1))


def _decimal(args: _Args) -> _Room:
    if not args:
        return _Room("number")
    precision, scale = (*args, 0)[:2]
    most = Fraction(10**precision - 1) / Fraction(10) ** scale
    return _Room("number", scale=scale, least=-most, most=most)


def _sized(kind: _Kind, alone: int | None = None) -> _Make:
    """Return what makes a text or bytes; `alone` is its length where the type states none."""
    return lambda args: _Room(kind, size=args[0] if args else alone)


def _clock(kind: _Kind, *, zoned: bool = False, alone: int = _MICROS) -> _Make:
    return lambda args: _Room(kind, scale=args[0] if args else alone, zoned=zoned)


def _is(room: _Room) -> _Make:
    return lambda _: room


_BOTH: dict[str, _Make] = {
    "smallint": _integer(16),
    "integer": _integer(32),
    "int": _integer(32),
    "bigint": _integer(64),
    "numeric": _decimal,
    "decimal": _decimal,
    "date": _is(_Room("date", scale=0)),
}
_POSTGRES: dict[str, _Make] = {
    **_BOTH,
    "real": _is(_Room("float", size=24)),
    "double precision": _is(_Room("float", size=53)),
    "text": _sized("text"),
    "character varying": _sized("text"),
    "name": _sized("text", 63),
    "bpchar": _sized("text"),
    "character": _sized("padded", 1),
    "bytea": _sized("bytes"),
    "time without time zone": _clock("time"),
    "time with time zone": _clock("time", zoned=True),
    "timestamp without time zone": _clock("moment"),
    "timestamp with time zone": _clock("moment", zoned=True),
    "interval": _clock("interval"),
}
_MARIADB: dict[str, _Make] = {
    **_BOTH,
    "tinyint": _integer(8),
    "mediumint": _integer(24),
    "double": _is(_Room("float", size=53)),
    "float": _is(_Room("float", size=24)),
    "char": _sized("padded", 1),
    "varchar": _sized("text"),
    "tinytext": _sized("text", 255),
    "text": _sized("text", 65_535),
    "mediumtext": _sized("text", 16_777_215),
    "longtext": _is(_Room("text")),
    "varbinary": _sized("bytes"),
    "tinyblob": _sized("bytes", 255),
    "blob": _sized("bytes", 65_535),
    "mediumblob": _sized("bytes", 16_777_215),
    "longblob": _is(_Room("bytes")),
    "time": _clock("time", alone=0),
    "datetime": _clock("moment", alone=0),
    "timestamp": _clock("moment", zoned=True, alone=0),
}
_DIALECTS = {"postgres": _POSTGRES, "mariadb": _MARIADB, "mysql": _MARIADB}
_LOGICAL: dict[str, _Room] = {
    "int16": _integer(16)(()),
    "int32": _integer(32)(()),
    "int64": _integer(64)(()),
    "float32": _Room("float", size=24),
    "float64": _Room("float", size=53),
    "date": _Room("date", scale=0),
    "time": _Room("time", scale=_MICROS),
    "timestamp": _Room("moment", scale=_MICROS),
    "timestamptz": _Room("moment", scale=_MICROS, zoned=True),
    "bytes": _Room("bytes"),
    "string": _Room("text"),
}
_SPELLED = re.compile(r"([a-z]+(?: varying| precision)?)(?:\((-?\d+)(?:,(-?\d+))?\))?([a-z ]*)")


def _room(kind: Type) -> _Room | None:
    """Return what a type has room for, by its own name, else by its logical type."""
    dialect, _, name = kind.native.partition(" ")
    if name.startswith("interval "):
        return _Room("interval", scale=-1)  # "interval day": cuts what is smaller
    found = _SPELLED.fullmatch(name)
    make = None
    if found is not None and dialect in _DIALECTS:
        zone = found[4] if found[4].endswith("time zone") else ""
        make = _DIALECTS[dialect].get(found[1] + zone)
    if make is None or found is None or "unsigned" in found[4]:
        if kind.logical == "decimal":
            return _decimal((kind.precision, kind.scale))
        return _LOGICAL.get(kind.logical)
    return make(tuple(int(digits) for digits in found.group(2, 3) if digits is not None))
