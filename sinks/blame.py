"""Which events are to blame for rows that a target refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cdc.errors import DataError
from schemas.change import ABSENT, Cell
from schemas.table import TableId
from sinks.decode import Event
from sinks.refusals import bare

__all__ = ["Reasons", "alone", "blamed", "named"]

Reasons = Mapping[tuple[TableId, tuple[Cell, ...]], str]
"""Why rows are refused, by table and key, of a table without a key the whole row."""


def named(events: Sequence[Event], reasons: Reasons) -> list[Event]:
    """Return the events behind refused rows: the newest of each key.

    A row that was put together from several events may be refused for an older one's value: none
    is returned then, and each is to be tried alone.
    """
    keys = {key for _, key in reasons}
    left = dict(reasons)
    out = []
    for event in reversed(events):
        if event.key not in keys or event.schema is None:
            continue
        reason = left.pop((event.schema.table, event.key), None)
        if reason is None:
            continue
        if event.row is not None and ABSENT in event.row:
            return []
        out.append(blamed(event, DataError(f"the target refuses a row: {reason}")))
    return out[::-1] if not left else []


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
