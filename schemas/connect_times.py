"""Moments, days and times of day in PostgreSQL's text → as Debezium counts or spells them.

Counts are of days, milliseconds or microseconds since 1970 or midnight, in the proleptic Gregorian
calendar, which is PostgreSQL's for all of time; texts are ISO 8601 in UTC. Each function raises
`ValueError` for a text it cannot say.
"""

from __future__ import annotations

import re
from datetime import date

__all__ = [
    "clock",
    "day",
    "interval",
    "millis_clock",
    "millis_moment",
    "moment",
    "zoned_clock",
    "zoned_moment",
]

_DAY_MICROS = 86_400_000_000
_INFINITE_DAYS = {b"infinity": -2_147_472_692, b"-infinity": -2_147_472_691}
"""What Debezium 3.6 makes of them when it reads the log (measured)."""
_INFINITE = {b"infinity": 9_223_372_036_825_200_000, b"-infinity": -9_223_372_036_832_400_000}
"""pgjdbc's milliseconds for infinity, which Debezium takes for microseconds (measured)."""
_DATE = re.compile(rb"(\d{4,})-(\d\d)-(\d\d)( BC)?")
_CLOCK = re.compile(rb"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?")
_MOMENT = re.compile(rb"(\S+) ([\d:.]+)(?:\+00)?( BC)?")
_OFFSET = re.compile(rb"([\d:.]+)([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?")


def _date_of(text: bytes) -> tuple[int, int, int]:
    """Return year, month and day; the year before 1 is 0."""
    found = _DATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no date")
    year = int(found[1])
    return (1 - year if found[4] else year), int(found[2]), int(found[3])


def day(text: bytes) -> int:
    """Return days since 1970."""
    if text in _INFINITE_DAYS:
        return _INFINITE_DAYS[text]
    year, month, of_month = _date_of(text)
    # 400 years are 146,097 days, so any year can be shifted to one that Python knows.
    eras, within = divmod(year - 1, 400)
    return date(within + 1, month, of_month).toordinal() + eras * 146_097 - 719_163


def clock(text: bytes) -> int:
    """Return microseconds since midnight; 24:00 is a time of day."""
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no time of day")
    seconds = (int(found[1]) * 60 + int(found[2])) * 60 + int(found[3])
    return seconds * 1_000_000 + int((found[4] or b"").ljust(6, b"0"))


def millis_clock(text: bytes) -> int:
    """Return milliseconds since midnight."""
    return clock(text) // 1000


def _moment_of(text: bytes) -> tuple[bytes, bytes]:
    """Return the day, with its era, and the time of day of a moment."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no moment in UTC")
    return found[1] + (found[3] or b""), found[2]


def moment(text: bytes) -> int:
    """Return microseconds since 1970."""
    if text in _INFINITE:
        return _INFINITE[text]
    found, time = _moment_of(text)
    micros = day(found) * _DAY_MICROS + clock(time)
    if not -1 << 63 <= micros < 1 << 63:
        raise ValueError(f"{text!r} is more microseconds than 64 bits hold")
    return micros


def millis_moment(text: bytes) -> int:
    """Return milliseconds since 1970."""
    return moment(text) // 1000


def _iso_clock(micros: int) -> str:
    seconds, fraction = divmod(micros, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}.{fraction:06d}"


def zoned_moment(text: bytes) -> str:
    """Return an ISO moment in UTC; years of more than four digits have a sign."""
    if text in _INFINITE:
        return text.decode()
    found, time = _moment_of(text)
    year, month, of_month = _date_of(found)
    sign = "-" if year < 0 else "+" if year > 9999 else ""
    return f"{sign}{abs(year):04d}-{month:02d}-{of_month:02d}T{_iso_clock(clock(time))}Z"


def zoned_clock(text: bytes) -> str:
    """Return an ISO time of day in UTC."""
    found = _OFFSET.fullmatch(text)
    if found is None or found[1].startswith(b"24"):
        raise ValueError(f"{text!r} is no time of day with a zone, before 24:00")
    hours, minutes, seconds = (int(part or b"0") for part in found.groups()[2:])
    offset = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000
    micros = clock(found[1]) + (-offset if found[2] == b"+" else offset)
    whole, _, fraction = _iso_clock(micros % _DAY_MICROS).partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}{'.' if fraction else ''}{fraction}Z"


_SPAN = re.compile(rb"(-?\d+) (year|mon|day)s?")
_SPAN_CLOCK = re.compile(rb"([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?$")


def interval(text: bytes) -> str:
    """Return an ISO interval in which every part is named, each with its own sign."""
    parts = {unit: int(number) for number, unit in _SPAN.findall(text)}
    months = parts.get(b"year", 0) * 12 + parts.get(b"mon", 0)
    found = _SPAN_CLOCK.search(text)
    if found is None and not parts:
        raise ValueError(f"{text!r} is no interval")
    hours, minutes, seconds, fraction = (0, 0, 0, b"") if found is None else _span_clock(found)
    sign = -1 if found is not None and found[1] == b"-" else 1
    years = abs(months) // 12 * (-1 if months < 0 else 1)
    second = f"{'-' if sign < 0 and (seconds or fraction) else ''}{seconds}"
    if fraction:
        second += f".{fraction.decode()}"
    return (
        f"P{years}Y{months - years * 12}M{parts.get(b'day', 0)}D"
        f"T{sign * hours}H{sign * minutes}M{second}S"
    )


def _span_clock(found: re.Match[bytes]) -> tuple[int, int, int, bytes]:
    return int(found[2]), int(found[3]), int(found[4]), (found[5] or b"").rstrip(b"0")
