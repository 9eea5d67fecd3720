"""What a value of each of Debezium's types is as PostgreSQL text, from JSON and from Avro."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from cdc.errors import DataError
from schemas.change import ABSENT
from sinks.debezium_schema import declared, kind_of_avro, kind_of_json
from sinks.debezium_types import UNAVAILABLE, Kind, column

TIME = "io.debezium.time."
DATA = "io.debezium.data."
CONNECT = "org.apache.kafka.connect.data."


def base64(raw: bytes) -> str:
    return b64encode(raw).decode()


def text(kind: Kind, value: Any) -> Any:
    return column(kind)[1](value)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        (TIME + "Date", 0, "1970-01-01"),
        (TIME + "Date", 11016, "2000-02-29"),
        (TIME + "Date", -141432, "1582-10-10"),
        (TIME + "Date", 2932897, "10000-01-01"),
        (TIME + "Date", 2145042905, "5874897-12-31"),
        (TIME + "Date", -719163, "0001-12-31 BC"),
        (TIME + "Date", -2440588, "4714-11-24 BC"),
        (TIME + "Date", -2147472692, "infinity"),
        (TIME + "Date", -625821272, "-infinity"),
        (TIME + "IsoDate", "2024-02-29Z", "2024-02-29"),
        (CONNECT + "Date", 1, "1970-01-02"),
        (TIME + "Time", 43_200_100, "12:00:00.1"),
        (TIME + "MicroTime", 86_400_000_000, "24:00:00"),
        (TIME + "MicroTime", 1, "00:00:00.000001"),
        (TIME + "NanoTime", 1000, "00:00:00.000001"),
        (TIME + "IsoTime", "12:34:56.1200Z", "12:34:56.12"),
        (CONNECT + "Time", 1, "00:00:00.001"),
        (TIME + "ZonedTime", "12:34:56.789Z", "12:34:56.789+00"),
        (TIME + "Timestamp", -1, "1969-12-31 23:59:59.999"),
        (TIME + "MicroTimestamp", -1, "1969-12-31 23:59:59.999999"),
        (TIME + "MicroTimestamp", 9_223_372_036_825_200_000, "infinity"),
        (TIME + "MicroTimestamp", -9_223_372_036_832_400_000, "-infinity"),
        (TIME + "Timestamp", 9_223_372_036_825_200, "infinity"),
        (TIME + "MicroTimestamp", -62_135_596_800_500_000, "0001-12-31 23:59:59.5 BC"),
        (TIME + "NanoTimestamp", 1_704_067_200_100_000_000, "2024-01-01 00:00:00.1"),
        (TIME + "IsoTimestamp", "2024-01-01T00:00:00Z", "2024-01-01 00:00:00"),
        (CONNECT + "Timestamp", 1, "1970-01-01 00:00:00.001"),
        (TIME + "ZonedTimestamp", "2024-03-30T20:45:00Z", "2024-03-30 20:45:00+00"),
        (TIME + "ZonedTimestamp", "-4713-11-24T00:00:00Z", "4714-11-24 00:00:00+00 BC"),
        (
            TIME + "ZonedTimestamp",
            "+294276-12-31T23:59:59.000100Z",
            "294276-12-31 23:59:59.0001+00",
        ),
        (TIME + "ZonedTimestamp", "infinity", "infinity"),
        (TIME + "MicroDuration", -3_723_000_004, "-01:02:03.000004"),
        (TIME + "NanoDuration", 1_000, "00:00:00.000001"),
        (TIME + "Interval", "P1Y-2M3DT-4H-5M-6.789S", "P1Y-2M3DT-4H-5M-6.789S"),
        (TIME + "Year", 2024, "2024"),
        (DATA + "Json", '{"a":1}', '{"a":1}'),
        (DATA + "Enum", "a,b {}", "a,b {}"),
        (DATA + "Xml", "<a/>", "<a/>"),
        (DATA + "Ltree", "Top.Science", "Top.Science"),
        (DATA + "Tsvector", "'b':2", "'b':2"),
        (DATA + "Uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None),
        (DATA + "DoubleVector", [1.5, -2.0], "[1.5,-2]"),
        (DATA + "geometry.Point", {"x": 1e300, "y": -0.0}, "(1e+300,-0)"),
    ],
)
def test_a_logical_type_becomes_its_text(name: str, value: Any, wanted: str | None) -> None:
    assert text(Kind("any", name), value) == (wanted or value).encode()


@pytest.mark.parametrize(
    ("type_", "value", "wanted"),
    [
        ("boolean", True, b"t"),
        ("boolean", False, b"f"),
        ("int16", -32768, b"-32768"),
        ("int64", 9223372036854775807, b"9223372036854775807"),
        ("float32", 0.1, b"0.1"),
        ("float32", 3.4028235e38, b"3.4028235e+38"),
        ("float64", 1e300, b"1e+300"),
        ("float64", "NaN", b"NaN"),
        ("float64", "-Infinity", b"-Infinity"),
        ("string", "a\tb\u2028", "a\tb\u2028".encode()),
        ("map", {'a "b"': None, "c": "\\"}, rb'"a \"b\""=>NULL, "c"=>"\\"'),
    ],
)
def test_a_plain_type_becomes_its_text(type_: str, value: Any, wanted: bytes) -> None:
    assert text(Kind(type_), value) == wanted


@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize(
    ("name", "parameters", "raw", "wanted"),
    [
        ("", {}, b"\x00\xff\\", b"\\x00ff5c"),
        (CONNECT + "Decimal", {"scale": "2"}, b"\x04\xd2", b"12.34"),
        (CONNECT + "Decimal", {"scale": "3"}, b"\xff", b"-0.001"),
        (CONNECT + "Decimal", {"scale": "0"}, b"\x00", b"0"),
        (CONNECT + "Decimal", {"scale": "-2"}, b"\x07", b"700"),
        (DATA + "Bits", {"length": "10"}, b"\x05\x02", b"1000000101"),
        (DATA + "Bits", {"length": "3"}, b"", b"000"),
    ],
)
def test_bytes_are_base64_in_json_and_bytes_in_avro(
    is_json: bool,  # noqa: FBT001 - a parameter of the test
    name: str,
    parameters: dict[str, str],
    raw: bytes,
    wanted: bytes,
) -> None:
    kind = Kind("bytes", name, parameters=parameters, is_json=is_json)
    assert text(kind, base64(raw) if is_json else raw) == wanted


def test_a_decimal_keeps_every_digit_of_the_largest_number() -> None:
    digits = "9" * 16_383
    raw = 10**16_383 - 1
    unscaled = raw.to_bytes(raw.bit_length() // 8 + 1, "big", signed=True)
    kind = Kind("struct", DATA + "VariableScaleDecimal")
    assert text(kind, {"scale": 383, "value": unscaled}) == f"{digits[:-383]}.{'9' * 383}".encode()


def test_arrays_quote_what_their_reader_would_take_for_something_else() -> None:
    kind = Kind("array", items=Kind("string"))
    values = ["", None, "NULL", "a,b", 'q"', "\\", " ", "c", "{}"]
    assert text(kind, values) == rb'{"",NULL,"NULL","a,b","q\"","\\"," ",c,"{}"}'
    assert column(Kind("array", items=Kind("int32")))[0].native == "postgres integer[]"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind("string"), UNAVAILABLE),
        (Kind("string", DATA + "Json"), UNAVAILABLE),
        (Kind("bytes"), UNAVAILABLE.encode()),
        (Kind("bytes", is_json=True), base64(UNAVAILABLE.encode())),
        (Kind("array", items=Kind("string")), [UNAVAILABLE]),
        (Kind("array", items=Kind("int32")), list(UNAVAILABLE.encode())),
        (Kind("map"), {UNAVAILABLE: UNAVAILABLE}),
    ],
)
def test_the_placeholder_of_a_value_not_sent_is_absent(kind: Kind, value: Any) -> None:
    assert text(kind, value) is ABSENT


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind("int32"), "7"),
        (Kind("int32"), True),
        (Kind("boolean"), 1),
        (Kind("int64", TIME + "NanoTimestamp"), 1),
        (Kind("int32", TIME + "Date"), 2_145_042_906),
        (Kind("int64", TIME + "MicroTimestamp"), -(2**63)),
        (Kind("string", TIME + "ZonedTimestamp"), "2024-01-01T00:00:00+02:00"),
        (Kind("string", TIME + "IsoTime"), "12:00:00.1234567Z"),
        (Kind("bytes", is_json=True), "no base64!"),
        (Kind("array", items=Kind("string")), [UNAVAILABLE, "a"]),
    ],
)
def test_a_value_its_type_does_not_have_is_refused(kind: Kind, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        text(kind, value)


@pytest.mark.parametrize(
    "kind",
    [
        Kind("int64", "io.debezium.time.Lunar"),
        Kind("struct"),
        Kind("bytes", DATA + "Bits", parameters={"length": "2147483647"}),
        Kind("array", items=Kind("int32", "com.example.Money")),
    ],
)
def test_a_type_that_is_not_known_is_refused_by_name(kind: Kind) -> None:
    with pytest.raises(DataError) as failed:
        column(kind)
    assert failed.value.hint


def test_a_schema_is_the_same_kind_out_of_json_and_out_of_avro() -> None:
    json_schema = {
        "type": "struct",
        "name": "shop.public.t.Value",
        "fields": [
            {"type": "int32", "optional": False, "field": "id"},
            {"type": "int16", "optional": True, "field": "small"},
            {"type": "double", "optional": True, "field": "ratio"},
            {"type": "int32", "optional": True, "name": TIME + "Date", "field": "day"},
            {"type": "array", "items": {"type": "string", "optional": True}, "field": "words"},
        ],
    }
    avro_schema = {
        "type": "record",
        "name": "Value",
        "namespace": "shop.public.t",
        "connect.name": "shop.public.t.Value",
        "fields": [
            {"name": "id", "type": "int"},
            {"name": "small", "type": ["null", {"type": "int", "connect.type": "int16"}]},
            {"name": "ratio", "type": ["null", "double"]},
            {"name": "day", "type": ["null", {"type": "int", "connect.name": TIME + "Date"}]},
            {"name": "words", "type": {"type": "array", "items": ["null", "string"]}},
        ],
    }
    ours, theirs = kind_of_json(json_schema), kind_of_avro(avro_schema)
    assert ours.name == theirs.name
    told = [
        {
            name: (kind.type, kind.name, kind.optional, kind.items and kind.items.type)
            for name, kind in one.fields.items()
        }
        for one in (ours, theirs)
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("written", "value", "wanted"),
    [
        ("Integer", 7, b"7"),
        ("numeric(12, 2)", base64(b"\x04\xd2"), b"12.34"),
        ("numeric", {"scale": 1, "value": base64(b"\x0b")}, b"1.1"),
        ("numeric", "1.10", b"1.10"),
        ("timestamp", 1, b"1970-01-01 00:00:00.000001"),
        ("timestamp(3) without time zone", 1, b"1970-01-01 00:00:00.001"),
        ("timestamp(3) with time zone", "2024-01-01T00:00:00Z", b"2024-01-01 00:00:00+00"),
        ("character varying(40)", "x", b"x"),
        ("text[]", ["a b"], b'{"a b"}'),
        ("bit", True, b"t"),
        ("bit(3)", base64(b"\x05"), b"101"),
    ],
)
def test_a_declared_type_is_read_as_debezium_sends_it(
    written: str, value: Any, wanted: bytes
) -> None:
    assert text(declared(written), value) == wanted


def test_a_declared_type_that_is_none_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"`tekst` is not one of .*bigint"):
        declared("tekst")
