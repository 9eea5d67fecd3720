"""Kafka records → events: what a record does to one table of the target.

A decoder is compiled once per schema id and mapping. Per record there is one fastavro read with
raw types (no Decimal, no datetime) and one function a column; absent and exact values (R6, R13)
take the longer way, and only records that have them do. So do the rows of a mapping that computes
columns.

A row that a mapping's `where` leaves out is a delete of its key, whatever happened to it: only so
the target ends right for every row that leaves the filter, also after a compaction or a new
snapshot, when the change that took it out is never seen.

An event that cannot be read is not an exception but an event with an `error`: it keeps its place
in the partition, so that the dead letter is written in the right transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from io import BytesIO
from operator import itemgetter
from typing import Any

import msgspec
from confluent_kafka import Message
from fastavro import parse_schema, schemaless_reader

from cdc.errors import CdcError, DataError
from schemas.avro import escape, raw_schema
from schemas.change import ABSENT, Cell, Stamp
from schemas.table import Column, TableSchema
from schemas.types import LOGICAL, AvroValue
from schemas.wire import FRAME_BYTES
from sinks.binding import MappedTable
from sinks.cast import Convert
from sinks.expression import Expression
from sinks.fields import Compute, MappedColumn
from sinks.journal import VERSION, facts, moment, position, until
from sinks.refusals import bare
from sinks.rules import Tally

__all__ = [
    "DELETE",
    "POISON",
    "SKIP",
    "TRUNCATE",
    "UPSERT",
    "Decoder",
    "Event",
    "Key",
    "key_of",
    "poison",
]

UPSERT, DELETE, TRUNCATE, SKIP, POISON = range(5)

_ROWS = ("c", "u", "r")
_CHANGES = (*_ROWS, "d", "t")

Key = tuple[Cell, ...]
_Values = Mapping[str, Any]


class Event(msgspec.Struct, gc=False):
    """What one record does.

    `kind` is one of the constants above. `key` is the target key (of the whole row where the
    table has none), `row` the target row of an upsert or, where nothing of it is absent, `line`:
    the row as COPY text. `old` is the key (row) an upsert leaves behind. `ended` is what becomes
    of the row that had the key until now, where a history keeps it: its ABSENT values are that
    row's. `stamp` is None for a producer that is not ours; then `place` is what the two records of
    a key change, and no others, have in common. `ts_ms` is the source's commit, ms since 1970;
    `size` the payload in bytes. `created` says that the source made the row, or read it in a
    snapshot: the target has none of its key, as a rule. `part` names the table, where the record
    goes to others as well (`sinks/parts.py`).
    """

    kind: int
    schema: TableSchema | None
    stamp: Stamp | None
    snapshot: bool
    message: Message
    size: int = 0
    ts_ms: int = 0
    key: Key = ()
    row: list[Cell] | None = None
    old: Key | None = None
    error: CdcError | None = None
    line: bytes | None = None
    place: tuple[int, ...] = ()
    ended: list[Cell] | None = None
    created: bool = False
    part: str = ""


def poison(message: Message, size: int, error: CdcError) -> Event:
    """Return the event of a record nobody can read."""
    return Event(POISON, None, None, snapshot=False, message=message, size=size, error=bare(error))


class _Pick(msgspec.Struct, frozen=True):
    """How one target column is made: the Avro field, the way to text, the way on from there.

    One that is computed has neither a field nor a way, but `compute`.
    """

    field: str
    name: str
    decode: Callable[[Any], bytes]
    convert: Callable[[bytes], bytes | None] | None
    compute: Compute | None = None


def _nothing(_value: AvroValue) -> bytes:
    return b""


def _pick(mapped: MappedColumn) -> _Pick:
    if mapped.source is None:
        return _Pick("", "", _nothing, mapped.convert, mapped.compute)
    return _pick_of(mapped.source, mapped.convert)


def _pick_of(column: Column, convert: Convert | None = None) -> _Pick:
    decode = LOGICAL[column.type.logical].decode(column.type)
    return _Pick(escape(column.name), column.name, decode, convert)


def _composed(pick: _Pick) -> Callable[[Any], bytes | None]:
    decode, convert = pick.decode, pick.convert
    return decode if convert is None else lambda value: convert(decode(value))


def key_of(places: tuple[int, ...]) -> Callable[[list[Cell]], Key]:
    """Return what takes the key out of a target row: the cells at `places`, all where none is."""
    if not places:
        return tuple
    if len(places) == 1:
        place = places[0]
        return lambda row: (row[place],)
    return itemgetter(*places)


class Decoder:
    """Reads the records of one schema id for one mapping; `tally` counts broken rules."""

    def __init__(
        self, envelope: dict[str, Any], table: MappedTable, tally: Tally | None = None
    ) -> None:
        self.schema = table.schema
        self._writer = parse_schema(raw_schema(envelope))
        self._picks = tuple(_pick(mapped) for mapped in table.columns)
        self._fast = tuple((pick.field, _composed(pick)) for pick in self._picks if pick.name)
        self._constants = tuple(
            (place, pick.convert(b"") if pick.convert is not None else None)
            for place, pick in enumerate(self._picks)
            if not pick.name
        )
        places = table.schema.key_indexes()
        self._key_of = key_of(places)
        self._key_places = frozenset(places)
        self._wants_old = table.rekeyed or not table.schema.key
        self._sources = {column.name: _pick_of(column) for column in table.source.columns}
        self._computes = any(pick.compute is not None for pick in self._picks)
        self._where = table.where
        self._rules = table.rules
        self._tally = tally or Tally()
        self._names = [column.name for column in table.schema.columns]
        ways = {
            "mirror": self._mirror,
            "append": self._append,
            "history": self._version,
            "changes": self._tell,
        }
        self._fill = ways[table.mode]
        self._deleted = None if table.deleted is None else self._names.index(table.deleted)

    def read(self, message: Message, value: bytes) -> Event:
        """Return what `message` does; `value` is its payload with the frame.

        Raises `errors.Stop` for a row that breaks a rule whose policy that is.
        """
        try:
            record: Any = schemaless_reader(BytesIO(value[FRAME_BYTES:]), self._writer, None)
            event = self._event(record, message, len(value))
        except (ValueError, KeyError, IndexError, EOFError, OverflowError, TypeError) as error:
            # fastavro names its buffer by address: equal damage shall read the same.
            what = "it ends too early" if isinstance(error, EOFError) else repr(error)
            wrong = DataError(f"the record does not match its schema: {what}")
            return poison(message, len(value), wrong)
        try:
            self._fill(event, record)
        except DataError as error:
            event.kind, event.error = POISON, bare(error)
        return event

    def _event(self, record: _Values, message: Message, size: int) -> Event:
        source = record["source"]
        stamp = Stamp(source["incarnation"], source["commit"], source["ordinal"], source["sub"])
        snapshot = source["snapshot"] != "false"
        return Event(UPSERT, self.schema, stamp, snapshot, message, size, source["ts_ms"])

    def _mirror(self, event: Event, record: _Values) -> None:
        """Make of the event what keeps the target equal to the source."""
        op = record["op"]
        if op in _ROWS:
            if not self._wants(record):
                event.kind, event.key = DELETE, self._left(record, op)
                return
            event.created = op != "u"
            event.row = row = self._after(record)
            event.key = key = self._key_of(row)
            if None in key and self._key_places:
                raise DataError(f"a key column of {self.schema.table} is null")
            if op == "u" and self._wants_old:
                event.old = self._old(record, key)
            if self._rules is not None and not self._rules.judge(row, self._tally):
                event.kind = SKIP
        elif op == "d":
            event.kind = DELETE
            event.key = self._before(record)
            if self._deleted is not None:
                self._mark(event, self._deleted)
        else:
            event.kind = TRUNCATE if op == "t" else SKIP

    def _mark(self, event: Event, deleted: int) -> None:
        """Make an update of a delete: the row stays as it is, with the time of its end."""
        event.kind = UPSERT
        row: list[Cell] = [ABSENT] * len(self._picks)
        for place, cell in zip(self.schema.key_indexes(), event.key, strict=True):
            row[place] = cell
        row[deleted] = moment(event.ts_ms)
        event.row = row

    def _version(self, event: Event, record: _Values) -> None:
        """Make of the event what begins a version, and ends the one before it."""
        if record["op"] == "t":
            raise DataError(
                f"a truncation would empty the history in {self.schema.table}",
                hint="Its versions stay as they were. End them by hand, where that is wanted.",
            )
        self._mirror(event, record)
        began, ended, until_ = range(len(self._picks) - len(VERSION), len(self._picks))
        if event.kind == UPSERT and event.row is not None:
            event.row[began] = moment(event.ts_ms)
        if event.kind == DELETE or (event.kind == UPSERT and record["op"] == "u"):
            row: list[Cell] = [ABSENT] * len(self._picks)
            for place, cell in zip(self.schema.key_indexes(), event.key, strict=True):
                row[place] = cell
            row[ended], row[until_] = moment(event.ts_ms), until(event.message)
            event.ended = row

    def _append(self, event: Event, record: _Values) -> None:
        """Make of the event a row of its own, whatever happened."""
        op = record["op"]
        if op not in _CHANGES or (op in _ROWS and not self._wants(record)):
            event.kind = SKIP
            return
        self._note(event, record, op)

    def _tell(self, event: Event, record: _Values) -> None:
        """Do as `_append`, with the place in the source; a row that leaves the filter goes."""
        op = record["op"]
        if op == "u" and not self._wants(record):
            op = "d"
        if op not in _CHANGES or (op in _ROWS and not self._wants(record)):
            event.kind = SKIP
            return
        self._note(event, record, op, position(event.stamp))

    def _note(self, event: Event, record: _Values, op: str, *more: Cell) -> None:
        """Make a row of the change, of the facts about it, and of `more`."""
        row: list[Cell] = [None] * len(self._picks)
        side = "before" if op == "d" and record["before"] is not None else "after"
        if op != "t":
            absent, exact = record[f"absent_{side}"] or (), record[f"exact_{side}"] or {}
            row = self._row(record[side], absent, exact)
        unsent = [n for n, cell in zip(self._names, row, strict=True) if cell is ABSENT]
        told = [*facts(event.message, op, event.ts_ms, unsent), *more]
        own: list[Cell] = [None if cell is ABSENT else cell for cell in row[: -len(told)]]
        event.row = whole = own + told
        event.key = self._key_of(whole)
        if self._rules is not None and op in _ROWS:
            event.kind = UPSERT if self._rules.judge(whole, self._tally) else SKIP

    def _wants(self, record: _Values) -> bool:
        return self._where is None or self._passes(record, self._where)

    def _after(self, record: _Values) -> list[Cell]:
        after = record["after"]
        if self._computes or record["absent_after"] or record["exact_after"]:
            return self._row(after, record["absent_after"] or (), record["exact_after"] or {})
        row: list[Cell] = [
            None if (value := after[field]) is None else decode(value)
            for field, decode in self._fast
        ]
        for place, value in self._constants:
            row.insert(place, value)
        return row

    def _row(self, values: _Values, absent: Collection[str], exact: _Values) -> list[Cell]:
        """Return a whole row in which some values were not sent or have no native form."""
        return [self._cell(pick, values, absent, exact) for pick in self._picks]

    def _cell(self, pick: _Pick, values: _Values, absent: Collection[str], exact: _Values) -> Cell:
        if pick.compute is not None:
            return pick.compute.cell(self._cells(pick.compute.columns, values, absent, exact))
        if not pick.name:
            return pick.convert(b"") if pick.convert is not None else None
        if pick.name in absent:
            return ABSENT
        value = values[pick.field]
        if pick.name in exact:
            text = str(exact[pick.name]).encode()
        elif value is None:
            return None
        else:
            text = pick.decode(value)
        return text if pick.convert is None else pick.convert(text)

    def _cells(
        self, columns: Iterable[str], values: _Values, absent: Collection[str], exact: _Values
    ) -> dict[str, Cell]:
        """Return the source's cells of some columns."""
        return {name: self._cell(self._sources[name], values, absent, exact) for name in columns}

    def _passes(self, record: _Values, where: Expression) -> bool:
        """Tell whether the row is one of the target's."""
        absent, exact = record["absent_after"] or (), record["exact_after"] or {}
        found = where.value(self._cells(where.columns, record["after"], absent, exact))
        if isinstance(found, bool):
            return found
        if found is ABSENT:
            raise where.lacking(where.columns)
        raise DataError(
            f"{where.place}: `{where.text}` gives {'null' if found is None else repr(found)}, "
            "not true or false",
            hint="Say what null means, as in `status != null && status == 'paid'`.",
        )

    def _left(self, record: _Values, op: str) -> Key:
        """Return the key under which the target may have a row that is not in the filter."""
        if op == "u" and record["before"] is not None:
            return self._before(record)
        return self._key(record, "after")

    def _before(self, record: _Values) -> Key:
        """Return the key of the row before."""
        return self._key(record, "before")

    def _key(self, record: _Values, side: str) -> Key:
        """Return the key of the row on one side, from the key columns alone."""
        values = record[side]
        absent, exact = record[f"absent_{side}"] or (), record[f"exact_{side}"] or {}
        row: list[Cell] = []
        for place, pick in enumerate(self._picks):
            wanted = place in self._key_places or not self._key_places
            row.append(self._cell(pick, values, absent, exact) if wanted else None)
        key = self._key_of(row)
        if ABSENT in key or (self._key_places and None in key):
            raise DataError(
                f"the old row of {self.schema.table} lacks key columns of the target",
                hint="Set REPLICA IDENTITY FULL on the source table, or use the topic's key.",
            )
        return key

    def _old(self, record: _Values, key: Key) -> Key | None:
        if record["before"] is None and self._key_places:
            return None
        if record["before"] is None:
            raise DataError(
                f"an update of {self.schema.table}, which has no key, came without its old row",
                hint="Set REPLICA IDENTITY FULL on the source table, or give the mapping a key.",
            )
        old = self._before(record)
        return None if old == key else old
