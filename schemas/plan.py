"""Plans and their plain executor: rows as a source read them → Avro keys and envelopes.

A plan is built once per version of a table and per form; it holds one function per column and
every byte of the envelope that does not change from row to row:

    frame │ before │ after │ source: constant │ per transaction │ per record │ op ts_ms … exact
    fixed   per row  per row  fixed             once a run        per row      mostly fixed

`records` is the plain executor and the reference: readable Python. `write` does the same in C
(_plan.pyx) where that was built and knows the form (schemas/executor.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from schemas.change import ABSENT, Op, Origin, Row, Rows, Stamp
from schemas.executor import compiled
from schemas.forms import READERS, Read
from schemas.table import TableSchema
from schemas.types import LOGICAL, Encode, avro_long, avro_text
from schemas.wire import frame

__all__ = ["Message", "Plan", "Record", "SourceName", "append", "origin_block", "parts"]

_NULL = b"\x00"
_SOME = b"\x02"
_CREATED = 2
"""`sub` of the create a key change ends with: its delete is 0, and a tombstone carries none."""


Message = dict[str, Any]
"""A record as the Kafka client's `produce_batch` takes it: `key` and `value`."""


class Record(NamedTuple):
    """One Kafka record: `value` None is a tombstone, `key` None a table without a key."""

    key: bytes | None
    value: bytes | None


def parts(
    row: Read, key_of: Callable[[Row], bytes | None]
) -> Iterator[tuple[bytes | None, Read | None, int]]:
    """Yield the records one event becomes: key, what it says (None: a tombstone), `Stamp.sub`.

    A key change becomes three, whatever the form: the delete, its tombstone, the create.
    """
    op, before, after, only_key = row
    if op is Op.TRUNCATE:
        yield None, row, 0
        return
    old = key_of(before) if before is not None else None
    new = key_of(after) if after is not None else old
    if op is Op.UPDATE and old is not None and old != new:
        yield old, Read(Op.DELETE, before, None, only_key), 0
        yield old, None, 0
        yield new, Read(Op.CREATE, None, after), _CREATED
        return
    if only_key and op is Op.UPDATE:
        row = Read(op, None, after)
    yield new, row, 0
    if op is Op.DELETE and new is not None:
        yield new, None, 0


def append(records: Iterable[Record], out: list[Message]) -> int:
    """Append records to `out` as messages and return the bytes of their values."""
    size = 0
    for key, value in records:
        out.append({"key": key, "value": value})
        size += len(value or b"")
    return size


class SourceName(msgspec.Struct, frozen=True):
    """What the envelope's source block says of the source itself."""

    version: str
    connector: str
    name: str
    database: str = ""


class _Pick(NamedTuple):
    """One published column: where its cell is, how it is encoded, whether it may be null.

    `native` is what compiled code knows its type as, empty when `encode` alone will do.
    """

    place: int
    name: str
    encode: Encode
    optional: bool
    native: str
    scale: int


def _text(value: str) -> bytes:
    return avro_text(value.encode())


def _strings(names: Sequence[str]) -> bytes:
    """Return an optional array of strings; null when there are none."""
    if not names:
        return _NULL
    return _SOME + avro_long(len(names)) + b"".join(map(_text, names)) + b"\x00"


def _map(values: Mapping[str, bytes]) -> bytes:
    """Return an optional map of strings; null when it is empty."""
    if not values:
        return _NULL
    pairs = b"".join(_text(name) + avro_text(value) for name, value in values.items())
    return _SOME + avro_long(len(values)) + pairs + b"\x00"


class Plan:
    """Everything needed to write the records of one table version, compiled once.

    `published` is what consumers see: a selection of the columns of `read`, by name, each cell
    passed through `masks[name]` where there is one. Ids are those the registry gave.
    """

    def __init__(
        self,
        read: TableSchema,
        published: TableSchema,
        source: SourceName,
        ids: tuple[int | None, int],
        masks: Mapping[str, Callable[[bytes], bytes]] | None = None,
    ) -> None:
        self.schema = published
        self._width = len(read.columns)
        self._picks = _picks(read, published, masks or {})
        key = _key_picks(published, self._picks)
        self._key = _key_encoder(key) if key else None
        self._key_frame = frame(ids[0]) if ids[0] is not None else b""
        self._frame = frame(ids[1])
        names = (source.version, source.connector, source.name, source.database)
        table = (published.table.schema, published.table.name)
        self._constant = b"".join(map(_text, (*names, *table)))
        self._not_in_key = tuple(c.name for c in published.columns if c.name not in published.key)
        self._writers = self._compile(key)

    def _compile(self, key: list[_Pick]) -> dict[str, Any]:
        """Return form → compiled executor, for the forms it knows; none where it was not built."""
        extension = compiled("schemas._plan")
        if extension is None or not self._width:
            return {}
        frames = (self._key_frame, self._frame)
        absent = _strings(self._not_in_key)
        writer = extension.Writer(self._width, list(self._picks), key, frames, absent)
        return {"pgoutput": writer.pgoutput, "copy": writer.copy}

    def write(self, rows: Rows, now_ms: int, out: list[Message]) -> int:
        """Append the messages of a run to `out` and return the bytes of their values.

        `now_ms` is the envelope's `ts_ms`, ms since 1970. Raises `ValueError` for a row that does
        not match its schema.
        """
        run = self._writers.get(rows.form)
        if run is None:
            return append(self.records(rows, now_ms), out)
        read = READERS[rows.form]
        blocks = self._blocks(rows, now_ms)

        def plain(item: bytes, ordinal: int) -> Iterator[Record]:
            return self._records(read(item), ordinal, blocks)

        written: int = run(rows.items, rows.ordinals, blocks, out, plain)
        return written

    def records(self, rows: Rows, now_ms: int) -> Iterator[Record]:
        """Yield what `write` appends, from the plain executor."""
        read = READERS[rows.form]
        blocks = self._blocks(rows, now_ms)
        for item, ordinal in zip(rows.items, rows.ordinals, strict=True):
            yield from self._records(read(item), ordinal, blocks)

    def _blocks(self, rows: Rows, now_ms: int) -> tuple[bytes, bytes]:
        """Return what a run shares: its source block, and what follows the operation."""
        return self._constant + origin_block(rows.origin), avro_long(now_ms) + _NULL

    def _records(self, row: Read, ordinal: int, blocks: tuple[bytes, bytes]) -> Iterator[Record]:
        self._measure(row)
        source, now = blocks
        return self._write(row, source + avro_long(ordinal), now)

    def last(self, rows: Rows) -> Stamp:
        """Return the stamp of the last record that carries one of those `write` makes of a run."""
        row = READERS[rows.form](rows.items[-1])
        sub = max(sub for _, _, sub in parts(row, self.key))
        return Stamp(rows.origin.incarnation, rows.origin.commit, rows.ordinals[-1], sub)

    def key(self, row: Row) -> bytes | None:
        """Return the framed record key of a row as read, None for a table without a key."""
        return None if self._key is None else self._key_frame + self._key(row)

    def _measure(self, row: Read) -> None:
        for cells in (row.before, row.after):
            if cells is not None and len(cells) != self._width and self._width:
                told = f"a row of {len(cells)} cells for the {self._width} columns"
                raise ValueError(f"{told} of {self.schema.table}")

    def _write(self, row: Read, source: bytes, now: bytes) -> Iterator[Record]:
        for key, part, sub in parts(row, self.key):
            value = None if part is None else self._envelope(part, source, now, sub)
            yield Record(key, value)

    def _envelope(self, row: Read, source: bytes, now: bytes, sub: int) -> bytes:
        before, absent_before, exact_before = self._row(row.before, only_key=row.only_key)
        after, absent_after, exact_after = self._row(row.after)
        tail = source + avro_long(sub) + _OPS[row.op] + now
        extra = absent_before + absent_after + exact_before + exact_after
        return b"".join((self._frame, before, after, tail, extra))

    def _row(self, cells: Row | None, *, only_key: bool = False) -> tuple[bytes, bytes, bytes]:
        """Return the optional row, its list of absent columns and its exact texts."""
        if cells is None:
            return _NULL, _NULL, _NULL
        parts = [_SOME]
        absent: Sequence[str] = self._not_in_key if only_key else []
        exact: dict[str, bytes] = {}
        for place, name, encode, optional, *_ in self._picks:
            cell = cells[place]
            if cell is None:
                parts.append(_NULL)
            elif cell is ABSENT:
                parts.append(_NULL)
                absent = [*absent, name]
            else:
                value = encode(cell)
                if value is None:
                    exact[name] = cell
                    parts.append(_NULL)
                else:
                    parts.append(_SOME + value if optional else value)
        return b"".join(parts), _strings(absent), _map(exact)


_OPS = {op: _text(op.value) for op in Op}


def origin_block(origin: Origin) -> bytes:
    """Return the part of the source block that all rows of a transaction share."""
    snapshot = _text("incremental" if origin.snapshot else "false")
    times = avro_long(origin.commit_us // 1000)
    place = avro_long(origin.incarnation) + avro_long(origin.commit)
    return snapshot + times + _text(origin.txid) + place


def _compose(encode: Encode, mask: Callable[[bytes], bytes]) -> Encode:
    return lambda cell: encode(mask(cell))


def _picks(
    read: TableSchema, published: TableSchema, masks: Mapping[str, Callable[[bytes], bytes]]
) -> tuple[_Pick, ...]:
    places = {column.name: index for index, column in enumerate(read.columns)}
    picks = []
    for column in published.columns:
        logical, native = LOGICAL[column.type.logical], column.type.logical
        encode = logical.encode(column.type)
        if column.name in masks:
            encode, native = _compose(encode, masks[column.name]), ""
        optional = column.name not in published.key or logical.lossy
        place = places[column.name]
        picks.append(_Pick(place, column.name, encode, optional, native, column.type.scale))
    return tuple(picks)


def _key_picks(published: TableSchema, picks: tuple[_Pick, ...]) -> list[_Pick]:
    """Return the key's columns in its order; one whose type loses values is text there."""
    by_name = {pick.name: pick for pick in picks}
    chosen = [by_name[name] for name in published.key]
    return [
        pick._replace(encode=avro_text, native="raw")
        if LOGICAL[published.column(pick.name).type.logical].lossy
        else pick
        for pick in chosen
    ]


def _key_encoder(key: list[_Pick]) -> Callable[[Row], bytes]:
    """Return cells as read → key; picks already know where a column is and how it is masked."""

    def encode(row: Row) -> bytes:
        out = []
        for pick in key:
            cell = row[pick.place]
            encoded = pick.encode(cell) if isinstance(cell, bytes) else None
            if encoded is None:
                raise ValueError(f"key column {pick.name} is {cell!r}")
            out.append(encoded)
        return b"".join(out)

    return encode
