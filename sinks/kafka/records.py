"""Rows → records of a topic: key and value, as JSON or as Avro, compiled once per table version.

    upsert   key columns │ the whole row       a reader of the topic needs no other record
    delete   key columns │ nothing             the tombstone that compaction knows
    no key   nothing     │ the whole row       inserts add up; a delete cannot be told

A topic has no row to merge with, so a row that lacks values is refused: written with NULL in their
place it would be wrong for good, and left out it would be lost by compaction (R6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import orjson

from cdc.errors import DataError
from schemas.avro import key_schema, row_schema
from schemas.change import ABSENT, Cell
from schemas.registry import Registry
from schemas.table import Column, TableSchema
from schemas.types import LOGICAL, Encode, avro_text
from schemas.wire import frame
from sinks.documents import Document
from sinks.target import Mapped

__all__ = ["Form", "Record", "Records", "avro_form", "json_form"]

_WHOLE = "Set REPLICA IDENTITY FULL on the source table: then every value is sent."
_Write = Callable[[Sequence[Cell]], bytes]


class Record(NamedTuple):
    """One record; `value` None is a tombstone, `key` None a table without a key."""

    key: bytes | None
    value: bytes | None


class Form(NamedTuple):
    """How keys and rows of one table version are written; both raise `ValueError`."""

    key: _Write
    row: _Write


def json_form(schema: TableSchema) -> Form:
    """Return the form with objects of column → value (`sinks/documents.py`)."""
    key = Document([schema.column(name) for name in schema.key])
    row = Document(schema.columns)
    return Form(
        lambda cells: orjson.dumps(key.members(cells)),
        lambda cells: orjson.dumps(row.members(cells)),
    )


def avro_form(schema: TableSchema, topic: str, registry: Registry) -> Form:
    """Return the form with Avro records behind the registry's frame; their schemas are registered.

    Raises `errors.SchemaIncompatible` for a version that readers of the one before cannot read.
    """
    key_id = registry.register_for(topic, key_schema(schema, topic), key=True) if schema.key else 0
    row_id = registry.register_for(topic, row_schema(schema, topic))
    keys = [_key_cell(schema.column(name)) for name in schema.key]
    cells = [_cell(column, key=column.name in schema.key) for column in schema.columns]
    return Form(_joined(frame(key_id), keys), _joined(frame(row_id), cells))


def _joined(begin: bytes, writers: Sequence[Callable[[Cell], bytes]]) -> _Write:
    return lambda cells: (
        begin + b"".join(write(cell) for write, cell in zip(writers, cells, strict=True))
    )


def _key_cell(column: Column) -> Callable[[Cell], bytes]:
    logical = LOGICAL[column.type.logical]
    encode: Encode = avro_text if logical.lossy else logical.encode(column.type)
    return _bare(column, encode)


def _cell(column: Column, *, key: bool) -> Callable[[Cell], bytes]:
    logical = LOGICAL[column.type.logical]
    bare = _bare(column, logical.encode(column.type))
    if key and not logical.lossy:
        return bare
    return lambda cell: b"\x00" if cell is None else b"\x02" + bare(cell)


def _bare(column: Column, encode: Encode) -> Callable[[Cell], bytes]:
    def write(cell: Cell) -> bytes:
        found = encode(cell) if isinstance(cell, bytes) else None
        if found is None:
            raise ValueError(f"{column.name} has no Avro form here: {str(cell)[:40]}")
        return found

    return write


class Records:
    """Makes the records of one table version; `skips` says that truncations are passed over."""

    def __init__(self, schema: TableSchema, form: Form, *, skips: bool) -> None:
        self._schema = schema
        self._form = form
        self._skips = skips
        self._key = schema.key_indexes()

    def of(self, mapped: Mapped) -> Iterator[Record]:
        """Yield what one step does to the table. Raises `errors.DataError` for what cannot be."""
        if mapped.truncate and not self._skips:
            raise DataError(
                f"{self._schema.table} was truncated, and a topic cannot be emptied by a record",
                hint="Empty it by hand where that is wanted, or set `truncate: skip`.",
            )
        if mapped.deletes and not self._key:
            raise DataError(
                f"a row of {self._schema.table}, which has no key, was deleted",
                hint="Give the mapping a key; without one a topic only takes inserts.",
            )
        for key in mapped.deletes:
            yield Record(self._written(self._form.key, key), None)
        for row in (*mapped.upserts, *(row for _, row in mapped.moves)):
            if ABSENT in row:
                raise DataError(
                    f"a row of {self._schema.table} lacks values the log did not carry, and a "
                    "topic has no row to take them from",
                    hint=_WHOLE,
                )
            yield Record(self._key_of(row), self._written(self._form.row, row))

    def _key_of(self, row: Sequence[Cell]) -> bytes | None:
        if not self._key:
            return None
        return self._written(self._form.key, [row[place] for place in self._key])

    def _written(self, write: _Write, cells: Sequence[Cell]) -> bytes:
        try:
            return write(cells)
        except ValueError as error:
            raise DataError(f"a row of {self._schema.table} cannot be written: {error}") from error
