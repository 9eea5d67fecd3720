"""Rows as a source read them → the JSON that Debezium's PostgreSQL connector writes of them.

    {"schema": …, "payload": {before after source transaction op ts_ms ts_us ts_ns}}
    one for all records       per record

What `schemas.plan` is for Avro: made once per version of a table, with everything that does not
change from row to row. Keys are byte for byte those of Connect's `JsonConverter`, so that they go
to the same partition and are compacted together; `tests/interchange` compares the rest.

Debezium has no way to say what a log did not carry (R6) but a text in its place; where a column's
type has no such text, a value that was not sent is a `ValueError`, and never null.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from schemas.change import ABSENT, Cell, Origin, Row, Rows
from schemas.connect_types import Form, form_of
from schemas.forms import READERS, Read
from schemas.plan import Message, SourceName, parts
from schemas.table import Column, TableSchema

__all__ = ["ConnectPlan"]

_CONNECTORS = {"postgres": "postgresql"}
"""Our names of connectors → Debezium's, where they differ."""
_LEFT, _CAME = "__debezium.newkey", "__debezium.oldkey"
"""Headers of the two records of a key change: the delete with its tombstone, and the create."""

_SNAPSHOTS = "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"


def _field(name: str, kind: str, /, *, optional: bool = True, **more: Any) -> dict[str, Any]:
    return {"type": kind, "optional": optional, **more, "field": name}


_SOURCE = {
    "type": "struct",
    "fields": [
        *(_field(name, "string", optional=False) for name in ("version", "connector", "name")),
        _field("ts_ms", "int64", optional=False),
        _field(
            "snapshot",
            "string",
            name="io.debezium.data.Enum",
            version=1,
            parameters={"allowed": _SNAPSHOTS},
            default="false",
        ),
        _field("db", "string", optional=False),
        _field("sequence", "string"),
        *(_field(name, "int64") for name in ("ts_us", "ts_ns")),
        *(_field(name, "string", optional=False) for name in ("schema", "table")),
        *(_field(name, "int64") for name in ("txId", "lsn", "xmin")),
        _field("origin", "string"),
        _field("origin_lsn", "int64"),
    ],
    "optional": False,
    "name": "io.debezium.connector.postgresql.Source",
    "version": 1,
    "field": "source",
}
_TRANSACTION = {
    "type": "struct",
    "fields": [
        _field("id", "string", optional=False),
        _field("total_order", "int64", optional=False),
        _field("data_collection_order", "int64", optional=False),
    ],
    "optional": True,
    "name": "event.block",
    "version": 1,
    "field": "transaction",
}
_TAIL = [
    _SOURCE,
    _TRANSACTION,
    _field("op", "string", optional=False),
    *(_field(name, "int64") for name in ("ts_ms", "ts_us", "ts_ns")),
]


class _Pick(NamedTuple):
    """One published column: where its cell is, its form, whether it may be null."""

    place: int
    name: str
    form: Form
    optional: bool
    in_key: bool


class ConnectPlan:
    """See the module's text.

    `published` is what consumers see: a selection of the columns of `read`, by name, each cell
    passed through `masks[name]` where there is one. `schemas` writes the schema with each record.
    """

    def __init__(
        self,
        read: TableSchema,
        published: TableSchema,
        source: SourceName,
        topic: str,
        masks: Mapping[str, Callable[[bytes], bytes]],
        *,
        schemas: bool,
    ) -> None:
        self.schema = published
        self._picks = _picks(read, published, masks)
        by_name = {pick.name: pick for pick in self._picks}
        self._key = [by_name[name] for name in published.key]
        self._frame_key = _frame(_key_schema(topic, self._key) if schemas else None)
        self._frame_value = _frame(_envelope_schema(topic, self._picks) if schemas else None)
        self._names = {
            "version": source.version,
            "connector": _CONNECTORS.get(source.connector, source.connector),
            "name": source.name,
        }
        self._table = {"schema": published.table.schema, "table": published.table.name}
        self._database = source.database

    def write(self, rows: Rows, now_ms: int, out: list[Message]) -> int:
        """Append the messages of a run to `out` and return the bytes of their values.

        `now_ms` is the envelope's `ts_ms`, ms since 1970. Those of a key change have headers.
        Raises `ValueError` for a row that does not match its schema, or that cannot be said.
        """
        read, size = READERS[rows.form], 0
        for item, ordinal in zip(rows.items, rows.ordinals, strict=True):
            source = self._source(rows.origin, ordinal)
            for message in self._messages(read(item), source, now_ms):
                out.append(message)
                size += len(message["value"] or b"")
        return size

    def _messages(self, row: Read, source: dict[str, Any], now_ms: int) -> Iterator[Message]:
        written = list(parts(row, self._key_of))
        moved = len(written) == 3
        for place, (key, part, _) in enumerate(written):
            value = None if part is None else self._envelope(part, source, now_ms)
            message: Message = {"key": self._framed_key(key), "value": value}
            if moved:
                name, other = (_CAME, written[0][0]) if place == 2 else (_LEFT, written[2][0])
                message["headers"] = [(name, other)]
            yield message

    def _key_of(self, row: Row) -> bytes | None:
        """Return the record key's payload; None for a table without a key."""
        if not self._key:
            return None
        values = {}
        for pick in self._key:
            cell = row[pick.place]
            value = pick.form.value(cell) if isinstance(cell, bytes) else None
            if value is None:
                raise ValueError(f"key column {pick.name} is {cell!r}")
            values[pick.name] = value
        return _spelled(values)

    def _framed_key(self, payload: bytes | None) -> bytes | None:
        return None if payload is None else self._frame_key(payload)

    def _source(self, origin: Origin, ordinal: int) -> dict[str, Any]:
        """Return the `source` block of a row.

        `lsn` is its commit's, and `sequence` tells the rows of a commit apart, growing.
        """
        before = None if origin.snapshot else str(origin.commit)
        last = origin.commit if origin.snapshot else ordinal
        return {
            **self._names,
            "ts_ms": origin.commit_us // 1000,
            "snapshot": "incremental" if origin.snapshot else "false",
            "db": self._database,
            "sequence": orjson.dumps([before, str(last)]).decode(),
            "ts_us": origin.commit_us,
            "ts_ns": origin.commit_us * 1000,
            **self._table,
            "txId": int(origin.txid) if origin.txid.isdecimal() else None,
            "lsn": origin.commit,
            "xmin": None,
            "origin": None,
            "origin_lsn": None,
        }

    def _envelope(self, row: Read, source: dict[str, Any], now_ms: int) -> bytes:
        payload = {
            "before": self._before(row),
            "after": self._row(row.after),
            "source": source,
            "transaction": None,
            "op": row.op.value,
            "ts_ms": now_ms,
            "ts_us": now_ms * 1000,
            "ts_ns": now_ms * 1_000_000,
        }
        return self._frame_value(_spelled(payload))

    def _row(self, cells: Row | None) -> dict[str, Any] | None:
        if cells is None:
            return None
        return {pick.name: _value(pick, cells[pick.place]) for pick in self._picks}

    def _before(self, row: Read) -> dict[str, Any] | None:
        """Return the old row; what the log has not of it is null, or zero (an old row's key is)."""
        if row.before is None:
            return None
        out = {}
        for pick in self._picks:
            cell = row.before[pick.place]
            if cell is ABSENT or (row.only_key and not pick.in_key):
                out[pick.name] = None if pick.optional else pick.form.zero
            else:
                out[pick.name] = _value(pick, cell)
        return out


def _value(pick: _Pick, cell: Cell) -> Any:
    if cell is None:
        return None
    if cell is ABSENT:
        if pick.form.missing is None:
            raise ValueError(
                f"column {pick.name} was not sent by the log, and Debezium's form has no word for "
                "that: set REPLICA IDENTITY FULL"
            )
        return pick.form.missing
    return pick.form.value(cell)


def _picks(
    read: TableSchema, published: TableSchema, masks: Mapping[str, Callable[[bytes], bytes]]
) -> list[_Pick]:
    places = {column.name: index for index, column in enumerate(read.columns)}
    return [
        _Pick(
            places[column.name],
            column.name,
            _masked(column, masks.get(column.name)),
            column.nullable and column.name not in published.key,
            column.name in published.key,
        )
        for column in published.columns
    ]


def _masked(column: Column, mask: Callable[[bytes], bytes] | None) -> Form:
    form = form_of(column.type)
    if mask is None:
        return form
    value = form.value
    return Form(form.schema, lambda cell: value(mask(cell)), form.more, form.missing, form.zero)


_ASTRAL = re.compile(rb"[\xf0-\xf4][\x80-\xbf]{3}")
_ESCAPE = re.compile(rb"\\(?:u00([01][0-9a-f])|.)", re.DOTALL)


def _spelled(value: Any) -> bytes:
    """Return JSON with the spelling of Jackson, which Connect uses: keys are compared as bytes.

    It writes characters outside of the first plane as two escapes, and the hex in capitals.
    """
    text = orjson.dumps(value)
    if not text.isascii():
        text = _ASTRAL.sub(_surrogates, text)
    return _ESCAPE.sub(_capital, text) if b"\\u00" in text else text


def _surrogates(found: re.Match[bytes]) -> bytes:
    pair = found[0].decode().encode("utf-16-be")
    return b"\\u%04X\\u%04X" % struct.unpack(">HH", pair)


def _capital(found: re.Match[bytes]) -> bytes:
    return found[0] if found[1] is None else b"\\u00" + found[1].upper()


def _frame(schema: dict[str, Any] | None) -> Callable[[bytes], bytes]:
    """Return what puts a payload behind its schema, or leaves it as it is."""
    if schema is None:
        return lambda payload: payload
    head = b'{"schema":' + _spelled(schema) + b',"payload":'
    return lambda payload: head + payload + b"}"


def _columns(picks: list[_Pick]) -> list[dict[str, Any]]:
    return [{**pick.form.described(optional=pick.optional), "field": pick.name} for pick in picks]


def _key_schema(topic: str, key: list[_Pick]) -> dict[str, Any]:
    return {"type": "struct", "fields": _columns(key), "optional": False, "name": f"{topic}.Key"}


def _envelope_schema(topic: str, picks: list[_Pick]) -> dict[str, Any]:
    fields = _columns(picks)
    row = {"type": "struct", "fields": fields, "optional": True, "name": f"{topic}.Value"}
    sides = [{**row, "field": side} for side in ("before", "after")]
    return {
        "type": "struct",
        "fields": [*sides, *_TAIL],
        "optional": False,
        "name": f"{topic}.Envelope",
        "version": 2,
    }
