"""Hypothesis strategies for tables and for the PostgreSQL text of every logical type."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from schemas.change import ABSENT, Cell
from schemas.floats import float32_text, float64_text
from schemas.table import Column, TableId, TableSchema, Type

ALPHABET = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
NASTY_NAMES = st.sampled_from(
    ["_u41_", "_u_", "_", "__u5f_", "1", "1u41_", "a b", "a.b", "Id", "id", "ID", "été", "😀", '"']
)
IDENTIFIERS = NASTY_NAMES | st.text(ALPHABET, min_size=1, max_size=20)
PLAIN_TEXT = st.text(ALPHABET, max_size=30).map(str.encode)


def _trimmed(text: str) -> bytes:
    return (text.rstrip("0") if "." in text else text).encode()


def _integers(bits: int) -> st.SearchStrategy[bytes]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).map(lambda n: b"%d" % n)


def _decimals(kind: Type) -> st.SearchStrategy[bytes]:
    limit = 10**kind.precision - 1

    def text(units: int) -> bytes:
        return f"{Decimal(units).scaleb(-kind.scale):.{kind.scale}f}".encode()

    return st.integers(-limit, limit).map(text)


_CLOCKS = st.times().map(lambda t: _trimmed(t.isoformat()))
_MOMENTS = st.datetimes(datetime.min, datetime.max)  # noqa: DTZ901 - naive, as the type is

VALUES: dict[str, st.SearchStrategy[bytes]] = {
    "boolean": st.sampled_from([b"t", b"f"]),
    "int16": _integers(16),
    "int32": _integers(32),
    "int64": _integers(64),
    "float32": st.floats(width=32).map(float32_text),
    "float64": st.floats().map(float64_text),
    "date": st.dates(date.min, date.max).map(lambda d: d.isoformat().encode()),
    "time": _CLOCKS,
    "timestamp": _MOMENTS.map(lambda t: _trimmed(t.isoformat(" "))),
    "timestamptz": _MOMENTS.map(lambda t: _trimmed(t.isoformat(" ")) + b"+00"),
    "bytes": st.binary(max_size=30).map(lambda b: b"\\x" + b.hex().encode()),
    "uuid": st.uuids().map(lambda u: str(u).encode()),
    "string": PLAIN_TEXT,
    "json": st.sampled_from([b"{}", b'{"a": 1e400}', b"null", b'"\\u0000"', b"[1, 2,  3]"]),
    "enum": PLAIN_TEXT,
    "text": PLAIN_TEXT,
}
"""Text that the native Avro form holds; decimals depend on their type."""

BEYOND: dict[str, list[bytes]] = {
    "decimal": [b"NaN", b"Infinity", b"-Infinity"],
    "date": [b"infinity", b"-infinity", b"0001-01-01 BC", b"4713-01-01 BC", b"5874897-12-31"],
    "time": [b"24:00:00"],
    "timestamp": [b"infinity", b"-infinity", b"0044-03-15 12:00:00 BC", b"294276-12-31 23:59:59"],
    "timestamptz": [
        b"infinity",
        b"-infinity",
        b"0001-12-31 23:59:59.5+00 BC",
        b"10000-01-01 00:00:00+00",
    ],
}
"""Text that is a value of the type and that its native Avro form does not hold."""

LOGICAL_NAMES = sorted([*VALUES, "decimal"])


@st.composite
def types(draw: st.DrawFn) -> Type:
    logical = draw(st.sampled_from(LOGICAL_NAMES))
    native = draw(st.sampled_from(["", f"postgres {logical}"]))
    if logical == "decimal":
        precision = draw(st.integers(1, 40))
        return Type(logical, native, precision, draw(st.integers(0, precision)))
    labels = draw(st.lists(st.text(ALPHABET), max_size=3)) if logical == "enum" else []
    return Type(logical, native, labels=tuple(labels))


def texts(kind: Type) -> st.SearchStrategy[bytes]:
    """Values of a type as PostgreSQL prints them, those without a native form among them."""
    native = _decimals(kind) if kind.logical == "decimal" else VALUES[kind.logical]
    beyond = BEYOND.get(kind.logical)
    return native | st.sampled_from(beyond) if beyond else native


@st.composite
def columns(draw: st.DrawFn, name: str) -> Column:
    return Column(
        name,
        draw(types()),
        nullable=draw(st.booleans()),
        default=draw(st.none() | st.text(ALPHABET, max_size=5)),
        generated=draw(st.booleans()),
    )


@st.composite
def tables(draw: st.DrawFn) -> TableSchema:
    names = draw(st.lists(IDENTIFIERS, min_size=1, max_size=5, unique=True))
    key = draw(st.permutations(names))[: draw(st.integers(0, len(names)))]
    attributes = draw(st.dictionaries(st.text(ALPHABET), st.text(ALPHABET), max_size=2))
    return TableSchema(
        table=TableId(draw(st.text(ALPHABET, max_size=8)), draw(IDENTIFIERS)),
        columns=tuple(draw(columns(name)) for name in names),
        key=tuple(key),
        attributes=tuple(sorted(attributes.items())),
    )


def rows(schema: TableSchema, *, absent: bool = False) -> st.SearchStrategy[tuple[Cell, ...]]:
    """Rows of a table; a key column always has a value."""
    cells: list[st.SearchStrategy[Any]] = []
    for column in schema.columns:
        values = texts(column.type)
        if column.name not in schema.key:
            values |= st.none()
            values |= st.just(ABSENT) if absent else st.none()
        cells.append(values)
    return st.tuples(*cells)
