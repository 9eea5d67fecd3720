"""Reading what a plan wrote with fastavro, an independent reader."""

from __future__ import annotations

import io
from typing import Any

from fastavro import parse_schema, schemaless_reader

from schemas.avro import envelope_schema, escape, raw_schema
from schemas.change import ABSENT, Cell
from schemas.table import TableSchema
from schemas.types import LOGICAL
from schemas.wire import FRAME_BYTES


def read(schema: Any, framed: bytes) -> dict[str, Any]:
    """Return the record behind a frame; nothing may be left over."""
    stream = io.BytesIO(framed[FRAME_BYTES:])
    found: Any = schemaless_reader(stream, schema, None)
    assert stream.read() == b""
    return dict(found)


def envelope_reader(table: TableSchema) -> Any:
    return parse_schema(raw_schema(envelope_schema(table, "shop.public.orders")))


def cells_of(table: TableSchema, envelope: dict[str, Any], side: str) -> list[Cell] | None:
    """Rebuild the cells of a row from its envelope, as a sink does."""
    row = envelope[side]
    if row is None:
        return None
    absent = envelope[f"absent_{side}"] or []
    exact = envelope[f"exact_{side}"] or {}
    cells: list[Cell] = []
    for column in table.columns:
        value = row[escape(column.name)]
        if column.name in absent:
            cells.append(ABSENT)
        elif column.name in exact:
            cells.append(exact[column.name].encode())
        else:
            decode = LOGICAL[column.type.logical].decode(column.type)
            cells.append(None if value is None else decode(value))
    return cells
