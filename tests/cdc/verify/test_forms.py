"""Texts of one value that engines write differently, and texts that are not one value."""

from __future__ import annotations

import pytest

from cdc.verify.forms import form_of
from schemas.table import Type

SAME = [
    ("boolean", b"t", b"1"),
    ("float64", b"0.1", b"0.10000000000000001"),
    ("float64", b"1e+30", b"1000000000000000019884624838656"),
    ("decimal", b"1.10", b"1.1"),
    ("decimal", b"-0.00", b"0"),
    ("timestamp", b"2026-01-31 08:00:00.5", b"2026-01-31 08:00:00.500000"),
    ("timestamptz", b"2026-01-31 08:00:00+00", b"2026-01-31 08:00:00.000000"),
    ("timestamptz", b"2026-01-31 08:00:00+00:00", b"2026-01-31 08:00:00+00"),
    ("json", b'{"a": 1.10, "b": "1"}', b'{"b":"1","a":1.1}'),
]
OTHER = [
    ("boolean", b"t", b"f"),
    ("decimal", b"1.10", b"1.11"),
    ("decimal", b"NaN", b"0"),
    ("decimal", b"100", b"1"),
    ("timestamp", b"0044-03-15 00:00:00 BC", b"0044-03-15 00:00:00"),
    ("timestamp", b"2026-01-31 08:00:00", b"2026-01-31 08:00:10"),
    ("time", b"08:00:00.1", b"08:00:00.01"),
    ("json", b'{"a": 1}', b'{"a": "1"}'),
    ("json", b"12345678901234567890123", b"12345678901234567890124"),
]


@pytest.mark.parametrize(("logical", "one", "other"), SAME)
def test_texts_of_one_value_get_one_form(logical: str, one: bytes, other: bytes) -> None:
    form = form_of(Type(logical))
    assert form is not None
    assert form(one) == form(other)


@pytest.mark.parametrize(("logical", "one", "other"), OTHER)
def test_texts_of_two_values_keep_two_forms(logical: str, one: bytes, other: bytes) -> None:
    form = form_of(Type(logical))
    assert form is not None
    assert form(one) != form(other)


def test_a_text_is_compared_as_it_is() -> None:
    assert form_of(Type("string")) is None
