"""The shape of every table at the log's place: how its rows are read, and what they are called.

A Table_map event says what a row looks like in the log, and under FULL metadata what its columns
are called; that decides. The catalogue, as it is when a shape is first met, adds what the log does
not say, column by column, where it fits what the log has (R11). Statements that change a schema
make everything be looked up again. Without names in the log, `definitions.py` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from cdc.decode.binlogevents import TableEvent
from cdc.decode.binlogtables import JSON, LoggedColumn, LoggedTable, table_of
from cdc.decode.mysqltypes import (
    MysqlColumn,
    fits,
    logged_column,
    logical,
    native,
    reader,
)
from cdc.decode.mysqlvalues import Read
from cdc.errors import PreflightFailed, UnknownEvent
from cdc.mariadb.catalog import ColumnFacts, TableFacts
from cdc.mariadb.connection import Connection, Login
from cdc.mariadb.definitions import Definitions, named
from cdc.mariadb.dialect import Dialect
from cdc.mariadb.images import Images, image_reader
from cdc.mariadb.position import Place
from cdc.mariadb.statements import Deed, Statement
from schemas.table import Column, TableId, TableSchema

__all__ = ["Facts", "Shape", "Tables", "Wants", "describe"]


class Facts(Protocol):
    """What `Tables` asks the catalogue."""

    connection: Connection
    login: Login
    dialect: Dialect

    def find(self, table: TableId) -> TableFacts | None:
        """Return a table with its columns, None when it is gone."""
        ...

    def charsets(self) -> Mapping[int, str]:
        """Return collation number → character set."""
        ...


class Wants(Protocol):
    """Which tables are asked for."""

    def __call__(self, table: TableId) -> bool:
        """Tell whether `table` is."""
        ...

    def schemas(self) -> set[str]:
        """Return the databases of those that are there now."""
        ...


class Shape(msgspec.Struct, frozen=True):
    """One version of a table: its schema, what reads its row images, and each of their columns.

    `documents` are the places of MySQL's JSON columns.
    """

    schema: TableSchema
    images: Images
    readers: tuple[Read, ...]
    documents: frozenset[int] = frozenset()


class Tables:
    """The shapes in force, by what the log says of them.

    `gone` are tables whose rows a consumer still has, though they were dropped or moved away;
    `doubts` tells of a table and a transaction whether a chunk that waits may lack what it did.
    """

    def __init__(
        self,
        facts: Facts,
        wants: Wants,
        keys: Mapping[str, Sequence[str]],
        definitions: Definitions | None = None,
    ) -> None:
        self.facts = facts
        self._definitions = definitions
        self._wants = wants
        self._keys = keys
        self._known: dict[bytes, Shape | None] = {}
        self._there: dict[TableId, TableFacts | None] = {}
        self.gone: set[TableId] = set()
        self.doubts: Callable[[TableId, str], bool] = _none

    def shape(self, event: TableEvent) -> Shape | None:
        """Return how rows that follow `event` are read, None for a table not asked for.

        Raises `errors.UnknownEvent` or `errors.PreflightFailed` for one that cannot be captured.
        """
        if event.body not in self._known:
            self._known[event.body] = self._make(event)
        return self._known[event.body]

    def changed(self, statement: Statement) -> None:
        """Some schema has changed: look again at the next row, which may follow at once."""
        self._known.clear()
        self._there.clear()
        if self._definitions is not None and statement.deed in (Deed.CREATE, Deed.REPLACE):
            self._definitions.forget(statement)

    def there(self, table: TableId) -> TableFacts | None:
        """Return a table as the catalogue had it when it was first asked for since then."""
        if table not in self._there:
            self._there[table] = self.facts.find(table)
        return self._there[table]

    def place(self) -> Place:
        """Return where the log lies behind the rows that are being read."""
        return self._definitions.reached()[1] if self._definitions else Place("", 0)

    def wants(self, table: TableId) -> bool:
        """Tell whether rows of `table` are asked for."""
        return self._wants(table)

    def may_mean(self, database: str, text: str) -> bool:
        """Tell whether a statement may change rows of a captured table: when in doubt, it may."""
        schemas = self._wants.schemas()
        return database in schemas or any(schema in text for schema in schemas)

    def schema(self, table: TableId) -> TableSchema:
        """Return the schema of `table` as the catalogue has it, for what has no rows of its own.

        Raises `errors.UnknownEvent` for a table that cannot be captured.
        """
        facts = self.facts.find(table)
        if facts is None:
            return TableSchema(table, ())
        return self.described(facts)

    def described(self, facts: TableFacts) -> TableSchema:
        """Return the schema of a table of the catalogue. Raises as `schema` does."""
        _refuse_versioned(facts)
        try:
            return self._describe(facts.table, facts.columns, facts.primary_key)
        except ValueError as error:
            raise self._refused(facts.table, error) from error

    def _describe(
        self, table: TableId, columns: Sequence[ColumnFacts], key: Sequence[str]
    ) -> TableSchema:
        key = self._keys.get(str(table), key)
        return describe(table, columns, key, self.facts.dialect.word)

    def _refused(self, table: TableId, error: ValueError) -> UnknownEvent:
        return UnknownEvent(f"{table}: {error}", hint=f'leave it out: tables: ["!{table}"]')

    def _make(self, event: TableEvent) -> Shape | None:
        try:
            logged = table_of(event, self.facts.dialect.texts)
        except ValueError as error:
            raise UnknownEvent(f"a Table_map event cannot be read: {error}") from error
        if not self._wants(logged.table):
            return None
        facts = self.facts.find(logged.table) if logged.named else self._defined(logged.table)
        _refuse_versioned(facts)
        charsets = self.facts.charsets()
        try:
            if facts is not None and not logged.named:
                return self._shape(named(logged, facts, charsets), facts.columns)
            now = {found.column.name: found for found in facts.columns} if facts else {}
            chosen = [_chosen(column, now.get(column.name), charsets) for column in logged.columns]
            return self._shape(logged, chosen)
        except ValueError as error:
            raise self._refused(logged.table, error) from error

    def _defined(self, table: TableId) -> TableFacts:
        if self._definitions is None or self.facts.dialect.names_only:
            raise PreflightFailed(
                f"rows of {table} were logged without names of their columns",
                hint="SET GLOBAL binlog_row_metadata = 'FULL'; then `cdc position reset`",
            )
        return self._definitions.of(table)

    def _shape(self, logged: LoggedTable, chosen: Sequence[ColumnFacts]) -> Shape:
        names = [column.name for column in logged.columns]
        key = [names[place] for place in logged.primary_key]
        schema = self._describe(logged.table, chosen, key)
        pairs = [(f.column, column) for f, column in zip(chosen, logged.columns, strict=True)]
        readers = tuple(reader(*pair) for pair in pairs)
        images = image_reader(readers, [native(*pair) for pair in pairs])
        documents = (place for place, c in enumerate(logged.columns) if c.code == JSON)
        return Shape(schema, images, readers, frozenset(documents))


def _none(_: TableId, __: str) -> bool:
    return False


def _refuse_versioned(facts: TableFacts | None) -> None:
    if facts is not None and facts.versioned:
        raise UnknownEvent(
            f"{facts.table} is system-versioned: what its log means is not known here",
            hint=f'leave it out: tables: ["!{facts.table}"]',
        )


def _chosen(
    logged: LoggedColumn, now: ColumnFacts | None, charsets: Mapping[int, str]
) -> ColumnFacts:
    """Return the catalogue's facts of a column where they are still, or already, those of the log.

    What the log does not say is then unknown: nullable it says itself.
    """
    if now is not None and fits(now.column, logged, charsets):
        return now
    column: MysqlColumn = logged_column(logged, charsets)
    return ColumnFacts(column, logged.nullable, default=None, generated=False)


def describe(
    table: TableId, columns: Sequence[ColumnFacts], key: Sequence[str], word: str
) -> TableSchema:
    """Return the schema of these columns; the key in column order, so that it is stable.

    Native types begin with `word`.

    Raises `ValueError` for a column that cannot be captured, or a key that is none.
    """
    names = [facts.column.name for facts in columns]
    if not set(key) <= set(names):
        raise ValueError(f"there is no column {', '.join(sorted(set(key) - set(names)))}")
    found = tuple(
        Column(
            facts.column.name,
            logical(facts.column, word),
            nullable=facts.nullable,
            default=facts.default,
            generated=facts.generated,
        )
        for facts in columns
    )
    return TableSchema(table, found, tuple(name for name in names if name in key))
