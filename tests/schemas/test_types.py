"""Text → Avro → text, for every logical type, against fastavro as an independent reader."""

from __future__ import annotations

import io
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from schema_strategies import BEYOND, LOGICAL_NAMES, VALUES, texts, types
from schemas.avro import raw_schema
from schemas.table import Type
from schemas.types import LOGICAL, avro_long, avro_text


def avro_reads(schema: Any, data: bytes) -> Any:
    stream = io.BytesIO(data)
    value = schemaless_reader(stream, parse_schema(schema), None)
    assert stream.read() == b""
    return value


@given(st.data())
def test_every_value_comes_back_as_its_own_text(data: st.DataObject) -> None:
    kind = data.draw(types())
    text = data.draw(texts(kind))
    logical = LOGICAL[kind.logical]
    encoded = logical.encode(kind)(text)
    if encoded is None:
        assert text in BEYOND[kind.logical]
        assert logical.lossy
        return
    value = avro_reads(raw_schema(logical.avro(kind)), encoded)
    assert logical.decode(kind)(value) == text


@given(st.data())
def test_what_fastavro_writes_decodes_to_the_same_text(data: st.DataObject) -> None:
    kind = data.draw(types())
    text = data.draw(texts(kind))
    schema = parse_schema(raw_schema(LOGICAL[kind.logical].avro(kind)))
    encoded = LOGICAL[kind.logical].encode(kind)(text)
    if encoded is None:
        return
    stream = io.BytesIO()
    schemaless_writer(stream, schema, avro_reads(schema, encoded))
    again = avro_reads(schema, stream.getvalue())
    assert LOGICAL[kind.logical].decode(kind)(again) == text


@pytest.mark.parametrize(("logical", "text"), [(k, t) for k, ts in BEYOND.items() for t in ts])
def test_a_value_beyond_the_native_form_is_left_to_the_exact_map(logical: str, text: bytes) -> None:
    kind = Type(logical, precision=10, scale=2)
    assert LOGICAL[logical].encode(kind)(text) is None


def test_every_logical_type_is_generated_here() -> None:
    assert sorted(LOGICAL) == LOGICAL_NAMES


def test_only_types_with_values_beyond_are_called_lossy() -> None:
    assert {name for name, logical in LOGICAL.items() if logical.lossy} == set(BEYOND)
    assert set(BEYOND) - {"decimal"} <= set(VALUES)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        (b"0.00", 0),
        (b"-0.01", -1),
        (b"12.30", 1230),
        (b"-128.00", -12800),
        (b"99999999.99", 9999999999),
    ],
)
def test_a_decimal_is_its_unscaled_number(text: bytes, units: int) -> None:
    kind = Type("decimal", precision=10, scale=2)
    encoded = LOGICAL["decimal"].encode(kind)(text)
    assert encoded is not None
    value = avro_reads({"type": "bytes"}, encoded)
    assert int.from_bytes(value, "big", signed=True) == units
    assert LOGICAL["decimal"].decode(kind)(value) == text


@pytest.mark.parametrize("logical", ["string", "text", "json", "enum", "uuid"])
def test_text_that_is_not_utf_8_is_refused_not_corrupted(logical: str) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        LOGICAL[logical].encode(Type(logical))(b"caf\xe9")


def test_a_thousand_digits_pass_through_a_decimal() -> None:
    kind = Type("decimal", precision=1000, scale=500)
    text = b"9" * 500 + b"." + b"1" * 500
    encoded = LOGICAL["decimal"].encode(kind)(text)
    assert encoded is not None
    assert LOGICAL["decimal"].decode(kind)(avro_reads({"type": "bytes"}, encoded)) == text


def test_a_decimal_with_more_digits_than_its_scale_is_not_rounded() -> None:
    assert LOGICAL["decimal"].encode(Type("decimal", precision=5, scale=1))(b"1.25") is None


def test_a_moment_with_another_offset_is_the_same_moment() -> None:
    encode = LOGICAL["timestamptz"].encode(Type("timestamptz"))
    assert encode(b"2024-03-10 02:30:00+02:30") == encode(b"2024-03-10 00:00:00+00")


@given(st.integers(-(2**63), 2**63 - 1))
def test_avro_long_is_what_fastavro_reads(value: int) -> None:
    assert avro_reads({"type": "long"}, avro_long(value)) == value


@given(st.binary(max_size=300))
def test_avro_text_is_what_fastavro_reads(value: bytes) -> None:
    assert avro_reads({"type": "bytes"}, avro_text(value)) == value


@pytest.mark.parametrize(
    ("logical", "micros"),
    [("timestamp", 2**62), ("timestamptz", -(2**62)), ("date", 2**40), ("timestamp", 2**63 - 1)],
)
def test_a_foreign_moment_no_calendar_has_is_a_value_error(logical: str, micros: int) -> None:
    with pytest.raises(ValueError, match="outside the years"):
        LOGICAL[logical].decode(Type(logical))(micros)
