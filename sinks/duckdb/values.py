r"""How a value of each logical type is stored: the column's type, and the SQL that makes it.

A value arrives as a field of COPY text, in which only texts and bytes can hold a backslash. The
expression of a type gives NULL for a field that is none of its values; whoever stages the rows
tells that from the NULL that is written `\N` (`sinks/duckdb/staging.py`). DuckDB's own casts are
more lenient than that: they would make 2 of `1.5` for an integer, so digits are looked at first.

Sources: duckdb.org/docs/current/sql/data_types; PostgreSQL 18 manual, "COPY, Text Format".
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from schemas.table import Type

__all__ = ["FORMS", "TEXT", "Expression", "Form", "form_of"]

Expression = Callable[[str], str]
"""SQL of a field → SQL of its value."""

_MOST_DIGITS = 38


class Form(msgspec.Struct, frozen=True):
    """The column's type, and what makes its values; `takes_all` says that every text is one."""

    storage: str
    expression: Expression
    takes_all: bool = False


_ESCAPES = {"n": 10, "t": 9, "r": 13, "b": 8, "f": 12, "v": 11}


def _text(field: str) -> str:
    r"""Undo the escapes of COPY: what lies between two `\\` holds no escaped backslash."""
    part = "p"
    for letter, code in _ESCAPES.items():
        part = rf"replace({part}, '\{letter}', chr({code}))"
    parts = rf"list_transform(string_split({field}, '\\'), lambda p: {part})"
    return (
        rf"CASE WHEN NOT contains({field}, '\') THEN {field} "
        rf"WHEN {field} <> '\N' THEN array_to_string({parts}, '\') END"
    )


def _cast(storage: str, pattern: str = "") -> Form:
    """Return the form of a type that DuckDB reads itself, where the field fits `pattern`."""

    def expression(field: str) -> str:
        cast = f"TRY_CAST({field} AS {storage})"
        if not pattern:
            return cast
        return f"CASE WHEN regexp_full_match({field}, '{pattern}') THEN {cast} END"

    return Form(storage, expression)


def _dated(storage: str) -> Form:
    """Return the form of a type with a date, whose years before Christ DuckDB marks otherwise."""

    def expression(field: str) -> str:
        marked = rf"regexp_replace({field}, '^(\S+)(.*) BC$', '\1 (BC)\2')"
        text = f"CASE WHEN suffix({field}, ' BC') THEN {marked} ELSE {field} END"
        return f"TRY_CAST({text} AS {storage})"

    return Form(storage, expression)


def _bytes(field: str) -> str:
    r"""Read `\x…`, whose backslash is escaped in COPY text."""
    hexadecimal = rf"regexp_full_match({field}, '\\\\x([0-9a-f]{{2}})*')"
    return f"CASE WHEN {hexadecimal} THEN unhex(substr({field}, 4)) END"


def _decimal(kind: Type) -> Form:
    if kind.precision > _MOST_DIGITS:
        return TEXT
    pattern = rf"-?[0-9]+(\.[0-9]{{0,{kind.scale}}})?"
    return _cast(f"DECIMAL({kind.precision},{kind.scale})", pattern)


def _always(form: Form) -> Callable[[Type], Form]:
    return lambda _: form


TEXT = Form("VARCHAR", _text, takes_all=True)
_INTEGERS = "-?[0-9]+"
_JSON = Form("JSON", lambda field: f"TRY_CAST({_text(field)} AS JSON)")

FORMS: dict[str, Callable[[Type], Form]] = {
    "boolean": _always(_cast("BOOLEAN", "t|f|true|false|1|0")),
    "int16": _always(_cast("SMALLINT", _INTEGERS)),
    "int32": _always(_cast("INTEGER", _INTEGERS)),
    "int64": _always(_cast("BIGINT", _INTEGERS)),
    "float32": _always(_cast("FLOAT")),
    "float64": _always(_cast("DOUBLE")),
    "decimal": _decimal,
    "date": _always(_dated("DATE")),
    "time": _always(_cast("TIME")),
    "timestamp": _always(_dated("TIMESTAMP")),
    "timestamptz": _always(_dated("TIMESTAMPTZ")),
    "bytes": _always(Form("BLOB", _bytes)),
    "uuid": _always(_cast("UUID")),
    "string": _always(TEXT),
    "json": _always(_JSON),
    "enum": _always(TEXT),
    "text": _always(TEXT),
}
"""Logical type (`schemas.types.LOGICAL`) → its form."""


def form_of(kind: Type) -> Form:
    """Return the form of a type, with its digits."""
    return FORMS[kind.logical](kind)
