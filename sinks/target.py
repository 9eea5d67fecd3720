"""The contract between the sink worker and a system that receives changes.

A transactional target keeps the cursors beside the rows: `apply` moves rows and cursors in one
transaction of the target, or neither. The worker never remembers what was applied; it asks.

Promises of a target:

* `apply` compares each stored cursor with the span's start and moves it to the span's end in the
  same transaction as the rows. On a mismatch nothing is written and `CursorMoved` is raised
  with what is stored now.
* A lost reply to COMMIT is `errors.TargetUnavailable`; the worker reads the cursors again and
  learns whether it was applied.
* A record the target can never take is `errors.DataError`; nothing of the batch was written. A
  target that knows which rows it refuses says so with `RowsRefused`, which saves a search; one
  that is `Sparing` can leave them out on the way, which saves the second try.
* Rows come collapsed: at most one operation per key between two barriers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from cdc.errors import CdcError, DataError
from schemas.change import Cell, Stamp
from schemas.table import TableId, TableSchema

__all__ = [
    "Aside",
    "Barrier",
    "Cursor",
    "CursorMoved",
    "Mapped",
    "RowsRefused",
    "Span",
    "Sparing",
    "Step",
    "Target",
    "TopicPartition",
]


class TopicPartition(msgspec.Struct, frozen=True, order=True):
    """One partition. `topic_id` is the broker's id of the topic, another one after recreation."""

    topic: str
    topic_id: str
    partition: int


class Cursor(msgspec.Struct, frozen=True):
    """How far a partition was applied: the next offset, the newest source stamp (None: none)."""

    offset: int
    stamp: Stamp | None = None


class Span(msgspec.Struct, frozen=True):
    """What one apply covers of one partition: from the stored cursor (None: first) to the next."""

    partition: TopicPartition
    start: Cursor | None
    end: Cursor


class Barrier(msgspec.Struct, frozen=True):
    """A truncation that some of a table's partitions stand at, as one of several workers sees it.

    `schema` is the target's table; `spans` lead from the stored cursors to the truncation's
    record, `partitions` is how many there are. `snapshot` says that its stamp moves no cursor.
    """

    schema: TableSchema
    stamp: Stamp
    snapshot: bool
    spans: Sequence[Span]
    partitions: int

    @property
    def topic(self) -> tuple[str, str]:
        """The topic's name and id."""
        partition = self.spans[0].partition
        return partition.topic, partition.topic_id

    def behind(self, cursor: Cursor) -> Cursor:
        """Return where a cursor that stands at the truncation goes when it is released."""
        return Cursor(cursor.offset + 1, cursor.stamp if self.snapshot else self.stamp)


class CursorMoved(CdcError):
    """The stored cursors are not where the spans start; nothing was written."""

    def __init__(self, message: str, stored: Mapping[TopicPartition, Cursor | None]) -> None:
        super().__init__(message)
        self.stored = stored


class RowsRefused(DataError):
    """A `DataError` of a target that knows which rows it can never take; nothing was written.

    `rows` are their reasons by table and key, of a table without a key the whole row. A value
    that waits for other rows, of a foreign or unique key, is none of them.
    """

    def __init__(self, rows: Mapping[tuple[TableId, tuple[Cell, ...]], str]) -> None:
        super().__init__(f"the target refuses a row: {next(iter(rows.values()))}")
        self.rows = rows


Aside = Callable[[Mapping[tuple[TableId, tuple[Cell, ...]], str]], None]
"""Makes dead letters of rows, given as in `RowsRefused.rows`, which it raises where the others
cannot be applied as they are."""


class Mapped(msgspec.Struct):
    """What happens to one target table between two barriers, at most one operation per key.

    `schema` is the target's: names, types and key after mapping. `upserts` are whole rows in
    column order, in which ABSENT leaves that column alone; `deletes` are key values in key
    order. A row whose key changed is in both: its old key in `deletes`, itself in `upserts`.
    `lines` are further upserts, as COPY text without a newline (`sinks.sql.cells_of` reads them);
    only a target that `takes_lines` gets any. The last `created` of them are of rows that the
    source made: the target has none of their keys, unless it was ahead or is filled anew.
    For a table without a key `upserts` are inserts and `deletes` whole rows, one match each.
    `truncate` empties the table before anything else of this step.
    `moves` are pairs of an old key and a further upsert: its ABSENT values are those of the row
    that has the old key when the step begins, a row that is also in `deletes`, replaced or
    changed.
    """

    schema: TableSchema
    upserts: list[Sequence[Cell]]
    deletes: list[Sequence[Cell]]
    truncate: bool = False
    lines: Sequence[bytes] = ()
    moves: Sequence[tuple[Sequence[Cell], Sequence[Cell]]] = ()
    created: int = 0


Step = Sequence[Mapped]
"""What may be applied in any table order; steps are applied one after the other. They come as an
iterable that may be read once: a large source transaction is never whole in memory (R14)."""


class Target(Protocol):
    """See the module's text. Every method may raise `errors.Unavailable` or `errors.Stop`."""

    takes_lines: bool

    def open(self) -> None:
        """Connect, create the cursor table where it is missing, check what can be checked."""
        ...

    def cursors(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Cursor | None]:
        """Return what is stored for `partitions`; None where nothing was ever applied."""
        ...

    def place(self, cursors: Mapping[TopicPartition, Cursor | None]) -> None:
        """Put cursors where an operator wants them, whatever they were; None forgets one."""
        ...

    def prepare(self, schema: TableSchema, *, known: bool = False) -> None:
        """Create the table or add its columns by policy. Raises `errors.SchemaIncompatible`.

        `known` says that changes were applied to it before: when it is gone, an empty one would
        hide a loss, so that is `errors.StateError`.
        """
        ...

    def apply(self, steps: Iterable[Step], spans: Sequence[Span]) -> None:
        """Apply the steps in order and move every cursor, in one transaction (R4)."""
        ...

    def rehearse(self, transactions: Iterable[Sequence[Step]]) -> Mapping[int, DataError]:
        """Return which steps the target refuses, by their place, and why; roll everything back.

        Each step is tried behind those before it that were taken: for isolating poison. Steps come
        as those of one source transaction after those of another, and are counted through; what
        the target asks at the end of a transaction must hold behind each.
        """
        ...

    def meet(self, barrier: Barrier) -> Sequence[int]:
        """Wait at a truncation for the other partitions of its table, without blocking (R8).

        Notes, with the cursors, that those of `barrier` stand there, and returns the numbers of
        those that do not yet. When all do, the table is emptied and every cursor moved behind the
        truncation, in one transaction; nothing is returned, then and when asked again. Raises
        `CursorMoved`, and `errors.StateError` when a partition has passed without waiting.
        """
        ...

    def reserve(self) -> None:
        """Keep the other workers of the sink from applying, until this target is closed.

        Raises `errors.TargetUnavailable` when another one has done so; until it is closed, their
        `apply` and `meet` raise it too.
        """
        ...

    def close(self) -> None:
        """Let go of every connection; safe to call twice and after an error."""
        ...


@runtime_checkable
class Sparing(Protocol):
    """A transactional target that can leave rows out of a batch it has begun to write."""

    def apply_others(self, steps: Sequence[Step], spans: Sequence[Span], aside: Aside) -> None:
        """Apply as `Target.apply` does, but for rows that can never be taken.

        They are given to `aside` inside the transaction, before anything of it can be seen, and
        when that returns they are dead letters and not written. What it raises undoes everything.
        """
        ...
