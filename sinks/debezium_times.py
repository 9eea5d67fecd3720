"""Moments, days and times of day as Debezium counts or spells them → PostgreSQL text.

Counts are of days, milliseconds, microseconds or nanoseconds since 1970 or midnight, in the
proleptic Gregorian calendar, which is PostgreSQL's for all of time; texts are ISO 8601 in UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import Any

__all__ = [
    "clock",
    "day",
    "duration",
    "iso_clock",
    "iso_moment",
    "iso_zoned",
    "iso_zoned_clock",
    "moment",
    "scaled",
]

Text = Callable[[Any], bytes]


_INFINITE_DAYS = {
    -622_191_234: b"infinity",
    -625_821_272: b"-infinity",
    -2_147_472_692: b"infinity",
    -2_147_472_691: b"-infinity",
}
"""What Debezium 3.6 sends for them in a snapshot, and from the log (measured)."""


def day(days: int | str) -> bytes:
    """Return days since 1970, or an ISO date, as a date.

    Raises `ValueError` for a day PostgreSQL does not have: an overflow, or an infinity that is
    not told from one.
    """
    if isinstance(days, str):
        return days.removesuffix("Z").encode()
    if not -2_440_588 <= days <= 2_145_042_905:
        if days in _INFINITE_DAYS:
            return _INFINITE_DAYS[days]
        raise ValueError(f"day {days} is none that PostgreSQL has")
    # 400 years are 146,097 days, so any year can be shifted to one that Python knows.
    eras, rest = divmod(days + 719_162, 146_097)
    found = date.fromordinal(rest + 1)
    year, era = found.year + 400 * eras, ""
    if year <= 0:
        year, era = 1 - year, " BC"
    return f"{year:04d}-{found.month:02d}-{found.day:02d}{era}".encode()


def clock(micros: int) -> bytes:
    """Return microseconds as HH:MM:SS.ffffff, without the zeros at the end."""
    minutes, micros = divmod(micros, 60_000_000)
    second, micros = divmod(micros, 1_000_000)
    text = b"%02d:%02d:%02d" % (*divmod(minutes, 60), second)
    return text + (b".%06d" % micros).rstrip(b"0") if micros else text


def moment(micros: int) -> bytes:
    """Return microseconds since 1970 as a timestamp."""
    if micros in _INFINITE:
        return _INFINITE[micros]
    days, rest = divmod(micros, 86_400_000_000)
    date_, space, era = day(days).partition(b" ")
    return date_ + b" " + clock(rest) + space + era


_INFINITE = {9_223_372_036_825_200_000: b"infinity", -9_223_372_036_832_400_000: b"-infinity"}
"""pgjdbc's milliseconds for infinity, which Debezium takes for microseconds."""


def scaled(to: Text, factor: int, iso: Text) -> Text:
    """Return a reader of counts of another unit: `factor` > 0 multiplies, < 0 divides exactly."""

    def text(value: int | str) -> bytes:
        if isinstance(value, str):
            return iso(value)
        if factor > 0:
            return to(value * factor)
        whole, rest = divmod(value, -factor)
        if rest:
            raise ValueError(f"{value} ns are no whole microseconds")
        return to(whole)

    return text


_ISO = re.compile(r"([+-]?\d+)-(\d\d-\d\d)T(\d\d:\d\d)(:\d\d)?(?:\.(\d+))?(Z?)")
_ISO_CLOCK = re.compile(r"(\d\d:\d\d)(:\d\d)?(?:\.(\d+))?(Z|[+-]\d\d(?::\d\d)*)?")


def _fraction(digits: str | None) -> str:
    """Return a fraction of a second, to microseconds. Raises `ValueError` for a finer one."""
    kept = (digits or "").rstrip("0")
    if len(kept) > 6:
        raise ValueError(f".{digits} s is finer than a microsecond")
    return f".{kept}" if kept else ""


def iso_moment(value: str, *, zone: str = "") -> bytes:
    """Return an ISO moment in UTC as a timestamp, `zone` behind it."""
    if value in ("infinity", "-infinity"):
        return value.encode()
    found = _ISO.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is no moment in UTC")
    year, era = int(found[1]), ""
    if year <= 0:
        year, era = 1 - year, " BC"
    clock = f"{found[3]}{found[4] or ':00'}{_fraction(found[5])}"
    return f"{year:04d}-{found[2]} {clock}{zone}{era}".encode()


def iso_zoned(value: str) -> bytes:
    """Return an ISO moment in UTC as a timestamp with time zone."""
    return iso_moment(value, zone="+00")


def iso_clock(value: str, *, zoned: bool = False) -> bytes:
    """Return an ISO time of day, its zone left out unless `zoned`."""
    found = _ISO_CLOCK.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is no time of day")
    zone = (found[4] or "Z").replace("Z", "+00") if zoned else ""
    return f"{found[1]}{found[2] or ':00'}{_fraction(found[3])}{zone}".encode()


def iso_zoned_clock(value: str) -> bytes:
    """Return an ISO time of day with its zone."""
    return iso_clock(value, zoned=True)


def duration(micros: int) -> bytes:
    """Return microseconds as an interval of hours."""
    sign = b"-" if micros < 0 else b""
    return sign + clock(abs(micros))
