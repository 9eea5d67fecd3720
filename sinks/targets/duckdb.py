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
from contextlib import AbstractContextManager, contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cdc.connector import Context, Finding
from cdc.errors import DataError, TargetUnavailable
from cdc.verify.readable import Wanted
from schemas.change import Cell
from schemas.table import TableId, TableSchema
from sinks.direct import DirectTarget
from sinks.duckdb import catalog
from sinks.duckdb.files import Connection, File
from sinks.duckdb.preflight import findings
from sinks.duckdb.readable import DuckdbTable
from sinks.duckdb.table import Table
from sinks.folder import located
from sinks.ledger import BarrierTable, CursorTable, forget
from sinks.mapping import fixed_targets
from sinks.options import BUFFER_BYTES, BufferBytes, Changes, Topics
from sinks.refusals import bare, vanished
from sinks.reservation import Reservation
from sinks.target import RowsRefused, Step

__all__ = ["Config", "DuckdbTarget", "check", "create", "drop", "readable"]

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


class DuckdbTarget(DirectTarget[Connection, Table]):
    """See `sinks.target.Target`. One connection while a batch lasts, one thread at a time."""

    def __init__(self, context: Context, config: Config) -> None:
        path = located(config.path)
        self._file = File(path, config.memory_limit)
        self._rules = config.schema_changes
        self._reservation = Reservation(path, context)
        self._ledger = CursorTable(context)
        super().__init__(self._ledger, BarrierTable(context, self._ledger))
        self._number = count()
        self._is_open = False

    def open(self) -> None:
        """Make the file and its table of cursors where they are missing."""
        self.close()
        with self._file.used() as connection:
            self._ledger.create(connection)
        self._file.note()
        self._is_open = True

    def close(self) -> None:
        """Forget what was learnt of the file; it is open during a batch only."""
        self._is_open = False
        self._forget_tables()
        self._file.forget()
        self._reservation.release()

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

    def _drop(self, behind: Sequence[TableSchema]) -> None:
        for schema in behind:
            if not schema.former:
                continue
            with self._live().written() as connection:
                existing = catalog.drops(connection, schema, self._rules)
            if existing is not None:
                self._adopt(existing)

    def reserve(self) -> None:
        """Have the sink alone, once whoever applies now is done."""
        file = self._live()
        self._reservation.take()
        with file.used():
            return  # who began before the reservation had the file, and has ended

    def rehearse(self, transactions: Iterable[Sequence[Step]]) -> Mapping[int, DataError]:
        """Try the steps in order, and roll everything back.

        DuckDB has no savepoints: when a step is refused half-way, those that were taken are done
        again. (Rows with values that are none of their type are refused before anything is.)
        """
        waiting: Sequence[tuple[int, Step]] = list(enumerate(chain.from_iterable(transactions)))
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
                refused[number] = bare(error)
            except DataError as error:
                refused[number] = bare(error)
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

    def _using(self) -> AbstractContextManager[Connection]:
        return self._live().used()

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._live().written()

    @contextmanager
    def _applying(self) -> Iterator[Connection]:
        with self._writing() as connection, self._reservation.respected():
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


def readable(_context: Context, config: Config, wanted: Wanted) -> DuckdbTable:
    """Return a table's rows, for `cdc verify`; the file is open during a question only."""
    return DuckdbTable(located(config.path), config.memory_limit, wanted)


def drop(context: Context, config: Config, *, dry_run: bool) -> Iterator[str]:
    """Forget the cursors of this sink; tables and rows stay."""
    file = File(located(config.path), config.memory_limit)
    if not file.path.exists():
        return
    yield f"cursors of sink {context.name} in {file.path}"
    if not dry_run:
        with file.written() as connection:
            forget(context, connection)
