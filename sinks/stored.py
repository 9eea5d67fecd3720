"""What a target keeps beside the rows, as values: cursors, and who stands at a truncation (R8).

Each database has tables and statements of its own; what their rows mean, and when they must not
be used, is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cdc.errors import StateError, TopicChanged
from schemas.change import Stamp
from schemas.table import TableId
from sinks.target import Barrier, Cursor, Span, TopicPartition

__all__ = [
    "VERSION",
    "Place",
    "Places",
    "cursor_of",
    "is_behind",
    "missing",
    "stamp_of",
    "vanished",
]

VERSION = 1
"""Of the stored rows; a newer one is refused by name."""


def stamp_of(row: Sequence[Any]) -> Stamp | None:
    """Return the stamp in (incarnation, commit, ordinal, sub), None where they are NULL."""
    return None if row[0] is None else Stamp(*row)


def cursor_of(row: Sequence[Any] | None, partition: TopicPartition, sink: str) -> Cursor | None:
    """Return the cursor in (topic id, next offset, four of a stamp, version); None: no row.

    Raises `errors.TopicChanged` when the topic is another one than the cursor was made for,
    `errors.StateError` when a newer version wrote the cursor.
    """
    if row is None:
        return None
    topic_id, offset, *stamp, version = row
    if version > VERSION:
        raise StateError(
            f"the cursor of {partition.topic}[{partition.partition}] was written by a newer "
            f"version ({version} > {VERSION})",
            hint="Upgrade this worker.",
        )
    if topic_id != partition.topic_id:
        raise TopicChanged(
            f"topic {partition.topic} was recreated: the cursor is of {topic_id}, the topic "
            f"is {partition.topic_id}",
            hint=f"Its offsets start anew. Decide where to go on: "
            f"`cdc sink rewind {sink} --to earliest`.",
        )
    return Cursor(offset, stamp_of(stamp))


class Place(msgspec.Struct, frozen=True):
    """A partition: its cursor, and the truncation it stands at."""

    cursor: Cursor
    stands_at: Stamp | None


Places = Mapping[int, Place]
"""Number of a partition → where it is; those never applied are missing."""


def is_behind(places: Places, span: Span, barrier: Barrier) -> bool:
    """Tell whether a partition was let go on from `barrier` before."""
    place = places.get(span.partition.partition)
    return place is not None and place.cursor == barrier.behind(span.end)


def missing(places: Places, barrier: Barrier) -> list[int]:
    """Return the partitions that do not stand at `barrier`.

    Raises `errors.StateError` when one has passed it without waiting.
    """
    out = []
    for number in range(barrier.partitions):
        place = places.get(number)
        if place is not None and place.stands_at == barrier.stamp:
            continue
        stamp = None if place is None else place.cursor.stamp
        if stamp is not None and stamp >= barrier.stamp and not barrier.snapshot:
            raise StateError(
                f"{barrier.topic[0]}[{number}] is behind a truncation at {tuple(stamp)} that "
                "other partitions have not reached",
                hint="Their cursors were placed on both sides of it. Put all of them on one: "
                "`cdc sink rewind NAME --to earliest --topic TOPIC`.",
            )
        out.append(number)
    return out


def vanished(table: TableId) -> StateError:
    """Return the error for a table that changes were applied to, and that is not there."""
    return StateError(
        f"table {table} is gone, and changes were applied to it before",
        hint="Bring it back, or fill it anew: `cdc sink rewind NAME --to earliest "
        "--topic TOPIC` where the topic holds everything, else `cdc backfill`.",
    )
