"""Deleting rows of the target that the source has not, beside a sink at work.

    cursors read ─▶ the source looked at once more ─▶ one target transaction: the deletes,
                                                      every cursor from where it was to where it was

Why no row of the source can be lost. A row that the source makes after it was looked at reaches the
topic behind everything that was there when the cursors were read: it is applied later, over the
delete. If the sink applied anything of the topic between the look and the delete, the cursors are
no longer where they were read; then nothing is written (R4), and everything is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cdc.errors import StateError, TargetUnavailable
from schemas.change import Cell
from schemas.table import TableSchema
from sinks.target import CursorMoved, Mapped, Span, Target, TopicPartition

__all__ = ["remove"]

_TRIES = 100

Keys = Sequence[Sequence[Cell]]
"""Values of the target's key columns, in key order."""


def remove(
    target: Target,
    schema: TableSchema,
    partitions: Sequence[TopicPartition],
    surplus: Callable[[], Keys],
) -> int:
    """Delete what `surplus` says the source has not, now; return how many rows that were.

    Raises `errors.StateError` before the sink has applied anything of the topic,
    `errors.TargetUnavailable` where it never stands still, and as `Target.apply` does.
    """
    target.prepare(schema, known=True)
    for _ in range(_TRIES):
        cursors = target.cursors(partitions)
        spans = [Span(p, cursor, cursor) for p, cursor in cursors.items() if cursor is not None]
        if len(spans) != len(partitions) or not spans:
            raise StateError(
                f"the sink has no cursor for every partition of the topic of {schema.table}",
                hint="Rows can be deleted safely beside a sink that has begun: let it run first.",
            )
        keys = surplus()
        if not keys:
            return 0
        try:
            target.apply([[Mapped(schema, [], list(keys))]], spans)
        except CursorMoved:
            continue
        return len(keys)
    raise TargetUnavailable(
        f"{schema.table}: the sink applied something at each of {_TRIES} attempts to delete rows",
        hint="Run it again when there is less to apply, or `cdc pause` the sink for a moment.",
    )
