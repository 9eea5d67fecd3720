"""Which events are to blame for rows that a target refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cdc.errors import DataError
from schemas.change import ABSENT
from schemas.table import TableId
from sinks.decode import Event, Key
from sinks.refusals import bare

__all__ = ["Reasons", "alone", "blamed", "named"]

Reasons = Mapping[tuple[TableId, Key], str]
"""Why rows are refused, by table and key, of a table without a key the whole row."""


def named(events: Sequence[Event], reasons: Reasons) -> list[Event]:
    """Return the events behind refused rows: the newest of each key.

    None is returned, and each is to be tried alone, where that may be another one: a row that was
    put together from several events may be refused for an older one's value, one of an older
    version of the table is not the newest event's, and rows without a key are told apart by
    nothing but what was done with them.
    """
    keys = {key for _, key in reasons}
    newest: dict[tuple[TableId, Key], Event] = {}
    for event in reversed(events):
        if event.key not in keys or event.schema is None:
            continue
        row = (event.schema.table, event.key)
        if row not in reasons:
            continue
        if not _tells_as(newest.setdefault(row, event), event):
            return []
    if len(newest) < len(reasons):
        return []
    found = [
        blamed(event, DataError(f"the target refuses a row: {reasons[row]}"))
        for row, event in newest.items()
    ]
    return found[::-1]


def _tells_as(newest: Event, event: Event) -> bool:
    """Tell whether what is said of the row is said of the newest event, seen an older one."""
    if newest is event:
        return event.row is None or ABSENT not in event.row
    same = newest.schema is event.schema or newest.schema == event.schema
    has_key = event.schema is not None and bool(event.schema.key)
    return same and (has_key or newest.kind == event.kind)


def alone(events: Sequence[Event], reasons: Reasons) -> bool:
    """Tell whether each refused row comes of one event, which does nothing else.

    Without it the others leave of its key what they would have left without that event.
    """
    keys = {key for _, key in reasons}
    met = 0
    for event in events:
        if event.old is not None and event.old in keys:
            return False
        if event.key not in keys or event.schema is None:
            continue
        if (event.schema.table, event.key) in reasons:
            if event.old is not None or event.ended is not None:
                return False
            met += 1
    return met == len(reasons)


def blamed(event: Event, error: DataError) -> Event:
    """Note in `event` why it is refused."""
    event.error = bare(error)
    return event
