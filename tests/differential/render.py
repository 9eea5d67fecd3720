"""Debezium's JSON values as PostgreSQL would print them, by type of column.

Both sides describe one value: Debezium as a number or a text of its own, we as PostgreSQL text
behind the envelope. None of these is a difference between the two; those are in `compare`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from datetime import date, time
from typing import Any

Render = Callable[[Any], str]

_DATE = re.compile(r"(\d+)-(\d\d)-(\d\d)( BC)?")
_MOMENT = re.compile(r"(\d+-\d\d-\d\d) (\d\d:\d\d:\d\d)\.?(\d*)(?:\+00)?( BC)?")
_ISO = re.compile(r"([+-]?\d+)-(\d\d-\d\d)T([\d:.]+)Z")
_ISO_SPAN = re.compile(r"P(-?\d+)Y(-?\d+)M(-?\d+)DT(-?\d+)H(-?\d+)M(-?[\d.]+)S")
_SPAN = re.compile(r"(-?\d+) (year|mon|day)s?")
_CLOCK = re.compile(r"([+-]?)(\d+):(\d\d):(\d\d(?:\.\d+)?)$")
_UNQUOTED = re.compile(r"[^\s{}\",\\]+")


def printed_days(text: str) -> str:
    """Days from 1970 of a date PostgreSQL prints, in the calendar it uses for all of time."""
    found = _DATE.fullmatch(text)
    if found is None:
        return text
    year = 1 - int(found[1]) if found[4] else int(found[1])
    return str(_days(year, int(found[2]), int(found[3])))


def _days(year: int, month: int, day: int) -> int:
    """As `date.toordinal`, for any year: 400 years are 146,097 days."""
    eras, within = divmod(year - 1, 400)
    return date(within + 1, month, day).toordinal() + eras * 146_097 - 719_163


def printed_micros(text: str) -> str:
    """Microseconds from 1970 of a timestamp PostgreSQL prints."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        return text
    days = int(printed_days(found[1] + (found[4] or "")))
    clock = time.fromisoformat(found[2])
    seconds = (clock.hour * 60 + clock.minute) * 60 + clock.second
    return str((days * 86_400 + seconds) * 1_000_000 + int((found[3] or "").ljust(6, "0")))


def zoned(value: Any) -> str:
    """The same of an ISO text in UTC, whose years may have a sign and more digits."""
    found = _ISO.fullmatch(value)
    if found is None:
        return str(value)
    year = int(found[1])
    era = f"{1 - year:04d}" if year <= 0 else f"{year:04d}"
    suffix = " BC" if year <= 0 else ""
    return printed_micros(f"{era}-{found[2]} {found[3]}{suffix}")


def clock(value: Any) -> str:
    """A time of day; PostgreSQL's last one is 24:00."""
    minutes, micros = divmod(int(value), 60_000_000)
    seconds, micros = divmod(micros, 1_000_000)
    text = f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}.{micros:06d}"
    return text.rstrip("0").rstrip(".")


def span(value: Any) -> str:
    """An ISO interval as months, days and microseconds."""
    found = _ISO_SPAN.fullmatch(value)
    assert found is not None, value
    years, months, whole_days, hours, minutes = map(int, found.groups()[:5])
    seconds = round(float(found[6]) * 1_000_000)
    return f"{years * 12 + months} {whole_days} {(hours * 60 + minutes) * 60_000_000 + seconds}"


def printed_span(text: str) -> str:
    """The same of what PostgreSQL prints."""
    months = total = 0
    found = {"year": 0, "mon": 0, "day": 0}
    for number, unit in _SPAN.findall(text):
        found[unit] = int(number)
    months = found["year"] * 12 + found["mon"]
    rest = _CLOCK.search(text)
    if rest is not None:
        sign = -1 if rest[1] == "-" else 1
        seconds = round(float(rest[4]) * 1_000_000)
        total = sign * ((int(rest[2]) * 60 + int(rest[3])) * 60_000_000 + seconds)
    return f"{months} {found['day']} {total}"


def array(value: Any) -> str:
    return "{" + ",".join(_element(one) for one in value) + "}"


def _element(one: Any) -> str:
    if one is None:
        return "NULL"
    text = str(one)
    if _UNQUOTED.fullmatch(text) and text.upper() != "NULL":
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def number(value: Any) -> str:
    return repr(float(value))


def single(value: Any) -> str:
    return repr(struct.unpack("f", struct.pack("f", float(value)))[0])


def plain_text(value: Any) -> str:
    return str(value)


RENDER: dict[str, Render] = {
    "flag": lambda value: "t" if value else "f",
    "atz": zoned,
    "clock": clock,
    "span": span,
    "list": array,
    "words": array,
    "raw": lambda value: "\\x" + value,
    "ratio": number,
    "single": single,
}
"""Column → how Debezium's value prints; other columns are text or whole numbers already."""

PRINTED: dict[str, Render] = {
    "ratio": number,
    "single": single,
    "span": printed_span,
    "day": printed_days,
    "at": printed_micros,
    "atz": printed_micros,
}
"""Column → the same of what PostgreSQL prints, where that has several spellings of one value."""


def theirs(column: str, value: Any) -> str | None:
    """Return Debezium's value in the common form."""
    return None if value is None else RENDER.get(column, plain_text)(value)


def ours(column: str, text: str | None) -> str | None:
    """Return PostgreSQL's text in the common form."""
    return None if text is None else PRINTED.get(column, plain_text)(text)
