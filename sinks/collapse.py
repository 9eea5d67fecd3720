"""Events of one cut → steps for the target.

Inside one target transaction only the last state of a key can be seen, so events are merged per
key: a later row wins (columns it does not carry come from the earlier one, R6), a delete ends
what was before it, and a truncate forgets everything before it. A key change arrives as delete
and create and needs no rule of its own (R8).

`collapse` gives the fewest statements. `in_source_order` keeps the order of the source over all
tables; it is for constraints (a unique value handed over, foreign keys both ways) that only hold
along the way the source went.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from operator import itemgetter

from schemas.change import ABSENT, Cell, Stamp
from schemas.table import TableId, TableSchema
from sinks.decode import DELETE, TRUNCATE, UPSERT, Event, Key
from sinks.sql import cells_of
from sinks.target import Mapped, Step

__all__ = ["collapse", "in_source_order", "runs", "source_order"]

_FIRST = Stamp(-1, -1)
_Row = list[Cell] | bytes
"""A row as cells, or whole as a line of COPY text."""


class _Keyed:
    """The pending state of one keyed table: a row, or None for a deleted key."""

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self._truncate = False
        self._rows: dict[Key, _Row | None] = {}

    def add(self, event: Event) -> None:
        rows = self._rows
        if event.kind == UPSERT:
            if event.old is not None:
                rows[event.old] = None
            earlier = rows.pop(event.key, None)
            row = event.row if event.line is None else event.line
            rows[event.key] = row if earlier is None else _filled(row, earlier)
        elif event.kind == DELETE:
            rows.pop(event.key, None)
            rows[event.key] = None
        else:
            rows.clear()
            self._truncate = True

    def mapped(self) -> Mapped:
        upserts: list[Sequence[Cell]] = []
        deletes: list[Sequence[Cell]] = []
        lines: list[bytes] = []
        for key, row in self._rows.items():
            if isinstance(row, bytes):
                lines.append(row)
            elif row is None:
                deletes.append(key)
            else:
                upserts.append(row)
        return Mapped(self.schema, upserts, deletes, self._truncate, lines)


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
    """Yield as many events in a row as may be merged: of one table and kind, no key twice."""
    run: list[Event] = []
    kind: object = None
    keys: set[Key] = set()
    for event in events:
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
