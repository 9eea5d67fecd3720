"""The one list of logical types: what a value of each looks like as text and in Avro.

The text of a value is PostgreSQL's output with pinned settings (R9); every source brings its
values to that text or, in compiled readers, straight to the Avro form below. The Avro form is a
native one where it holds every value a consumer can expect; the few values outside (numeric NaN,
±infinity, BC and years past 9999, 24:00) encode to `None`: the column is then null and the text
goes into the envelope's `exact` map (R13). Everything without a native form is its text.

Adding a type is one line in `LOGICAL`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from schemas.floats import float32_text, float64_text
from schemas.table import Type

__all__ = ["LOGICAL", "AvroValue", "Decode", "Encode", "Logical", "avro_long", "avro_text"]

AvroValue = None | bool | int | float | bytes | str
Encode = Callable[[bytes], bytes | None]
"""Text → Avro binary of the bare type; None when the type cannot hold the value."""
Decode = Callable[[Any], bytes]
"""Avro value as fastavro reads it without logical types → text; `ValueError` for one that is none.

Only foreign producers write such values (a year past 9999 as microseconds).
"""

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive, as timestamp without time zone is
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_MICROSECOND = timedelta(microseconds=1)
_CACHED = 1 << 13


class Logical(msgspec.Struct, frozen=True):
    """One logical type.

    `avro` makes the bare Avro schema, `encode` and `decode` make the per-column functions, once
    per schema. `lossy` says that some values have no native form; such a column is text in keys.
    """

    avro: Callable[[Type], dict[str, Any]]
    encode: Callable[[Type], Encode]
    decode: Callable[[Type], Decode]
    lossy: bool = False


def _zigzag(value: int) -> bytes:
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_LONGS = tuple(_zigzag(value) for value in range(_CACHED))


def avro_long(value: int) -> bytes:
    """Return `value` as Avro int or long: zigzag base 128 (Avro specification, binary encoding)."""
    return _LONGS[value] if 0 <= value < _CACHED else _zigzag(value)


def avro_text(value: bytes) -> bytes:
    """Return UTF-8 text, or bytes, as Avro string or bytes: length, then the bytes."""
    return avro_long(len(value)) + value


def _encode_text(value: bytes) -> bytes:
    """Refuse what is not UTF-8 (`ValueError`): a SQL_ASCII database, a "char" before 16."""
    if not value.isascii():
        value.decode()
    return avro_text(value)


def _encode_bool(value: bytes) -> bytes:
    return b"\x01" if value == b"t" else b"\x00"


def _decode_bool(value: bool) -> bytes:  # noqa: FBT001 - the value itself
    return b"t" if value else b"f"


def _encode_int(value: bytes) -> bytes:
    return avro_long(int(value))


def _decode_int(value: int) -> bytes:
    return b"%d" % value


def _encode_float32(value: bytes) -> bytes:
    try:
        return struct.pack("<f", float(value))
    except OverflowError:
        raise ValueError(f"{value!r} is no float4") from None


def _encode_float64(value: bytes) -> bytes:
    return struct.pack("<d", float(value))


def _encode_decimal(kind: Type) -> Encode:
    scale = kind.scale

    def encode(value: bytes) -> bytes | None:
        whole, _, fraction = value.partition(b".")
        if len(fraction) > scale:
            return None
        try:
            number = int(whole + fraction.ljust(scale, b"0"))
        except ValueError:  # NaN, Infinity, -Infinity
            return None
        return avro_text(number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))

    return encode


def _decode_decimal(kind: Type) -> Decode:
    scale = kind.scale

    def decode(value: bytes) -> bytes:
        number = int.from_bytes(value, "big", signed=True)
        if not scale:
            return b"%d" % number
        digits = b"%d" % abs(number)
        digits = digits.rjust(scale + 1, b"0")
        sign = b"-" if number < 0 else b""
        return sign + digits[:-scale] + b"." + digits[-scale:]

    return decode


def _encode_date(value: bytes) -> bytes | None:
    try:
        return avro_long(date.fromisoformat(value.decode()).toordinal() - _EPOCH_DAY)
    except ValueError:  # infinity, BC, years past 9999
        return None


def _decode_date(value: int) -> bytes:
    try:
        return date.fromordinal(value + _EPOCH_DAY).isoformat().encode()
    except (ValueError, OverflowError):
        raise ValueError(f"day {value} lies outside the years 1 to 9999") from None


def _encode_time(value: bytes) -> bytes | None:
    if value.startswith(b"24"):
        return None
    micros = (int(value[:2]) * 60 + int(value[3:5])) * 60_000_000 + int(value[6:8]) * 1_000_000
    return avro_long(micros + int(value[9:].ljust(6, b"0")))


def _decode_time(value: int) -> bytes:
    seconds, micros = divmod(value, 1_000_000)
    minutes, second = divmod(seconds, 60)
    clock = b"%02d:%02d:%02d" % (*divmod(minutes, 60), second)
    return clock + (b".%06d" % micros).rstrip(b"0") if micros else clock


def _encode_timestamp(value: bytes) -> bytes | None:
    try:
        since = datetime.fromisoformat(value.decode()) - _EPOCH
    except (ValueError, TypeError):  # infinity, BC, years past 9999; a zone where none belongs
        return None
    return avro_long(since // _MICROSECOND)


def _encode_timestamptz(value: bytes) -> bytes | None:
    try:
        since = datetime.fromisoformat(value.decode()) - _EPOCH_UTC
    except (ValueError, TypeError):  # as above
        return None
    return avro_long(since // _MICROSECOND)


def _decode_timestamp(value: int) -> bytes:
    try:
        moment = _EPOCH + timedelta(microseconds=value)
    except OverflowError:
        raise ValueError(f"microsecond {value} lies outside the years 1 to 9999") from None
    text = moment.isoformat(" ")
    return (text.rstrip("0") if moment.microsecond else text).encode()


def _decode_timestamptz(value: int) -> bytes:
    return _decode_timestamp(value) + b"+00"


def _encode_bytes(value: bytes) -> bytes:
    return avro_text(bytes.fromhex(value[2:].decode()))


def _decode_bytes(value: bytes) -> bytes:
    return b"\\x" + value.hex().encode()


def _always(function: Any) -> Callable[[Type], Any]:
    return lambda _: function


def _bare(name: str, logical_type: str = "") -> Callable[[Type], dict[str, Any]]:
    schema = {"type": name, "logicalType": logical_type} if logical_type else {"type": name}
    return lambda _: dict(schema)


def _decimal_schema(kind: Type) -> dict[str, Any]:
    return {
        "type": "bytes",
        "logicalType": "decimal",
        "precision": kind.precision,
        "scale": kind.scale,
    }


def _as_text(logical_type: str = "") -> Logical:
    schema = _bare("string", logical_type)
    return Logical(schema, _always(_encode_text), _always(str.encode))


def _integer(avro: str) -> Logical:
    return Logical(_bare(avro), _always(_encode_int), _always(_decode_int))


def _lossy(schema: Callable[[Type], dict[str, Any]], encode: Encode, decode: Decode) -> Logical:
    return Logical(schema, _always(encode), _always(decode), lossy=True)


LOGICAL: dict[str, Logical] = {
    "boolean": Logical(_bare("boolean"), _always(_encode_bool), _always(_decode_bool)),
    "int16": _integer("int"),
    "int32": _integer("int"),
    "int64": _integer("long"),
    "float32": Logical(_bare("float"), _always(_encode_float32), _always(float32_text)),
    "float64": Logical(_bare("double"), _always(_encode_float64), _always(float64_text)),
    "decimal": Logical(_decimal_schema, _encode_decimal, _decode_decimal, lossy=True),
    "date": _lossy(_bare("int", "date"), _encode_date, _decode_date),
    "time": _lossy(_bare("long", "time-micros"), _encode_time, _decode_time),
    "timestamp": _lossy(
        _bare("long", "local-timestamp-micros"), _encode_timestamp, _decode_timestamp
    ),
    "timestamptz": _lossy(
        _bare("long", "timestamp-micros"), _encode_timestamptz, _decode_timestamptz
    ),
    "bytes": Logical(_bare("bytes"), _always(_encode_bytes), _always(_decode_bytes)),
    "uuid": _as_text("uuid"),
    "string": _as_text(),
    "json": _as_text(),
    "enum": _as_text(),
    "text": _as_text(),
}
"""`text` is the type of everything whose only exact form is PostgreSQL text."""
