"""Floating point numbers → PostgreSQL's text: the shortest digits that give the number back.

PostgreSQL 12 and later (extra_float_digits > 0) print in plain notation for exponents from -4 to
14 (float8) or 5 (float4), and never take a decimal that lies exactly between two numbers, which
round-half-even would accept: `src/common/d2s.c`, `f2s.c`. Python's `repr` differs in both.
"""

from __future__ import annotations

import math

__all__ = ["float32_text", "float64_text"]

_PLAIN_BELOW = 1e15
_ALL_INTEGERS_BELOW = 2.0**53
_SMALLEST_NORMAL = 2.0**-126


def float64_text(value: float) -> bytes:
    """Return what PostgreSQL prints for a float8."""
    size = abs(value)
    if size < _PLAIN_BELOW:
        return repr(value).removesuffix(".0").encode()
    if not math.isfinite(value):
        return _special(value)
    if size < _ALL_INTEGERS_BELOW:
        return _scientific(repr(value).removesuffix(".0"))
    return _large(value)


def float32_text(value: float) -> bytes:
    """Return what PostgreSQL prints for a float4; Avro readers hand us a wider float."""
    if not math.isfinite(value):
        return _special(value)
    if not value:
        return repr(value).removesuffix(".0").encode()
    size = abs(value)
    fraction, exponent = math.frexp(size)
    above = math.ldexp(0.5, max(exponent, -125) - 24)  # half of the way to the next float4
    below = above / 2 if fraction == 0.5 and exponent > -125 else above
    # Six digits tell all normal float4 apart: fewer need no search, %g drops trailing zeros.
    for digits in range(6 if size >= _SMALLEST_NORMAL else 1, 9):
        text = f"{value:.{digits}g}"
        if not -below < abs(float(text)) - size and below < above:
            text = f"{value + math.copysign(above * 0.9, value):.{digits}g}"
        if -below < abs(float(text)) - size < above:
            break
    else:
        text = f"{value:.9g}"
    return text.encode() if "e" in text or size < 1e6 else _scientific(text)


def _large(value: float) -> bytes:
    """Write a float8 of at least 2**53: an integer, so that midpoints can be told exactly."""
    exact = int(abs(value))
    text = repr(value)
    digits = len(_head(text).replace(".", ""))
    while 2 * abs(_whole(text) - exact) == int(math.ulp(value)):
        text = f"{value:.{digits}e}"
        digits += 1
    return text.encode() if "e" in text else _scientific(text)


def _head(text: str) -> str:
    return text.lstrip("-").partition("e")[0].removesuffix(".0")


def _whole(text: str) -> int:
    """Return the size of an integral float's text, exactly."""
    head = _head(text)
    power = int(text.partition("e")[2] or 0)
    scaled = int(head.replace(".", "") + "0" * power)
    whole: int = scaled // 10 ** len(head.partition(".")[2])
    return whole


def _special(value: float) -> bytes:
    if math.isnan(value):
        return b"NaN"
    return b"Infinity" if value > 0 else b"-Infinity"


def _scientific(plain: str) -> bytes:
    """Return "-1234567.5" as -1.2345675e+06."""
    sign, number = ("-", plain[1:]) if plain[0] == "-" else ("", plain)
    whole, _, fraction = number.partition(".")
    rest = (whole[1:] + fraction).rstrip("0")
    point = "." if rest else ""
    return f"{sign}{whole[0]}{point}{rest}e+{len(whole) - 1:02d}".encode()
