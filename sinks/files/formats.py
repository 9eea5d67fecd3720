"""Rows → the bytes of one file, in the formats a file may have.

Parquet has types of its own, JSON numbers and booleans; whatever a format has no exact form for is
the text that travels. Parquet holds no infinite dates, no years before Christ, no 24:00 and no NaN
among decimals: such a row is refused, and its column kept whole by `as: text` in the mapping.

Sources: parquet.apache.org "Logical Types"; RFC 4180 (a NULL is nothing at all, an empty text is
a pair of quotes); jsonlines.org.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Literal

import msgspec
import orjson
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from schemas.change import Cell
from schemas.table import TableSchema, Type
from sinks.target import RowsRefused

__all__ = ["FORMATS", "Format", "Kind"]

Kind = Literal["parquet", "jsonl", "csv"]
Row = Sequence[Cell]
Convert = Callable[[str], Any]
"""Text of a value → the value. Raises `ValueError` for a text the type has no value for."""

_TRUTHS = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
_MOST_DIGITS = 76


def _truth(text: str) -> bool:
    found = _TRUTHS.get(text)
    if found is None:
        raise ValueError(f"{text!r} is no boolean")
    return found


def _integer(bits: int) -> Convert:
    most = 1 << (bits - 1)

    def convert(text: str) -> int:
        number = int(text)
        if not -most <= number < most:
            raise ValueError(f"{text} does not fit {bits} bits")
        return number

    return convert


def _decimal(kind: Type) -> Convert:
    def convert(text: str) -> Decimal:
        number = Decimal(text) if text.lstrip("-")[:1].isdigit() else Decimal("NaN")
        exponent = number.as_tuple().exponent
        if not isinstance(exponent, int) or -exponent > kind.scale:
            raise ValueError(f"{text} is no decimal of scale {kind.scale}")
        if number.adjusted() >= kind.precision - kind.scale and number:
            raise ValueError(f"{text} does not fit numeric({kind.precision},{kind.scale})")
        return number

    return convert


def _bytes(text: str) -> bytes:
    if not text.startswith("\\x"):
        raise ValueError(f"{text[:20]!r} is no bytea in hexadecimal form")
    return bytes.fromhex(text[2:])


def _arrow(kind: Type) -> tuple[Any, Convert]:
    """Return a column's type in Parquet, and what makes its values."""
    if kind.logical == "decimal" and kind.precision <= _MOST_DIGITS:
        make = pa.decimal128 if kind.precision <= 38 else pa.decimal256
        return make(kind.precision, kind.scale), _decimal(kind)
    natives: dict[str, tuple[Any, Convert]] = {
        "boolean": (pa.bool_(), _truth),
        "int16": (pa.int16(), _integer(16)),
        "int32": (pa.int32(), _integer(32)),
        "int64": (pa.int64(), _integer(64)),
        "float32": (pa.float32(), float),
        "float64": (pa.float64(), float),
        "date": (pa.date32(), date.fromisoformat),
        "time": (pa.time64("us"), time.fromisoformat),
        "timestamp": (pa.timestamp("us"), datetime.fromisoformat),
        "timestamptz": (pa.timestamp("us", "UTC"), datetime.fromisoformat),
        "bytes": (pa.binary(), _bytes),
    }
    return natives.get(kind.logical, (pa.string(), str))


def _number(text: str) -> float | str:
    """Keep what JSON has no number for as text."""
    number = float(text)
    return number if math.isfinite(number) else text


_JSON: dict[str, Convert] = {
    "boolean": _truth,
    "int16": _integer(16),
    "int32": _integer(32),
    "int64": _integer(64),
    "float32": _number,
    "float64": _number,
}


class Format(msgspec.Struct, frozen=True):
    """The files' suffix, and what makes a row's values and a file's bytes for a schema."""

    suffix: str
    converts: Callable[[TableSchema], Sequence[Convert]]
    write: Callable[[TableSchema, Sequence[Sequence[Any]]], bytes]

    def encode(self, schema: TableSchema, rows: Sequence[Row]) -> bytes:
        """Return a file of `rows`. Raises `sinks.target.RowsRefused`."""
        converts, key = self.converts(schema), schema.key_indexes()
        values, refused = [], {}
        for row in rows:
            value: list[Any] = []
            try:
                for convert, cell in zip(converts, row, strict=True):
                    value.append(convert(cell.decode()) if isinstance(cell, bytes) else None)
            except ValueError as error:
                column = schema.columns[len(value)]
                why = f"{schema.table}.{column.name} takes no such {column.type.logical}: {error}"
                refused[schema.table, tuple(row[place] for place in key)] = why
            values.append(value)
        if refused:
            raise RowsRefused(refused)
        return self.write(schema, values)


def _parquet(schema: TableSchema, rows: Sequence[Sequence[Any]]) -> bytes:
    fields = [pa.field(column.name, _arrow(column.type)[0]) for column in schema.columns]
    columns = [pa.array([row[n] for row in rows], field.type) for n, field in enumerate(fields)]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)), out, compression="zstd")
    return out.getvalue()


def _jsonl(schema: TableSchema, rows: Sequence[Sequence[Any]]) -> bytes:
    names = [column.name for column in schema.columns]
    return b"".join(
        orjson.dumps(dict(zip(names, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE)
        for row in rows
    )


def _csv(schema: TableSchema, rows: Sequence[Sequence[Any]]) -> bytes:
    lines = [[column.name for column in schema.columns], *rows]
    return "".join(",".join(map(_quoted, line)) + "\r\n" for line in lines).encode()


def _quoted(value: str | None) -> str:
    return "" if value is None else '"' + value.replace('"', '""') + '"'


FORMATS: dict[Kind, Format] = {
    "parquet": Format("parquet", lambda s: [_arrow(c.type)[1] for c in s.columns], _parquet),
    "jsonl": Format("jsonl", lambda s: [_JSON.get(c.type.logical, str) for c in s.columns], _jsonl),
    "csv": Format("csv", lambda s: [str for _ in s.columns], _csv),
}
