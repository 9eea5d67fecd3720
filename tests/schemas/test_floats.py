"""The text of floats is PostgreSQL's own, digit for digit, over all sizes."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from schemas.floats import float32_text, float64_text

SEED = 20_240_229


def narrowed(value: float) -> float:
    found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return found


def of_any_bits(chance: random.Random, kind: str, count: int) -> list[float]:
    size = struct.calcsize(kind)
    return [struct.unpack(kind, chance.randbytes(size))[0] for _ in range(count)]


def float64_values() -> list[float]:
    chance = random.Random(SEED)  # noqa: S311 - repeatable, not secret
    special = [0.0, -0.0, 5e-324, 1e23, 1e15, 1e16, 9007199254740993.0, 123456789012345.6]
    scaled = [chance.random() * 10.0 ** chance.randint(-6, 40) for _ in range(5_000)]
    integers = [float(chance.randint(0, 10**20)) for _ in range(5_000)]
    powers = [2.0**n for n in range(-1074, 1024)]
    values = [*special, *scaled, *integers, *powers, *of_any_bits(chance, "<d", 5_000)]
    return [*values, float("inf"), float("-inf"), float("nan")]


def float32_values() -> list[float]:
    chance = random.Random(SEED)  # noqa: S311 - as above
    special = [0.0, -0.0, 999999.5, 1000000.0, 16777217.0, 3.4028234663852886e38]
    scaled = [chance.random() * 10.0 ** chance.randint(-8, 20) for _ in range(5_000)]
    small = [struct.unpack("<f", struct.pack("<I", n))[0] for n in range(1, 2_000)]
    powers = [2.0**n for n in range(-149, 128)]
    narrow = [narrowed(value) for value in [*special, *scaled, *powers]]
    values = [*narrow, *small, *of_any_bits(chance, "<f", 5_000)]
    return [*values, float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [("float8", float64_values, float64_text), ("float4", float32_values, float32_text)],
)
def test_a_float_is_written_as_the_server_writes_it(
    postgres: Any, kind: str, values: Callable[[], list[float]], text: Callable[[float], bytes]
) -> None:
    numbers = values()
    with psycopg.connect(postgres.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMP TABLE floats (place int, v {kind})")
        with cursor.copy("COPY floats FROM STDIN") as copy:
            for place, number in enumerate(numbers):
                copy.write(f"{place}\t{number!r}\n")
        printed = cursor.execute("SELECT v::text FROM floats ORDER BY place").fetchall()
    assert [text(number).decode() for number in numbers] == [found for (found,) in printed]
