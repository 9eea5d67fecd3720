"""A dead letter's record with some of its values changed, by an expression of the operator.

    value ─▶ Avro record ─▶ {"name": name.substring(0, 8)} over its row ─▶ Avro record ─▶ value

What comes out is a record as the source could have written it, so the mapping, the rules and the
target take it as any other. The key stays: it is whose letter this is, and what the history of the
row is looked up by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from cdc.errors import ConfigError, DataError
from schemas.avro import escape, raw_schema, table_schema
from schemas.change import ABSENT, Cell
from schemas.table import Column
from schemas.types import LOGICAL
from schemas.wire import FRAME_BYTES, schema_id
from sinks.cast import CASTS, convert_between
from sinks.debezium_record import is_debezium
from sinks.expression import Expression, check_syntax
from sinks.values import cast_named, text_of

__all__ = ["Repair"]

_PLACE = "--fix"


class Repair:
    """Repairs records; `schema_of` gives the envelope's schema of an id.

    Raises `errors.ConfigError` for an expression that does not parse.
    """

    def __init__(self, text: str, schema_of: Callable[[int], dict[str, Any]]) -> None:
        try:
            self._text = check_syntax(text)
        except ValueError as error:
            raise ConfigError(f"{_PLACE}: {error}") from error
        self._schema_of = schema_of
        self._menders: dict[int, _Mender] = {}

    def repaired(self, value: bytes) -> bytes:
        """Return the payload of a record with the values the expression gives.

        A delete and a truncation have no row to repair and stay as they are. Raises
        `errors.DataError` for a record that cannot be repaired, and `errors.ConfigError` for an
        expression that does not fit its table.
        """
        identity = schema_id(value)
        mender = self._menders.get(identity)
        if mender is None:
            envelope = self._schema_of(identity)
            if is_debezium(envelope):
                raise DataError(f"{_PLACE} does not repair records that Debezium wrote")
            mender = self._menders[identity] = _Mender(envelope, self._text)
        return value[:FRAME_BYTES] + mender.mended(value[FRAME_BYTES:])


class _Mender:
    """The expression bound to one schema."""

    def __init__(self, envelope: dict[str, Any], text: str) -> None:
        self._source = table_schema(envelope)
        self._parsed = parse_schema(raw_schema(envelope))
        self._columns = {column.name: column for column in self._source.columns}
        self._expression = Expression(text, _PLACE, self._source.columns)
        if self._expression.kind not in (None, "json"):
            raise ConfigError(
                f"{_PLACE}: `{text}` gives {self._expression.kind}, not the columns to change",
                hint="""Write a map: {"name": name.substring(0, 8)}.""",
            )

    def mended(self, payload: bytes) -> bytes:
        record: Any = schemaless_reader(BytesIO(payload), self._parsed, None)
        if record["after"] is None:
            return payload
        given = self._expression.value(self._cells(record))
        if not isinstance(given, dict):
            raise DataError(f"{_PLACE}: `{self._expression.text}` gives no map of columns")
        for name, value in given.items():
            self._set(record, str(name), value)
        out = BytesIO()
        schemaless_writer(out, self._parsed, record)
        return out.getvalue()

    def _cells(self, record: Any) -> Mapping[str, Cell]:
        absent, exact = record["absent_after"] or (), record["exact_after"] or {}
        return {
            name: self._cell(self._columns[name], record["after"], absent, exact)
            for name in self._expression.columns
        }

    def _cell(self, column: Column, after: Any, absent: Any, exact: Any) -> Cell:
        if column.name in absent:
            return ABSENT
        if column.name in exact:
            return str(exact[column.name]).encode()
        value = after[escape(column.name)]
        return None if value is None else LOGICAL[column.type.logical].decode(column.type)(value)

    def _set(self, record: Any, name: str, value: Any) -> None:
        column = self._columns.get(name)
        if column is None or name in self._source.key:
            what = "a column of the key" if column is not None else "no column of the topic"
            raise ConfigError(
                f"{_PLACE}: {name} is {what}, which cannot be repaired",
                hint=f"Columns are {', '.join(set(self._columns) - set(self._source.key))}.",
            )
        text = _as_column(value, column)
        native = None if text is None else _native(column, text)
        record["after"][escape(name)] = native
        record["absent_after"] = [n for n in record["absent_after"] or () if n != name] or None
        exact = {n: t for n, t in (record["exact_after"] or {}).items() if n != name}
        if text is not None and native is None:
            exact[name] = text.decode()
        record["exact_after"] = exact or None


def _as_column(value: Any, column: Column) -> bytes | None:
    """Return `value` as text of the column's type."""
    text = text_of(value)
    if text is None:
        return None
    convert = convert_between(CASTS[cast_named(value)], column.type)
    return text if convert is None else convert(text)


def _native(column: Column, text: bytes) -> Any:
    """Return text as Avro value, None where it has no native form."""
    logical = LOGICAL[column.type.logical]
    wrong = DataError(f"{_PLACE}: {column.name} cannot be {text.decode(errors='replace')!r}")
    if column.type.logical == "boolean" and text not in (b"t", b"f"):
        raise wrong
    try:
        encoded = logical.encode(column.type)(text)
    except ValueError as error:
        raise wrong from error
    if encoded is None:
        return None
    return schemaless_reader(BytesIO(encoded), raw_schema(logical.avro(column.type)), None)
