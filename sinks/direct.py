"""What targets have in common that write rows straight into their tables, beside the cursors.

    _applying: one transaction ─▶ cursors: compare and set ─▶ _write, step by step ─▶ COMMIT

A target says how it comes to a connection and what a step means to its tables; that rows and
cursors move together, and that a truncation is carried out where the cursors say that all stand at
it, is the same for each and stands here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

from cdc.failpoints import failpoint
from schemas.table import TableSchema
from sinks.target import Barrier, Cursor, Span, Step, TopicPartition

__all__ = ["Barriers", "Cursors", "DirectTarget", "Emptied"]

_C = TypeVar("_C")
_C_contra = TypeVar("_C_contra", contravariant=True)


class Cursors(Protocol[_C_contra]):
    """The cursors of one sink, in a table of the target: `sinks.ledger.CursorTable`."""

    def read(
        self, connection: _C_contra, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Cursor | None]:
        """Return what is stored; raises as `sinks.stored.cursor_of`."""
        ...

    def advance(self, connection: _C_contra, spans: Sequence[Span]) -> None:
        """Move every cursor from start to end. Raises `CursorMoved` when one is elsewhere."""
        ...

    def place(self, connection: _C_contra, cursors: Mapping[TopicPartition, Cursor | None]) -> None:
        """Put cursors where an operator wants them, whatever they were; None forgets one."""
        ...


class Barriers(Protocol[_C_contra]):
    """Who waits at a truncation, in a table of the target: `sinks.ledger.BarrierTable`."""

    def meet(
        self, connection: _C_contra, barrier: Barrier, empty: Callable[[], None]
    ) -> Sequence[int]:
        """Note who stands at the barrier; the last one calls `empty` and lets all go on."""
        ...


class Emptied(Protocol[_C_contra]):
    """A table as one version of its schema is written into it."""

    def truncate(self, connection: _C_contra) -> None:
        """Remove every row."""
        ...


_T = TypeVar("_T", bound=Emptied[Any])


class DirectTarget(ABC, Generic[_C, _T]):
    """Most of a `sinks.target.Target`; `_C` is its connection, `_T` its tables."""

    takes_lines = True

    def __init__(self, cursors: Cursors[_C], barriers: Barriers[_C]) -> None:
        self._cursors = cursors
        self._barriers = barriers
        self._tables: dict[TableSchema, _T] = {}
        self._behind: list[TableSchema] = []

    @abstractmethod
    def _using(self) -> AbstractContextManager[_C]:
        """Have the connection, and its errors named."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[_C]:
        """Have one transaction of it: all of it, or nothing when the block raises."""

    @abstractmethod
    def _applying(self) -> AbstractContextManager[_C]:
        """Have a transaction in which no other worker has reserved the sink."""

    @abstractmethod
    def _write(self, connection: _C, steps: Iterable[Step]) -> None:
        """Write the steps, one after the other, as they come."""

    @abstractmethod
    def _drop(self, behind: Sequence[TableSchema]) -> None:
        """Drop the columns that these versions lack, now that rows of theirs are committed."""

    def _forget_tables(self) -> None:
        """Learn anew what the target has, once it is opened again."""
        self._tables.clear()
        self._behind.clear()

    def cursors(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Cursor | None]:
        """Return what is stored; see `sinks.stored.cursor_of` for what it raises."""
        with self._using() as connection:
            return self._cursors.read(connection, partitions)

    def place(self, cursors: Mapping[TopicPartition, Cursor | None]) -> None:
        """Put cursors where an operator wants them; rows stay as they are."""
        with self._writing() as connection:
            self._cursors.place(connection, cursors)

    def apply(self, steps: Iterable[Step], spans: Sequence[Span]) -> None:
        """Compare and set the cursors, write the steps as they come, commit."""
        with self._applying() as connection:
            failpoint("sink.before_stage")
            known = list(spans)  # those of a batch larger than memory are known at its end
            failpoint("sink.before_cursor")
            self._cursors.advance(connection, known)
            self._write(connection, steps)
            self._cursors.advance(connection, spans[len(known) :])
            failpoint("sink.before_commit")
        failpoint("sink.after_commit")
        if self._behind:
            behind, self._behind = self._behind, []
            self._drop(behind)

    def meet(self, barrier: Barrier) -> Sequence[int]:
        """Stand at a truncation, or carry it out; see `sinks.stored.stand`."""
        with self._applying() as connection:

            def empty() -> None:
                self._tables[barrier.schema].truncate(connection)
                failpoint("sink.before_release")

            return self._barriers.meet(connection, barrier, empty)
