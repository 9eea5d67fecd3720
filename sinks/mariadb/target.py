"""Rows and cursors in one transaction of MariaDB or MySQL, exactly once.

    START TRANSACTION ─▶ cursors: compare and set ─▶ deletes, upserts, step by step ─▶ COMMIT
                         a second worker waits        straight into the tables       both or
                         here, then stops                                            neither

Why a change is applied once: the cursor moves from the very offset the span starts at, in the
transaction that holds the rows. Whoever comes second finds it moved and writes nothing. When the
reply to COMMIT is lost, the cursor itself says whether it happened.

A statement that makes a table ends a transaction here, so it is never sent inside one: a table that
turns up in the middle of a large one is made after a rollback, and the batch begins again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count

import pymysql

from cdc.connections.mariadb import Connection, Login, address, connect, fetch, pin
from cdc.connector import Context
from cdc.errors import (
    ConfigError,
    DataError,
    PreflightFailed,
    SchemaIncompatible,
    TargetUnavailable,
)
from schemas.table import TableId, TableSchema
from sinks.direct import DirectTarget
from sinks.mariadb.barriers import BarrierTable
from sinks.mariadb.catalog import Catalog, place_of, run
from sinks.mariadb.cursors import CursorTable
from sinks.mariadb.dialect import Dialect
from sinks.mariadb.existing import Existing
from sinks.mariadb.options import Options
from sinks.mariadb.reservation import Reservation
from sinks.mariadb.table import Table
from sinks.mariadb.transactions import named_errors, rolled_back, savepoint, writing
from sinks.refusals import rehearsed, vanished
from sinks.sql import parents_first
from sinks.target import Step

__all__ = ["MariaDBTarget", "begin_session", "login_of"]


class MariaDBTarget(DirectTarget[Connection, Table]):
    """See `sinks.target.Target`. One connection, one thread at a time."""

    def __init__(self, context: Context, config: Options, dialect: Dialect) -> None:
        self._config = config
        self._dialect = dialect
        self._login = login_of(context, config, dialect)
        self._ledger = CursorTable(context, dialect)
        self._waiting = BarrierTable(context, self._ledger, dialect)
        super().__init__(self._ledger, self._waiting)
        self._reservation = Reservation(context, dialect)
        self._connection: Connection | None = None
        self._order: dict[TableSchema, int] = {}
        self._number = count()
        self._is_writing = False
        self._packet = self._folds = 0

    def open(self) -> None:
        """Connect and make the tables of cursors and barriers where they are missing."""
        self.close()
        self._connection = connect(self._login)
        with self._named_errors():
            begin_session(self._connection, self._dialect)
            server = "SELECT @@max_allowed_packet, @@lower_case_table_names"
            [(self._packet, self._folds)] = fetch(self._connection, server)
            self._ledger.create(self._connection)
            if self._config.workers > 1:
                self._waiting.create(self._connection)
                self._reservation.create(self._connection)

    def close(self) -> None:
        """Let go of the connection and the staging in it."""
        connection, self._connection = self._connection, None
        self._forget_tables()
        self._is_writing = False
        if connection is not None:
            with suppress(pymysql.Error):
                self._reservation.release(connection)
            connection.close()

    def prepare(self, schema: TableSchema, *, known: bool = False) -> None:
        """Make or complete the table by policy, and its staging."""
        if schema in self._tables:
            return
        connection = self._live()
        with self._named_errors():
            catalog = Catalog(connection, self._database, self._dialect)
            if known and catalog.read(schema.table) is None:
                raise vanished(schema.table)
            self._refuse_shared(schema)
            existing = catalog.ensure(schema, self._config.schema_changes, self._change)
            self._tables[schema] = self._staging(schema, existing)
            if not self._is_writing:
                self._adopt(existing)
            self._behind.append(schema)
            self._order = self._foreign_key_order()

    def _staging(self, schema: TableSchema, existing: Existing) -> Table:
        table = Table(next(self._number), schema, existing, self._dialect, self._packet)
        table.create(self._live())
        return table

    def _adopt(self, existing: Existing) -> None:
        """Make the staging of older versions anew where the table is no longer what it was."""
        for schema, table in self._tables.items():
            if table.existing.quoted == existing.quoted and not table.fits(existing):
                self._tables[schema] = self._staging(schema, existing)

    def _drop(self, behind: Sequence[TableSchema]) -> None:
        with self._named_errors():
            catalog = Catalog(self._live(), self._database, self._dialect)
            for schema in behind:
                rules = self._config.schema_changes
                dropped = catalog.drops(schema, rules, self._change)
                if dropped is not None:
                    self._adopt(dropped)

    @property
    def _database(self) -> str:
        return address(self._login).database

    def _change(self, statements: Sequence[str]) -> None:
        """Run statements that make or change a table, never inside a transaction."""
        connection = self._live()
        inside = self._is_writing
        if inside:
            connection.rollback()
        run(connection, statements, self._dialect)
        if inside:
            raise TargetUnavailable(
                "a table had to be made or changed in the middle of a transaction, which ended it",
                hint="The same batch is tried again, with the table as it is now.",
            )

    def _refuse_shared(self, schema: TableSchema) -> None:
        """Stop where two tables of the mapping would be one of the server."""

        def place(table: TableId) -> str:
            name = ".".join(place_of(table, self._database))
            return name.lower() if self._folds else name

        for other in self._tables:
            if other.table != schema.table and place(other.table) == place(schema.table):
                raise SchemaIncompatible(
                    f"{schema.table} and {other.table} would be one table, {place(schema.table)}",
                    hint="Map one of them to another table with `to:`.",
                )

    def _foreign_key_order(self) -> dict[TableSchema, int]:
        """Return where each table comes so that parents come before their children."""
        places = {s: (t.existing.database, t.existing.name) for s, t in self._tables.items()}
        parents = {places[s]: t.existing.parents for s, t in self._tables.items()}
        order = parents_first(sorted(set(places.values())), parents)
        return {schema: order.index(place) for schema, place in places.items()}

    def reserve(self) -> None:
        """Have the sink alone, once whoever applies now is done."""
        with self._named_errors():
            self._reservation.take(self._live())

    def rehearse(self, transactions: Iterable[Sequence[Step]]) -> Mapping[int, DataError]:
        """Try each step behind a savepoint of its own, and roll everything back."""
        connection = self._live()

        def take(step: Step) -> None:
            with savepoint(connection), self._named_errors():
                self._write(connection, [step])

        with self._named_errors(), rolled_back(connection, self._dialect):
            return rehearsed(transactions, take)

    def _write(self, connection: Connection, steps: Iterable[Step]) -> None:
        for step in steps:
            upward = sorted(step, key=lambda mapped: self._order[mapped.schema])
            work = [(self._tables[mapped.schema], mapped) for mapped in upward]
            for table, mapped in work:
                table.complete(connection, mapped)
            for table, mapped in reversed(work):
                table.clear(connection, mapped)
            for table, mapped in work:
                table.write(connection, mapped)

    @contextmanager
    def _using(self) -> Iterator[Connection]:
        connection = self._live()
        with self._named_errors():
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._using() as connection, writing(connection, self._dialect):
            yield connection

    @contextmanager
    def _applying(self) -> Iterator[Connection]:
        self._is_writing = True
        try:
            with self._writing() as connection:
                if self._config.workers > 1:
                    self._reservation.respect(connection)
                yield connection
        finally:
            self._is_writing = False

    def _live(self) -> Connection:
        if self._connection is None or not self._connection.open:
            raise TargetUnavailable("the target's connection is closed")
        return self._connection

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        with named_errors(self._login):
            yield


def begin_session(connection: Connection, dialect: Dialect) -> None:
    """Pin the settings of a session. Raises `errors.PreflightFailed` for a server that is unfit."""
    found = dialect.unfit(connection)
    if found is not None:
        raise PreflightFailed(found.message, hint=found.repair)
    pin(connection, dialect.settings)


def login_of(context: Context, config: Options, dialect: Dialect) -> Login:
    """Return where to connect. Raises `errors.ConfigError` for a URL without a database."""
    application = f"tailrace/{context.pipeline}/sink/{context.name}"
    url = config.url.get_secret_value()
    login = Login(url, application, TargetUnavailable, dialect.name)
    if not address(login).database:
        raise ConfigError(
            f"the {dialect.name} URL names no database, and the cursors need one",
            hint=f"write {dialect.word}://user:password@host:3306/database",
        )
    return login
