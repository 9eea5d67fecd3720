"""Events of one cut → steps for the target.

Inside one target transaction only the last state of a key can be seen, so events are merged per
key: a later row wins (columns it does not carry come from the earlier one, R6), a delete ends
what was before it, and a truncate forgets everything before it. A key change arrives as delete
and create (R8); a create that lacks values takes them from the row just deleted (R6). So does a
version that ends (`Event.ended`), from the row whose key it leaves.

`collapse` gives the fewest statements. `in_source_order` keeps the order of the source over all
tables; it is for constraints (a unique value handed over, foreign keys both ways) that only hold
along the way the source went.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from operator import itemgetter
from typing import NamedTuple

from schemas.change import ABSENT, Cell, Stamp
from schemas.table import TableId, TableSchema
from sinks.decode import DELETE, TRUNCATE, UPSERT, Event, Key
from sinks.sql import cells_of
from sinks.target import Mapped, Step

__all__ = ["change_of", "collapse", "in_source_order", "is_move", "runs", "source_order"]

_FIRST = Stamp(-1, -1)
_Row = list[Cell] | bytes
"""A row as cells, or whole as a line of COPY text."""
_UNSEEN = b""
"""No row and no deletion: what the target has of a key is what there is."""


class _Gone(NamedTuple):
    """The row that was deleted last: what there was of it, and whose target row has the rest."""

    place: tuple[int, ...]
    row: _Row | None
    origin: Key | None


class _Keyed:
    """The pending state of one keyed table: a row, or None for a deleted key.

    `_origins` are the old keys, in the target, of rows that moved and still lack values; None
    where such a row is nowhere, and not to be mistaken for an older one of the same key. `_known`
    are the keys of which the target may have a row, among those of upserts.
    """

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self._truncate = False
        self._rows: dict[Key, _Row | None] = {}
        self._origins: dict[Key, Key | None] = {}
        self._known: set[Key] = set()
        self._unseen: _Row | None = _UNSEEN
        self._gone: _Gone | None = None
        self._key = schema.key_indexes()

    def add(self, event: Event) -> None:
        rows = self._rows
        if event.ended is not None:
            self._end(event.key, event.ended)
        if event.kind == UPSERT:
            if event.old is not None:
                self._delete(event.old, event)
            row = event.row if event.line is None else event.line
            earlier = rows.pop(event.key, self._unseen)
            if earlier is None or earlier is _UNSEEN:
                self._begin(event, row, anew=earlier is None)
                earlier = None
            if self._gone is not None:
                earlier = self._moved(event, row) or earlier
            rows[event.key] = row if earlier is None else _filled(row, earlier)
        elif event.kind == DELETE:
            self._delete(event.key, event)
        else:
            rows.clear()
            self._origins.clear()
            self._gone = self._unseen = None
            self._truncate = True

    def _end(self, key: Key, ended: list[Cell]) -> None:
        """Keep the row that had `key` until now, under a key of its own."""
        earlier = self._rows.get(key, self._unseen)
        if earlier is None:
            return
        row = ended if earlier is _UNSEEN else _filled(ended, earlier)
        place = tuple(ended[column] for column in self._key)
        self._rows[place] = row
        if isinstance(row, list) and ABSENT in row:
            self._origins[place] = self._origins.get(key, key)

    def _begin(self, event: Event, row: _Row | None, *, anew: bool) -> None:
        """Take note of a key's first row here, `anew` where the row before it is gone."""
        if anew or not event.created:
            self._known.add(event.key)
        if anew and isinstance(row, list) and ABSENT in row:
            self._origins[event.key] = None

    def _delete(self, key: Key, event: Event) -> None:
        nowhere = self._rows.get(key, self._unseen) is None
        row = self._rows.pop(key, None)
        origin = self._origins.pop(key, key)
        self._gone = _Gone(change_of(event), row, None if nowhere else origin)
        self._rows[key] = None

    def _moved(self, event: Event, row: _Row | None) -> _Row | None:
        """Return the row that the one of `event` was under another key, when it lacks values."""
        gone, self._gone = self._gone, None
        if gone is None or gone.place != change_of(event) or not isinstance(row, list):
            return None
        if gone.origin is not None and ABSENT in row:
            self._origins[event.key] = gone.origin
        return gone.row if ABSENT in row else None

    def mapped(self) -> Mapped:
        upserts: list[Sequence[Cell]] = []
        deletes: list[Sequence[Cell]] = []
        lines: list[bytes] = []
        created: list[bytes] = []
        moves: list[tuple[Key, Sequence[Cell]]] = []
        known = self._known
        for key, row in self._rows.items():
            if isinstance(row, bytes):
                (lines if key in known else created).append(row)
            elif row is None:
                deletes.append(key)
            elif (origin := self._origins.get(key, key)) == key or ABSENT not in row:
                upserts.append(row)
            elif origin is None:
                deletes.append(key)
                upserts.append(row)
            else:
                moves.append((origin, row))
        lines += created
        return Mapped(self.schema, upserts, deletes, self._truncate, lines, moves, len(created))


def change_of(event: Event) -> tuple[int, ...]:
    """Return what the two records of a key change, and no others of a partition, share."""
    return event.place or (id(event),) if event.stamp is None else event.stamp[:3]


def is_move(run: Sequence[Event]) -> bool:
    """Tell whether `run` is a key change whose create lacks values: to be applied together."""
    if len(run) != 2 or run[0].kind != DELETE or change_of(run[0]) != change_of(run[1]):
        return False
    return run[1].row is not None and ABSENT in run[1].row and run[0].schema == run[1].schema


def _filled(row: _Row | None, earlier: _Row) -> _Row | None:
    """Return a row in which what it does not carry comes from the one before it."""
    if row is None or isinstance(row, bytes) or ABSENT not in row:
        return row
    if isinstance(earlier, bytes):
        earlier = cells_of(earlier)
    return [old if new is ABSENT else new for new, old in zip(row, earlier, strict=True)]


class _Keyless:
    """The pending state of a table without a key: rows in and rows out, as multisets."""

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self._truncate = False
        self._inserted: Counter[Key] = Counter()
        self._deleted: Counter[Key] = Counter()

    def add(self, event: Event) -> None:
        if event.kind == TRUNCATE:
            self._truncate = True
            self._inserted.clear()
            self._deleted.clear()
            return
        gone = event.old if event.kind == UPSERT else event.key
        if gone is not None:
            self._remove(gone)
        if event.kind == UPSERT:
            self._inserted[event.key] += 1

    def _remove(self, row: Key) -> None:
        """Take back a row of this cut before looking for one in the target."""
        if self._inserted[row] > 0:
            self._inserted[row] -= 1
        else:
            self._deleted[row] += 1

    def mapped(self) -> Mapped:
        upserts = list(self._inserted.elements())
        return Mapped(self.schema, [*upserts], [*self._deleted.elements()], self._truncate)


def _pending(schema: TableSchema) -> _Keyed | _Keyless:
    return _Keyed(schema) if schema.key else _Keyless(schema)


def collapse(events: Iterable[Event]) -> list[Step]:
    """Return the fewest steps that leave the target as `events`, in order, would.

    There is one step, and one more for each further version of a table inside the cut.
    """
    tables: dict[TableId, list[_Keyed | _Keyless]] = {}
    for event in events:
        schema = event.schema
        if schema is None:
            continue
        versions = tables.get(schema.table)
        if versions is None:
            versions = tables[schema.table] = [_pending(schema)]
        elif versions[-1].schema is not schema and versions[-1].schema != schema:
            versions.append(_pending(schema))
        versions[-1].add(event)
    mapped = [[pending.mapped() for pending in versions] for versions in tables.values()]
    return [[m for m in step if m is not None] for step in zip_longest(*mapped)]


def source_order(partitions: Iterable[Sequence[Event]]) -> list[Event]:
    """Merge the events of several partitions into the order of their sources.

    Inside a partition the offset's order is the truth, also for snapshot rows, whose own stamp
    may be older than that of a row before them.
    """
    placed: list[tuple[Stamp, Event]] = []
    for events in partitions:
        place = _FIRST
        for event in events:
            if event.stamp is not None and event.stamp > place:
                place = event.stamp
            placed.append((place, event))
    placed.sort(key=itemgetter(0))
    return [event for _, event in placed]


def runs(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Yield as many events in a row as may be merged: of one table and kind, no key twice.

    A key change whose create lacks values is a run of its own.
    """
    run: list[Event] = []
    kind: object = None
    keys: set[Key] = set()
    for event in events:
        if is_move([*run[-1:], event]):
            if run[:-1]:
                yield run[:-1]
            yield [run[-1], event]
            run, keys = [], set()
            continue
        this = (event.schema, event.kind, event.row is not None and ABSENT in event.row)
        if run and (this != kind or event.key in keys or event.old is not None):
            yield run
            run, keys = [], set()
        run.append(event)
        keys.add(event.key)
        kind = this
    if run:
        yield run


def in_source_order(events: Iterable[Event]) -> Iterator[Step]:
    """Yield one step for each run."""
    for run in runs(events):
        yield from collapse(run)
