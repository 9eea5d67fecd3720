"""Values in a row image of the binary log → the canonical text of `schemas/types.py`.

`reader` makes one function per column, once per table version: (data, at) → (text, offset behind
it). It trusts its lengths: whoever reads a row checks that it did not end behind the data. A text
that is none in its character set is marked (`schemas.change.UNREADABLE`): whoever encodes refuses.

Source: MySQL 8.4 internals, "Rows Event" and `sql-common/my_decimal.cc`, `my_time.cc`, whose binary
forms MariaDB shares.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import date
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

from schemas.change import UNREADABLE
from schemas.floats import float32_text, float64_text

__all__ = [
    "Read",
    "bits",
    "decimal",
    "enumerated",
    "fixed",
    "floating",
    "inet_text",
    "integer",
    "moment",
    "prefixed",
    "set_of",
    "uuid_text",
    "year",
]

Read = Callable[[bytes, int], tuple[bytes, int]]
"""(row image, offset) → (text of the value, offset behind it)."""

_EPOCH = date(1970, 1, 1).toordinal()
_DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
_INVERTED = bytes(255 - byte for byte in range(256))


def integer(size: int, *, unsigned: bool) -> Read:
    """Read TINYINT to BIGINT: `size` bytes, little-endian."""
    signed = not unsigned

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        end = at + size
        return b"%d" % int.from_bytes(data[at:end], "little", signed=signed), end

    return read


def year(data: bytes, at: int) -> tuple[bytes, int]:
    """Read YEAR: years since 1900 in a byte, 0 for the year 0000."""
    value = data[at]
    return b"%d" % (1900 + value if value else 0), at + 1


def floating(size: int) -> Read:
    """Read FLOAT (4 bytes) or DOUBLE (8)."""
    form, text = ("<f", float32_text) if size == 4 else ("<d", float64_text)
    unpack = struct.Struct(form).unpack_from

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        return text(unpack(data, at)[0]), at + size

    return read


def decimal(precision: int, scale: int) -> Read:
    """Read DECIMAL: groups of nine digits in four bytes, big-endian, the first bit inverted."""
    lead, wholes = (precision - scale) % 9, (precision - scale) // 9
    fractions, tail = divmod(scale, 9)
    groups = [n for n in (lead, *[9] * wholes, *[9] * fractions, tail) if n]
    spans = [(_DIGIT_BYTES[digits], digits) for digits in groups]
    size = sum(span for span, _ in spans)

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        end = at + size
        negative = data[at] < 0x80
        raw = data[at:end].translate(_INVERTED) if negative else data[at:end]
        digits = _digits(bytes([raw[0] ^ 0x80]) + raw[1:], spans).rjust(scale + 1, b"0")
        whole, fraction = digits[: len(digits) - scale], digits[len(digits) - scale :]
        text = (b"-" if negative else b"") + (whole.lstrip(b"0") or b"0")
        return text + b"." + fraction if scale else text, end

    return read


def _digits(raw: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    parts, at = [], 0
    for span, digits in spans:
        parts.append(b"%0*d" % (digits, int.from_bytes(raw[at : at + span], "big")))
        at += span
    return b"".join(parts)


def bits(count: int) -> Read:
    """Read BIT(count): big-endian, as PostgreSQL writes a bit string."""
    size = (count + 7) // 8

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        value = int.from_bytes(data[at : at + size], "big")
        return format(value, f"0{count}b").encode(), at + size

    return read


def moment(kind: str, digits: int) -> Read:
    """Read "date", "time", "datetime" or "timestamp" with so many digits of a second."""
    return {"date": _date, "time": _time(digits)}.get(kind) or _datetime(kind, digits)


def _date(data: bytes, at: int) -> tuple[bytes, int]:
    value = data[at] | data[at + 1] << 8 | data[at + 2] << 16
    return b"%04d-%02d-%02d" % (value >> 9, value >> 5 & 15, value & 31), at + 3


def _fraction(micros: int) -> bytes:
    return (b".%06d" % micros).rstrip(b"0") if micros else b""


def _micros(raw: bytes) -> int:
    """Return the fraction of a second: one byte counts 10 ms, two 100 µs, three 1 µs."""
    return int.from_bytes(raw, "big") * (0, 10_000, 100, 1)[len(raw)]


def _datetime(kind: str, digits: int) -> Read:
    extra = (digits + 1) // 2
    size, text = (5, _datetime_text) if kind == "datetime" else (4, _timestamp_text)

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        middle = at + size
        value = int.from_bytes(data[at:middle], "big")
        micros = _micros(data[middle : middle + extra]) if extra else 0
        return text(value, micros), middle + extra

    return read


def _datetime_text(value: int, micros: int) -> bytes:
    """40 bits: sign, year * 13 + month (17), day (5), hour (5), minute (6), second (6)."""
    months, day = divmod(value >> 17 & 0x3FFFFF, 32)
    years, month = divmod(months, 13)
    clock = (value >> 12 & 31, value >> 6 & 63, value & 63)
    return b"%04d-%02d-%02d %02d:%02d:%02d" % (years, month, day, *clock) + _fraction(micros)


@lru_cache(maxsize=4096)
def _day(days: int) -> bytes:
    return date.fromordinal(_EPOCH + days).isoformat().encode()


def _timestamp_text(value: int, micros: int) -> bytes:
    """Seconds since 1970 UTC; no second and no fraction is the zero timestamp."""
    if not value and not micros:
        return b"0000-00-00 00:00:00+00"
    days, seconds = divmod(value, 86_400)
    clock = (seconds // 3600, seconds // 60 % 60, seconds % 60)
    return _day(days) + b" %02d:%02d:%02d" % clock + _fraction(micros) + b"+00"


def _time(digits: int) -> Read:
    """Read TIME: 24 bits above their middle, and the fraction below it (my_time_packed)."""
    extra = (digits + 1) // 2
    size = 3 + extra
    middle, scale = 1 << (size * 8 - 1), (1, 10_000, 100, 1)[extra]
    shift = 8 * extra

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        value = int.from_bytes(data[at : at + size], "big") - middle
        sign = b"-" if value < 0 else b""
        clock, part = divmod(abs(value), 1 << shift)
        parts = (clock >> 12 & 1023, clock >> 6 & 63, clock & 63)
        return sign + b"%02d:%02d:%02d" % parts + _fraction(part * scale), at + size

    return read


def _text(text: Callable[[bytes], bytes], found: bytes) -> bytes:
    """Return the text of a value; its own bytes, marked, where it is none (0x81 in cp1250)."""
    try:
        return text(found)
    except ValueError:
        return UNREADABLE + found


def fixed(size: int, text: Callable[[bytes], bytes]) -> Read:
    """Read BINARY(size) and its like: a length, then bytes whose trailing zeros may be cut."""
    wide = 1 if size < 256 else 2

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        start = at + wide
        end = start + (data[at] if wide == 1 else data[at] | data[at + 1] << 8)
        return _text(text, data[start:end].ljust(size, b"\0")), end

    return read


def prefixed(wide: int, text: Callable[[bytes], bytes] | None) -> Read:
    """Read a length of `wide` bytes, little-endian, and so many bytes."""

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        start = at + wide
        if start > len(data):
            raise IndexError
        end = start + int.from_bytes(data[at:start], "little")
        found = data[start:end]
        return (found if text is None else _text(text, found)), end

    return read


def enumerated(size: int, labels: Sequence[bytes]) -> Read:
    """Read ENUM: the place of a label, counted from 1; 0 is the empty text of an error."""
    texts = (b"", *labels)

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        place = int.from_bytes(data[at : at + size], "little")
        if place >= len(texts):
            raise ValueError(f"label {place} of {len(labels)}")
        return texts[place], at + size

    return read


def set_of(size: int, labels: Sequence[bytes]) -> Read:
    """Read SET: a bit per label."""

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        value = int.from_bytes(data[at : at + size], "little")
        if value >> len(labels):
            raise ValueError(f"a set {value:#x} of {len(labels)} labels")
        chosen = [label for place, label in enumerate(labels) if value >> place & 1]
        return b",".join(chosen), at + size

    return read


def uuid_text(raw: bytes) -> bytes:
    """Return a UUID as MariaDB prints it; the log has its bytes in that order (measured, 11.4)."""
    return str(UUID(bytes=raw)).encode()


def inet_text(raw: bytes) -> bytes:
    """Return an INET4 or INET6 as MariaDB prints it: the last four bytes of ::ffff:1.2.3.4 apart.

    Source: `sql/sql_type_inet.cc`, Inet6::to_string.
    """
    if len(raw) == 4:
        return str(IPv4Address(raw)).encode()
    tail = str(IPv4Address(raw[12:])).encode()
    if raw[:12] == bytes(10) + b"\xff\xff":
        return b"::ffff:" + tail
    if raw[:12] == bytes(12) and raw[12:14] != bytes(2):
        return b"::" + tail
    return str(IPv6Address(raw)).encode()
