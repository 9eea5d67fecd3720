"""What a target keeps beside the rows, as values: cursors, and who stands at a truncation (R8).

Each database has tables and statements of its own; what their rows mean, and when they must not
be used, is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from cdc.errors import StateError, TopicChanged
from schemas.change import Stamp
from sinks.target import Barrier, Cursor, CursorMoved, Span, TopicPartition

__all__ = [
    "VERSION",
    "Place",
    "Places",
    "cursor_of",
    "displaced",
    "has_passed",
    "missing",
    "place_of",
    "released",
    "stamp_of",
    "stand",
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


def displaced(count: int) -> CursorMoved:
    """Return the error for a compare-and-set that found `count` cursors elsewhere."""
    return CursorMoved(f"{count} cursors are not where they were left", {})


class Place(msgspec.Struct, frozen=True):
    """A partition: its cursor, and the truncation it stands at."""

    cursor: Cursor
    stands_at: Stamp | None


Places = Mapping[int, Place]
"""Number of a partition → where it is; those never applied are missing."""


def place_of(row: Sequence[Any]) -> Place:
    """Return the place in (…, next offset, its stamp, the stamp it stands at); a stamp is four."""
    return Place(Cursor(row[1], stamp_of(row[2:6])), stamp_of(row[6:10]))


def has_passed(places: Places, barrier: Barrier) -> bool:
    """Tell whether the partitions of `barrier` were let go on from it before."""

    def is_behind(span: Span) -> bool:
        place = places.get(span.partition.partition)
        return place is not None and place.cursor == barrier.behind(span.end)

    return all(map(is_behind, barrier.spans))


def missing(places: Places, barrier: Barrier) -> list[int]:
    """Return the partitions that do not stand at `barrier`, to which its own have come.

    Raises `sinks.target.CursorMoved` when one of its own is elsewhere, `errors.StateError` when
    another has passed without waiting.
    """
    for span in barrier.spans:
        place = places.get(span.partition.partition)
        if place is None or place.cursor.offset != span.end.offset:
            raise CursorMoved(f"the cursor of {span.partition} left the truncation", {})
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


def stand(
    barrier: Barrier,
    look: Callable[[], Places],
    come_closer: Sequence[Callable[[], Sequence[int]]],
    let_on: Callable[[Places], None],
) -> Sequence[int]:
    """Note who stands at `barrier`; the last one lets all go on. Return who is waited for.

    Each of `come_closer` does a step, arriving first, and returns the partitions somebody else
    holds. Raises as `missing` does.
    """
    places = look()
    if has_passed(places, barrier):
        return ()
    for step in come_closer:
        held = step()
        # Each look sees what others did since the one before: they may have let us go on.
        places = look()
        if has_passed(places, barrier):
            return ()
        waiting = missing(places, barrier) or held
        if waiting:
            return waiting
    let_on(places)
    return ()


def released(places: Places, barrier: Barrier) -> list[Span]:
    """Return how every cursor moves when the truncation is carried out."""
    topic, topic_id = barrier.topic
    return [
        Span(TopicPartition(topic, topic_id, n), place.cursor, barrier.behind(place.cursor))
        for n, place in places.items()
    ]
