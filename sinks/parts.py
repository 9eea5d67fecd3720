"""A record that goes to several tables: read once for each, one event until a cut, then several.

    record ─▶ read by each mapping ─▶ Split ─▶ lane, repetitions, cuts: a record has one place
                                        │
                                        └─▶ parts ─▶ screen, collapse, target, dead letters

How far a partition was read, what is a repetition and where a cut ends is decided for records, and
there a `Split` stands for what its record does. Behind the cut each part is an event like any
other: all of them go to the target in one transaction, and one that is refused is a dead letter of
its own, while the others are applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from sinks.collapse import change_of
from sinks.decode import DELETE, POISON, SKIP, TRUNCATE, Event

__all__ = ["Split", "all_parts", "parts_of", "split", "table_by_table", "unfolded"]

_PART_BYTES = 400
"""What a further part adds to the size of a record: half of its overhead, for a lane doubles it."""


class Split(Event, gc=False):
    """What one record does to several tables, an event for each of its `parts`.

    Its own `kind` is what holds the reading up the most: a truncation, else a delete. Every record
    of a topic that is split is one of these.
    """

    parts: tuple[Event, ...] = ()


def split(events: Sequence[Event]) -> Split:
    """Return what a record does, of what it does to each table.

    One that cannot be read is poison as a whole, with one part, which is of no table.
    """
    torn = [event for event in events if event.kind == POISON and event.schema is None]
    parts = tuple(torn[:1] or events)
    for part in parts:
        part.part = "" if part.schema is None else str(part.schema.table)
    first, kinds = parts[0], [part.kind for part in parts]
    return Split(
        max((kind for kind in kinds if kind < SKIP), default=max(kinds)),
        None,
        first.stamp,
        first.snapshot,
        first.message,
        sum(part.size for part in parts) + _PART_BYTES * (len(parts) - 1),
        first.ts_ms,
        place=first.place,
        error=first.error,
        parts=parts,
    )


def all_parts(event: Event) -> tuple[Event, ...]:
    """Return what `event` does to each table, also to one that its record leaves alone."""
    return event.parts if isinstance(event, Split) else (event,)


def parts_of(event: Event) -> Iterator[Event]:
    """Yield what `event` does to each table; to none that its record leaves alone.

    Tables that refer to others are listed behind them, so their rows are deleted first.
    """
    if not isinstance(event, Split):
        yield event
        return
    parts = event.parts[::-1] if event.kind in (DELETE, TRUNCATE) else event.parts
    yield from (part for part in parts if part.kind != SKIP)


def table_by_table(events: Iterable[Event]) -> list[Event]:
    """Return the parts of the events of one partition, in order.

    The two records of a key change come table by table: the delete of each before its create, and
    nothing in between.
    """
    out: list[Event] = []
    for _, records in groupby(events, change_of):
        tables: dict[str, list[Event]] = {}
        for record in records:
            for part in parts_of(record):
                tables.setdefault(part.part, []).append(part)
        out += (part for parts in tables.values() for part in parts)
    return out


def unfolded(events: list[Event]) -> list[Event]:
    """Return the parts of the events of one partition; these themselves where it is not split."""
    return table_by_table(events) if events and isinstance(events[0], Split) else events
