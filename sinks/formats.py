"""How a value is written in the source: dates, decimals, yes and no, units.

`format:` says it for the type that `as:` names:

| `as:` | `format:` |
|---|---|
| date, time, timestamp(tz) | as Python's `strptime`; or `epoch_s`, `epoch_ms`, `epoch_us` |
| numeric, float, and integers | an example: `1.234,56`, `1,234.56`, `1 234,56`, `1'234.56` |
| bool | `yes|y/no|n`: what stands before the slash is true; in any case |

`unit: g->kg` converts a number exactly, in decimal digits; `scale: 2` rounds it, half to even.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation

from cdc.errors import DataError
from sinks.cast import Convert

__all__ = ["NUMBERS", "formatted", "rounded", "unit_converter"]

_Show = Callable[[datetime], str]


def _trimmed(text: str, moment: datetime) -> str:
    return text.rstrip("0") if moment.microsecond else text


def _naive(moment: datetime) -> str:
    return _trimmed(moment.replace(tzinfo=None).isoformat(" "), moment)


_MOMENTS: dict[str, _Show] = {
    "date": lambda moment: moment.date().isoformat(),
    "time": lambda moment: _trimmed(moment.time().isoformat(), moment),
    "timestamp": _naive,
    "timestamptz": lambda moment: _naive(moment) + "+00",
}
NUMBERS = ("numeric", "float", "int", "bigint", "smallint")
"""Casts whose format is an example; what is read then is a decimal, cast further."""
_EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1000, "epoch_us": 1}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXAMPLE = re.compile(r"1([., ']?)234([.,])56")
_EXACT = Context(prec=60)

_UNITS: dict[str, dict[str, str]] = {
    "mass": {"mg": "0.000001", "g": "0.001", "kg": "1", "t": "1000", "lb": "0.45359237",
             "oz": "0.028349523125"},
    "length": {"mm": "0.001", "cm": "0.01", "m": "1", "km": "1000", "in": "0.0254",
               "ft": "0.3048", "yd": "0.9144", "mi": "1609.344"},
    "volume": {"ml": "0.001", "l": "1", "m3": "1000"},
    "time": {"ms": "0.001", "s": "1", "min": "60", "h": "3600", "d": "86400"},
    "data": {"B": "1", "kB": "1000", "MB": "1000000", "GB": "1000000000", "KiB": "1024",
             "MiB": "1048576", "GiB": "1073741824"},
    "money": {"cent": "0.01", "unit": "1"},
    "part": {"percent": "0.01", "permille": "0.001", "ratio": "1"},
}  # fmt: skip
"""Units by what they measure, each in the one that is 1. The international yard and pound, 1959."""


def formatted(cast: str, form: str) -> Convert:
    """Return the function on text written as `form`. Raises `ValueError` for no such format."""
    if cast in _MOMENTS:
        return _moment(cast, form)
    if cast in NUMBERS:
        return _number(form)
    if cast == "bool":
        return _truth(form)
    raise ValueError(f"`format` is for {', '.join([*_MOMENTS, *NUMBERS, 'bool'])}, not {cast}")


def _moment(cast: str, form: str) -> Convert:
    show = _MOMENTS[cast]
    if form in _EPOCHS:
        read = _since(_EPOCHS[form])
    elif "%" in form:
        read = _parsed(form)
    else:
        raise ValueError(f"`format: {form}` has no %, and is none of {', '.join(_EPOCHS)}")

    def convert(text: bytes) -> bytes:
        moment = read(text)
        return show(moment.astimezone(UTC) if moment.tzinfo else moment).encode()

    return convert


def _since(micros: int) -> Callable[[bytes], datetime]:
    def read(text: bytes) -> datetime:
        try:
            return _EPOCH + timedelta(microseconds=int(Decimal(text.decode()) * micros))
        except (InvalidOperation, ValueError, OverflowError) as error:
            raise DataError(f"{text.decode(errors='replace')!r} is no time since 1970") from error

    return read


def _parsed(form: str) -> Callable[[bytes], datetime]:
    def read(text: bytes) -> datetime:
        try:
            return datetime.strptime(text.decode(), form)  # noqa: DTZ007 - the format's own zone
        except ValueError as error:
            raise DataError(f"{text.decode()!r} is not written as {form}") from error

    return read


def _number(form: str) -> Convert:
    found = _EXAMPLE.fullmatch(form)
    if found is None or found[1] == found[2]:
        raise ValueError(f"`format: {form}` is no example as 1.234,56")
    group, point = found[1].encode(), found[2].encode()
    valid = re.compile(rb"[+-]?\d+(?:%s\d{3})*(?:%s\d+)?" % (re.escape(group), re.escape(point)))

    def convert(text: bytes) -> bytes:
        if valid.fullmatch(text.strip()) is None:
            raise DataError(f"{text.decode()!r} is not written as {form}")
        plain = text.strip().replace(group, b"") if group else text.strip()
        return plain.replace(point, b".").removeprefix(b"+")

    return convert


def _truth(form: str) -> Convert:
    true, slash, false = form.partition("/")
    words = {word.casefold().encode(): b"t" for word in true.split("|")}
    words |= {word.casefold().encode(): b"f" for word in false.split("|")}
    if not slash or b"" in words or len(words) < 2:
        raise ValueError(f"`format: {form}` does not say true/false, as yes|y/no|n does")

    def convert(text: bytes) -> bytes:
        found = words.get(text.decode().strip().casefold().encode())
        if found is None:
            raise DataError(f"{text.decode()!r} is neither {true} nor {false}")
        return found

    return convert


def _as_decimal(text: bytes) -> Decimal:
    try:
        return Decimal(text.decode())
    except InvalidOperation as error:
        raise DataError(f"{text.decode(errors='replace')!r} is no number") from error


def unit_converter(change: str) -> Convert:
    """Return the function for `g->kg`. Raises `ValueError` for units that do not convert."""
    old, arrow, new = (part.strip() for part in change.partition("->"))
    table = next((units for units in _UNITS.values() if old in units and new in units), None)
    if not arrow or table is None:
        raise ValueError(f"`unit: {change}` is none of {_said()}")
    factor, divisor = Decimal(table[old]), Decimal(table[new])

    def convert(text: bytes) -> bytes:
        number = _as_decimal(text)
        if not number.is_finite():
            return text
        found = _EXACT.divide(_EXACT.multiply(number, factor), divisor)
        plain = format(found, "f")
        return (plain.rstrip("0").rstrip(".") if "." in plain else plain).encode()

    return convert


def _said() -> str:
    return "; ".join(", ".join(units) for units in _UNITS.values())


def rounded(scale: int) -> Convert:
    """Return the function that keeps `scale` digits behind the point."""
    step = Decimal(1).scaleb(-scale)

    def convert(text: bytes) -> bytes:
        number = _as_decimal(text)
        if not number.is_finite():
            return text
        try:
            return format(number.quantize(step, ROUND_HALF_EVEN, _EXACT), "f").encode()
        except InvalidOperation as error:
            raise DataError(f"{text.decode()} has too many digits") from error

    return convert
