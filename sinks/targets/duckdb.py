"""DuckDB as a target: rows and cursors in one transaction of one file, exactly once.

    open the file ─▶ BEGIN ─▶ cursors: compare ─▶ stage, delete, insert, ─▶ COMMIT ─▶ close
    no other process          and set             table by table            both or    free to
    has it meanwhile                                                        neither    be read

Why a change is applied once: the cursor moves from the very offset the span starts at, in the
transaction that holds the rows. Whoever comes second finds it moved and writes nothing. A killed
process leaves a log without a commit, which DuckDB ignores when the file is next opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cdc.connector import Context, Finding
from cdc.errors import DataError, TargetUnavailable
from cdc.failpoints import failpoint
from schemas.change import Cell
from schemas.table import TableId, TableSchema
from sinks.duckdb import catalog
from sinks.duckdb.files import Connection, File
from sinks.duckdb.preflight import findings
from sinks.duckdb.table import Table
from sinks.folder import located
from sinks.ledger import BarrierTable, CursorTable
from sinks.mapping import fixed_targets
from sinks.options import BUFFER_BYTES, BufferBytes, Changes, Topics
from sinks.refusals import vanished
from sinks.reservation import Reservation
from sinks.target import Barrier, Cursor, RowsRefused, Span, Step, TopicPartition

__all__ = ["Config", "DuckdbTarget", "check", "create", "drop"]

_SIZE = r"^\d+(\.\d+)? ?[KMGT]i?B$"


class Config(BaseModel):
    """A sink into a DuckDB file."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["duckdb"] = Field(default="duckdb", description="The connector's name")
    path: Path = Field(description="The file; made when it is missing, its folder must be there")
    tables: Topics
    schema_changes: Changes
    buffer_bytes: BufferBytes = BUFFER_BYTES
    memory_limit: str = Field(
        default="1GB", pattern=_SIZE, description="What DuckDB may hold in memory during a batch"
    )


def create(context: Context, config: Config) -> DuckdbTarget:
    """Return the target; it opens the file when it is opened."""
    return DuckdbTarget(context, config)


class DuckdbTarget:
    """See `sinks.target.Target`. One connection while a batch lasts, one thread at a time."""

    takes_lines = True

    def __init__(self, context: Context, config: Config) -> None:
        path = located(config.path)
        self._file = File(path, config.memory_limit)
        self._rules = config.schema_changes
        self._reservation = Reservation(path, context)
        self._cursors = CursorTable(context)
        self._barriers = BarrierTable(context, self._cursors)
        self._tables: dict[TableSchema, Table] = {}
        self._behind: list[TableSchema] = []
        self._number = count()
        self._is_open = False

    def open(self) -> None:
        """Make the file and its table of cursors where they are missing."""
        self.close()
        with self._file.used() as connection:
            self._cursors.create(connection)
        self._file.note()
        self._is_open = True

    def close(self) -> None:
        """Forget what was learnt of the file; it is open during a batch only."""
        self._is_open = False
        self._tables.clear()
        self._behind.clear()
        self._file.forget()
        self._reservation.release()

    def cursors(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Cursor | None]:
        """Return what is stored; see `sinks.stored.cursor_of` for what it raises."""
        with self._live().used() as connection:
            return self._cursors.read(connection, partitions)

    def place(self, cursors: Mapping[TopicPartition, Cursor | None]) -> None:
        """Put cursors where an operator wants them; rows stay as they are."""
        with self._live().written() as connection:
            self._cursors.place(connection, cursors)

    def prepare(self, schema: TableSchema, *, known: bool = False) -> None:
        """Make or complete the table by policy."""
        if schema in self._tables:
            return
        file = self._live()
        with file.used() if file.is_writing else file.written() as connection:
            if known and catalog.read(connection, schema.table) is None:
                raise vanished(schema.table)
            catalog.refuse_shared(schema.table, (known.table for known in self._tables))
            existing = catalog.ensure(connection, schema, self._rules)
        self._tables[schema] = Table(next(self._number), schema, existing)
        if not file.is_writing:
            self._adopt(existing)
        self._behind.append(schema)

    def _adopt(self, existing: catalog.Existing) -> None:
        """Write older versions as the table is now."""
        for version, table in self._tables.items():
            if table.is_of(existing):
                self._tables[version] = Table(next(self._number), version, existing)

    def _drop(self) -> None:
        """Drop the columns that new versions lack, now that rows of theirs are committed."""
        behind, self._behind = self._behind, []
        for schema in behind:
            if not schema.former:
                continue
            with self._live().written() as connection:
                existing = catalog.drops(connection, schema, self._rules)
            if existing is not None:
                self._adopt(existing)

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
            self._drop()

    def meet(self, barrier: Barrier) -> Sequence[int]:
        """Stand at a truncation, or carry it out; see `sinks.ledger`."""
        with self._applying() as connection:

            def empty() -> None:
                self._tables[barrier.schema].truncate(connection)
                failpoint("sink.before_release")

            return self._barriers.meet(connection, barrier, empty)

    def reserve(self) -> None:
        """Have the sink alone, once whoever applies now is done."""
        file = self._live()
        self._reservation.take()
        with file.used():
            return  # who began before the reservation had the file, and has ended

    def rehearse(self, steps: Iterable[Step]) -> Mapping[int, DataError]:
        """Try the steps in order, and roll everything back.

        DuckDB has no savepoints: when a step is refused half-way, those that were taken are done
        again. (Rows with values that are none of their type are refused before anything is.)
        """
        waiting: Sequence[tuple[int, Step]] = list(enumerate(steps))
        taken: list[Step] = []
        refused: dict[int, DataError] = {}
        while waiting:
            with self._live().written(keep=False) as connection:
                self._write(connection, taken)
                waiting = self._tried(connection, waiting, taken, refused)
        return refused

    def _tried(
        self,
        connection: Connection,
        waiting: Sequence[tuple[int, Step]],
        taken: list[Step],
        refused: dict[int, DataError],
    ) -> Sequence[tuple[int, Step]]:
        """Try steps until one is refused half-way; return those behind it."""
        for place, (number, step) in enumerate(waiting):
            try:
                with self._file.used():
                    self._write(connection, [step])
            except RowsRefused as error:
                refused[number] = error
            except DataError as error:
                refused[number] = error
                return waiting[place + 1 :]
            else:
                taken.append(step)
        return ()

    def _write(self, connection: Connection, steps: Iterable[Step]) -> None:
        for step in steps:
            staged = [self._tables[m.schema].stage(connection, m) for m in step]
            refused: dict[tuple[TableId, tuple[Cell, ...]], str] = {
                (work.table.schema.table, key): why
                for work in staged
                for key, why in work.refused.items()
            }
            if refused:
                raise RowsRefused(refused)
            for work in staged:
                work.table.write(connection, work)

    @contextmanager
    def _applying(self) -> Iterator[Connection]:
        with self._live().written() as connection, self._reservation.respected():
            yield connection

    def _live(self) -> File:
        if not self._is_open:
            raise TargetUnavailable(f"{self._file.path} is closed")
        return self._file


def check(_context: Context, config: Config) -> Iterator[Finding]:
    """Look at the folder, the disk, the file, and every table the mapping names."""
    yield from findings(
        located(config.path),
        fixed_targets(config.tables),
        may_create=config.schema_changes.creates,
        buffer_bytes=config.buffer_bytes,
        memory_limit=config.memory_limit,
    )


def drop(context: Context, config: Config, *, dry_run: bool) -> Iterator[str]:
    """Forget the cursors of this sink; tables and rows stay."""
    file = File(located(config.path), config.memory_limit)
    if not file.path.exists():
        return
    yield f"cursors of sink {context.name} in {file.path}"
    if not dry_run:
        cursors = CursorTable(context)
        with file.written() as connection:
            cursors.create(connection)
            BarrierTable(context, cursors).forget(connection)
            cursors.forget(connection)
