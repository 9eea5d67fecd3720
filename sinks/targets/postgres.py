"""PostgreSQL as a target: rows and cursors in one transaction, exactly once.

    BEGIN ─▶ COPY into staging ─▶ cursors: compare and set ─▶ merges ─▶ COMMIT
             no shared lock        a second worker stops here             both or neither
             rows the source has just made need no merge: COPY into the table (straight.py)

Why a change is applied once: the cursor moves from the very offset the span starts at, in the
transaction that holds the rows. Whoever comes second finds it moved and writes nothing. When the
reply to COMMIT is lost, the cursor itself says whether it happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Literal

import msgspec
import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from cdc.connections.postgres import Login, connect, guard
from cdc.connector import Context, Finding
from cdc.errors import CdcError, DataError, TargetUnavailable
from cdc.failpoints import failpoint
from cdc.postgres.readable import PostgresTable
from cdc.verify.readable import Wanted
from schemas.table import TableId, TableSchema
from sinks.mapping import fixed_targets
from sinks.options import BUFFER_BYTES, BufferBytes, Changes, Topics
from sinks.policy import needs_one_worker
from sinks.postgres.barriers import BarrierTable
from sinks.postgres.catalog import Catalog, Existing
from sinks.postgres.cursors import CursorTable
from sinks.postgres.errors import translated
from sinks.postgres.merge import Staged, StagedTable
from sinks.postgres.preflight import findings
from sinks.postgres.rehearsal import Rehearsal
from sinks.postgres.rivals import LOCK_S, Rivals
from sinks.refusals import vanished
from sinks.sql import parents_first
from sinks.target import Aside, Barrier, Cursor, RowsRefused, Span, Step, TopicPartition

__all__ = ["Config", "PostgresTarget", "check", "create", "drop", "readable"]

_SETTINGS = {
    "client_min_messages": "notice",
    "lock_timeout": f"{LOCK_S}s",
    "idle_in_transaction_session_timeout": "60s",
    "temp_buffers": "16MB",
}
_MANY_STEPS = 32
_OF_ONE_ROW = (psycopg.errors.CheckViolation, psycopg.errors.NotNullViolation)
"""What a row is refused for whatever the other rows are."""
_RESERVED = (
    "another worker applies the partitions of all, since rows of several waited for one another"
)


class Config(BaseModel):
    """A sink into PostgreSQL."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["postgres"] = Field(default="postgres", description="The connector's name")
    url: SecretStr = Field(description="`postgresql://user:password@host:5432/database`")
    tables: Topics
    schema_changes: Changes
    cursor_schema: str = Field(
        default="tailrace", description="Schema of the table `cursors` that holds the offsets"
    )
    workers: int = Field(
        default=1, ge=1, description="Processes that share the topics; 1 keeps consistent cuts"
    )
    buffer_bytes: BufferBytes = BUFFER_BYTES

    @model_validator(mode="after")
    def _go_together(self) -> Config:
        needs_one_worker(self.schema_changes, self.workers)
        return self


def create(context: Context, config: Config) -> PostgresTarget:
    """Return the target; it connects when it is opened."""
    return PostgresTarget(context, config)


class PostgresTarget:
    """See `sinks.target.Target`. One connection, one thread at a time."""

    takes_lines = True

    def __init__(self, context: Context, config: Config) -> None:
        self._config = config
        self._reserved = False
        self._owner = f"{context.pipeline}/{context.name}"
        application = f"tailrace/{context.pipeline}/sink/{context.name}"[:63]
        self._login = Login(config.url.get_secret_value(), application, TargetUnavailable)
        self._rivals = Rivals(self._login)
        self._cursors = CursorTable(context, config.cursor_schema)
        self._barriers = BarrierTable(context, config.cursor_schema, self._cursors)
        self._connection: psycopg.Connection[Any] | None = None
        self._tables: dict[TableSchema, StagedTable] = {}
        self._order: list[TableId] = []
        self._behind: list[TableSchema] = []
        self._number = count()

    def open(self) -> None:
        """Connect and make the tables of cursors and barriers where they are missing."""
        self.close()
        self._connection = connect(self._login, _SETTINGS)
        # A plan kept from when a table was empty would read all of it for every merge.
        self._connection.prepare_threshold = None
        with self._named_errors():
            self._cursors.create(self._connection)
            if self._config.workers > 1:
                self._barriers.create(self._connection)

    def close(self) -> None:
        """Let go of the connection and the staging in it."""
        connection, self._connection = self._connection, None
        self._tables.clear()
        self._behind.clear()
        if connection is None:
            return
        if self._reserved and connection.info.transaction_status == TransactionStatus.IDLE:
            # The server ends a session a moment after it is closed; the others wait for this.
            with suppress(psycopg.Error):
                connection.execute("SELECT pg_advisory_unlock_all()")
        self._reserved = False
        connection.close()

    def cursors(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Cursor | None]:
        """Return what is stored; see `CursorTable.read` for what it raises."""
        with self._named_errors():
            return self._cursors.read(self._live(), partitions)

    def place(self, cursors: Mapping[TopicPartition, Cursor | None]) -> None:
        """Put cursors where an operator wants them; rows stay as they are."""
        with self._named_errors():
            self._cursors.place(self._live(), cursors)

    def prepare(self, schema: TableSchema, *, known: bool = False) -> None:
        """Make or complete the table by policy, and its staging."""
        if schema in self._tables:
            return
        connection = self._live()
        with self._named_errors():
            catalog = Catalog(connection)
            if known and catalog.read(_placed(schema).table) is None:
                raise vanished(schema.table)
            existing = catalog.ensure(_placed(schema), self._config.schema_changes)
            self._tables[schema] = self._staging(schema, existing)
            if connection.info.transaction_status == TransactionStatus.IDLE:
                self._adopt(existing)
            self._behind.append(schema)
            self._order = self._foreign_key_order(catalog)

    def _staging(self, schema: TableSchema, existing: Existing) -> StagedTable:
        table = StagedTable(next(self._number), _placed(schema), existing)
        table.open(self._live())
        return table

    def _adopt(self, existing: Existing) -> None:
        """Make the staging of older versions anew where the table is no longer what it was."""
        for schema, table in self._tables.items():
            if table.existing.oid == existing.oid and not table.fits(existing):
                self._tables[schema] = self._staging(schema, existing)

    def _drop(self) -> None:
        """Drop the columns that new versions lack, now that rows of theirs are committed."""
        behind, self._behind = self._behind, []
        with self._named_errors():
            catalog = Catalog(self._live())
            for schema in behind:
                dropped = catalog.drops(_placed(schema), self._config.schema_changes)
                if dropped is not None:
                    self._adopt(dropped)

    def _foreign_key_order(self, catalog: Catalog) -> list[TableId]:
        tables = {t.existing.oid: t.schema.table for t in self._tables.values()}
        order = parents_first(sorted(tables), catalog.parents(tables))
        return [tables[oid] for oid in order]

    def apply(self, steps: Iterable[Step], spans: Sequence[Span]) -> None:
        """Stage, compare and set the cursors, merge, commit."""
        self._apply(steps, spans, None)

    def apply_others(self, steps: Sequence[Step], spans: Sequence[Span], aside: Aside) -> None:
        """Apply but for the rows that are put `aside`; see `sinks.target.Sparing`."""
        try:
            self._apply(steps, spans, aside)
        except DataError as error:
            of_one_row = isinstance(error.__cause__, _OF_ONE_ROW)
            if not of_one_row or not self._heed():
                raise
            self._apply(steps, spans, aside)

    def _heed(self) -> bool:
        """Judge rows before they are merged from now on; False where they were already."""
        connection = self._live()
        return any([table.heed(connection) for table in self._tables.values()])  # noqa: C419 - all

    def _apply(self, steps: Iterable[Step], spans: Sequence[Span], aside: Aside | None) -> None:
        connection = self._live()
        try:
            with self._named_errors(), connection.transaction():
                self._admit()
                failpoint("sink.before_stage")
                work = self._stage(steps, aside)
                failpoint("sink.before_cursor")
                with self._rivals.patience(connection):
                    self._cursors.advance(connection, spans)
                self._merge(work, aside)
                failpoint("sink.before_commit")
            failpoint("sink.after_commit")
        finally:
            self._forget()
        if self._behind:
            self._drop()

    def reserve(self) -> None:
        """Hold the sink for this connection alone."""
        connection = self._live()
        query = "SELECT pg_advisory_lock(hashtextextended(%s, 0))"
        with self._named_errors():
            try:
                connection.execute(query, (self._owner,))
            except psycopg.errors.LockNotAvailable as error:
                raise TargetUnavailable(_RESERVED) from error
        self._reserved = True

    def _admit(self) -> None:
        """Refuse while another worker holds the sink; one that is frozen does not for long."""
        if self._config.workers == 1:
            return
        query = "SELECT pg_try_advisory_xact_lock_shared(hashtextextended(%s, 0))"
        found = self._live().execute(query, (self._owner,)).fetchone()
        if found is None or not found[0]:
            self._rivals.end_reserving(self._live())
            raise TargetUnavailable(_RESERVED, hint="It goes on by itself.")

    def meet(self, barrier: Barrier) -> Sequence[int]:
        """Stand at a truncation, or carry it out; see `sinks.postgres.barriers`."""
        connection = self._live()

        def empty() -> None:
            connection.execute("SET CONSTRAINTS ALL DEFERRED")
            self._tables[barrier.schema].truncate(connection)
            failpoint("sink.before_release")

        with self._named_errors():
            with connection.transaction(), self._rivals.patience(connection):
                self._admit()
                missing = self._barriers.meet(connection, barrier, empty)
            if missing:
                self._rivals.end_silent(connection)
        return missing

    def rehearse(self, transactions: Iterable[Sequence[Step]]) -> Mapping[int, DataError]:
        """Try the steps behind savepoints, and roll everything back."""
        connection = self._live()

        def take(number: int, step: Step) -> None:
            try:
                self._merge(self._stage([step], first=number))
            finally:
                self._forget()

        rehearsal = Rehearsal(connection, self._named_errors, take, self._trial)
        with self._named_errors(), connection.transaction(force_rollback=True):
            return rehearsal.refused(transactions)

    def _trial(self, number: int, step: Step) -> RowsRefused | None:
        """Return which rows of a step are refused, where it is made of many whole ones."""
        [mapped, *others] = step
        table = self._tables[mapped.schema]
        try:
            found = {} if others else table.trial(self._live(), mapped, number)
        finally:
            self._forget()
        rows = {(mapped.schema.table, key): why for key, why in found.items()}
        return RowsRefused(rows) if rows else None

    def _stage(
        self, steps: Iterable[Step], aside: Aside | None = None, *, first: int = 0
    ) -> list[list[Staged]]:
        connection = self._live()
        work = []
        for table in self._tables.values() if aside else ():
            table.begin()
        for number, step in enumerate(steps, first):
            work.append([self._tables[m.schema].stage(connection, m, number) for m in step])
        for table in self._tables.values():
            table.flush(connection)
            if first + len(work) == _MANY_STEPS or len(work) > _MANY_STEPS:
                table.index(connection)
        self._refuse(aside)
        return work

    def _refuse(self, aside: Aside | None) -> None:
        """Put `aside` what staging shows to be refused, or raise `RowsRefused`."""
        refused = {
            (schema.table, key): reason
            for schema, table in self._tables.items()
            for key, reason in table.refused(self._live()).items()
        }
        if not refused:
            return
        if aside is None:
            raise RowsRefused(refused)
        aside(refused)

    def _forget(self) -> None:
        for table in self._tables.values():
            table.forget()

    def _merge(self, work: Sequence[Sequence[Staged]], aside: Aside | None = None) -> None:
        connection = self._live()
        connection.execute("SET CONSTRAINTS ALL DEFERRED")
        places = {table: place for place, table in enumerate(self._order)}
        for step in work:
            upward = sorted(step, key=lambda staged: places[staged.table.schema.table])
            for staged in upward:
                staged.table.complete(connection, staged)
            for staged in reversed(upward):
                if staged.truncate:
                    staged.table.truncate(connection)
                if staged.deletes:
                    staged.table.delete(connection, staged)
            for staged in upward:
                if not staged.table.create(connection, staged):
                    self._refuse(aside)
                staged.table.upsert(connection, staged)

    def _live(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            raise TargetUnavailable("the target's connection is closed")
        return self._connection

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            with guard(self._login):
                yield
        except psycopg.Error as error:
            raise translated(error) from error


def _placed(schema: TableSchema) -> TableSchema:
    if schema.table.schema:
        return schema
    return msgspec.structs.replace(schema, table=TableId("public", schema.table.name))


def check(_context: Context, config: Config) -> Iterator[Finding]:
    """Look at the server, the cursors table, and every table the mapping names."""
    login = Login(config.url.get_secret_value(), "tailrace/check", TargetUnavailable)
    try:
        connection = connect(login)
    except CdcError as error:
        yield Finding("fail", "connection", str(error), error.hint)
        return
    with connection:
        yield Finding("ok", "connection", "reachable, and the login is accepted")
        yield from findings(
            connection,
            config.cursor_schema,
            fixed_targets(config.tables),
            may_create=config.schema_changes.creates,
            workers=config.workers,
        )


def readable(_context: Context, config: Config, wanted: Wanted) -> PostgresTable:
    """Return a table's rows, for `cdc verify`; it connects when it is opened."""
    login = Login(config.url.get_secret_value(), "tailrace/verify", TargetUnavailable)
    return PostgresTable(login, wanted)


def drop(context: Context, config: Config, *, dry_run: bool) -> Iterator[str]:
    """Forget the cursors of this sink; tables and rows stay."""
    login = Login(config.url.get_secret_value(), "tailrace/drop", TargetUnavailable)
    with connect(login) as connection:
        name = sql.Identifier(config.cursor_schema, "cursors").as_string(connection)
        found = connection.execute("SELECT to_regclass(%s)", (name,)).fetchone()
        if found is None or found[0] is None:
            return
        yield f"cursors of sink {context.name} in {name}"
        if not dry_run:
            cursors = CursorTable(context, config.cursor_schema)
            BarrierTable(context, config.cursor_schema, cursors).forget(connection)
            cursors.forget(connection)
