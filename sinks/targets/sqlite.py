"""SQLite as a target: rows and cursors in one transaction of one file, exactly once.

    BEGIN IMMEDIATE ─▶ cursors: compare and set ─▶ deletes, upserts, step by step ─▶ COMMIT
    the file's one      a second worker stops here    straight into the tables       both or
    write lock                                                                       neither

Why a change is applied once: the cursor moves from the very offset the span starts at, in the
transaction that holds the rows. Whoever comes second finds it moved and writes nothing. A killed
process leaves a log without a commit, which SQLite ignores when the file is next opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from sqlite3 import Connection
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cdc.connector import Context, Finding
from cdc.errors import DataError, TargetUnavailable
from cdc.verify.readable import Wanted
from schemas.table import TableSchema
from sinks.direct import DirectTarget
from sinks.folder import located
from sinks.ledger import BarrierTable, CursorTable, forget
from sinks.mapping import fixed_targets
from sinks.options import BUFFER_BYTES, BufferBytes, Changes, Topics
from sinks.refusals import bare, vanished
from sinks.reservation import Reservation
from sinks.sqlite.catalog import Catalog, refuse_shared
from sinks.sqlite.files import (
    connect,
    is_foreign_key,
    named_errors,
    rolled_back,
    savepoint,
    writing,
)
from sinks.sqlite.preflight import findings
from sinks.sqlite.readable import SqliteTable
from sinks.sqlite.table import Table
from sinks.target import Step

__all__ = ["Config", "SqliteTarget", "check", "create", "drop", "readable"]


class Config(BaseModel):
    """A sink into a SQLite file."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["sqlite"] = Field(default="sqlite", description="The connector's name")
    path: Path = Field(description="The file; made when it is missing, its folder must be there")
    tables: Topics
    schema_changes: Changes
    buffer_bytes: BufferBytes = BUFFER_BYTES


def create(context: Context, config: Config) -> SqliteTarget:
    """Return the target; it opens the file when it is opened."""
    return SqliteTarget(context, config)


class SqliteTarget(DirectTarget[Connection, Table]):
    """See `sinks.target.Target`. One connection, one thread at a time."""

    def __init__(self, context: Context, config: Config) -> None:
        self._path = located(config.path)
        self._rules = config.schema_changes
        self._reservation = Reservation(self._path, context)
        self._ledger = CursorTable(context)
        super().__init__(self._ledger, BarrierTable(context, self._ledger))
        self._connection: Connection | None = None
        self._inode = 0

    def open(self) -> None:
        """Open the file and make the table of cursors where it is missing."""
        self.close()
        self._connection = connect(self._path)
        with self._named_errors():
            self._ledger.create(self._connection)
        self._inode = self._path.stat().st_ino

    def close(self) -> None:
        """Let go of the file."""
        connection, self._connection = self._connection, None
        self._forget_tables()
        if connection is not None:
            connection.close()
        self._reservation.release()

    def prepare(self, schema: TableSchema, *, known: bool = False) -> None:
        """Make or complete the table by policy."""
        if schema in self._tables:
            return
        with self._named_errors():
            catalog = Catalog(self._live())
            if known and catalog.read(schema.table) is None:
                raise vanished(schema.table)
            refuse_shared(schema.table, (known.table for known in self._tables))
            existing = catalog.ensure(schema, self._rules)
            self._tables[schema] = Table(schema, existing)
            self._behind.append(schema)

    def _drop(self, behind: Sequence[TableSchema]) -> None:
        with self._named_errors():
            catalog = Catalog(self._live())
            for schema in behind:
                existing = catalog.drops(schema, self._rules)
                for version, table in self._tables.items():
                    if existing is not None and table.is_of(existing):
                        self._tables[version] = Table(version, existing)

    def reserve(self) -> None:
        """Have the sink alone, once whoever applies now is done."""
        connection = self._live()
        self._reservation.take()
        with self._named_errors(), rolled_back(connection):
            return  # who began before the reservation had the write lock, and has ended

    def rehearse(self, transactions: Iterable[Sequence[Step]]) -> Mapping[int, DataError]:
        """Try each step behind a savepoint of its own, and roll everything back.

        What a foreign key refuses is tried again behind the others as long as that helps: `apply`
        asks for the row it points to at the end only.
        """
        refused: dict[int, DataError] = {}
        connection = self._live()
        with self._named_errors(), rolled_back(connection):
            steps = enumerate(chain.from_iterable(transactions))
            waiting = list(self._tried(connection, steps, refused))
            while waiting:
                still = list(self._tried(connection, waiting, refused))
                waiting = still if len(still) < len(waiting) else []
        return refused

    def _tried(
        self,
        connection: Connection,
        steps: Iterable[tuple[int, Step]],
        refused: dict[int, DataError],
    ) -> Iterator[tuple[int, Step]]:
        """Note which steps are refused, and yield those that a foreign key refuses."""
        for number, step in steps:
            refused.pop(number, None)
            try:
                with self._named_errors(), savepoint(connection):
                    self._write(connection, [step])
            except DataError as error:
                waits = is_foreign_key(error)
                refused[number] = bare(error)
                if waits:
                    yield number, step

    def _write(self, connection: Connection, steps: Iterable[Step]) -> None:
        for step in steps:
            work = [(self._tables[mapped.schema], mapped) for mapped in step]
            moved = [table.complete(connection, mapped) for table, mapped in work]
            for table, mapped in work:
                table.clear(connection, mapped)
            for (table, mapped), rows in zip(work, moved, strict=True):
                table.write(connection, mapped, rows)

    @contextmanager
    def _using(self) -> Iterator[Connection]:
        connection = self._live()
        with self._named_errors():
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._using() as connection, writing(connection):
            yield connection

    @contextmanager
    def _applying(self) -> Iterator[Connection]:
        self._live()
        if not self._is_there():
            raise TargetUnavailable(f"{self._path} was moved or removed while it was written to")
        with self._writing() as connection, self._reservation.respected():
            yield connection

    def _is_there(self) -> bool:
        """Tell whether the file under the path is the one that is open."""
        return self._path.exists() and self._path.stat().st_ino == self._inode

    def _live(self) -> Connection:
        if self._connection is None:
            raise TargetUnavailable(f"{self._path} is closed")
        return self._connection

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        with named_errors(self._path):
            yield


def check(_context: Context, config: Config) -> Iterator[Finding]:
    """Look at the folder, the disk, the file, and every table the mapping names."""
    yield from findings(
        located(config.path),
        fixed_targets(config.tables),
        may_create=config.schema_changes.creates,
        buffer_bytes=config.buffer_bytes,
    )


def readable(_context: Context, config: Config, wanted: Wanted) -> SqliteTable:
    """Return a table's rows, for `cdc verify`; it opens the file when it is opened."""
    return SqliteTable(located(config.path), wanted)


def drop(context: Context, config: Config, *, dry_run: bool) -> Iterator[str]:
    """Forget the cursors of this sink; tables and rows stay."""
    path = located(config.path)
    if not path.exists():
        return
    with closing(connect(path)) as connection, named_errors(path):
        yield f"cursors of sink {context.name} in {path}"
        if not dry_run:
            with writing(connection):
                forget(context, connection)
