"""Which tables and columns the file has, and how missing ones are made.

SQLite has no schemas: a table of `public`, or of none, keeps its name, one of another schema is
called `schema.table`, with the dot in its name. Names that differ in the case of ASCII letters
alone are one name to SQLite; where two would become one, the sink stops.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from sqlite3 import SQLITE_ERROR, Connection, OperationalError

import msgspec
from msgspec import structs

from cdc.errors import PreflightFailed, SchemaIncompatible
from schemas.table import Column, TableId, TableSchema
from sinks.policy import Change, Declared, Plan, SchemaChanges, changes, plan, stopped
from sinks.refusals import dropped, forbidden
from sinks.sqlite.files import quoted, writing
from sinks.sqlite.values import storage

__all__ = ["Catalog", "Existing", "ExistingColumn", "refuse_shared", "table_name"]

_PLAIN_SCHEMAS = ("", "main", "public")
_OURS = ("sqlite_", "tailrace_")
_FOLD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

_TABLE = """
SELECT type, name, sql FROM sqlite_master
WHERE name = ? COLLATE NOCASE AND type IN ('table', 'view')
"""
_COLUMNS = """
SELECT name, type, hidden IN (2, 3), "notnull" AND NOT pk
FROM pragma_table_xinfo(?) WHERE hidden <> 1
"""
_PRIMARY = "SELECT name FROM pragma_table_info(?) WHERE pk > 0"
_UNIQUE = 'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial'
_INDEXED = 'SELECT name, coll FROM pragma_index_xinfo(?) WHERE "key"'

_AFFINITIES = {
    "INTEGER": ("INT",),
    "TEXT": ("CHAR", "CLOB", "TEXT"),
    "BLOB": ("BLOB",),
    "REAL": ("REAL", "FLOA", "DOUB"),
}
"""Affinity → what a declared type that has it holds; the first that fits counts."""
_TAKEN = {
    "INTEGER": {"INTEGER", "NUMERIC", "BLOB", "TEXT"},
    "REAL": {"REAL", "NUMERIC", "BLOB"},
    "TEXT": {"TEXT", "BLOB"},
    "BLOB": {"INTEGER", "REAL", "NUMERIC", "BLOB", "TEXT"},
}
"""Our class of value → affinities of a column that leave it as it is."""
_NEVER_NUMBERS = ("date", "time", "timestamp", "timestamptz", "uuid")
"""Their texts are no numbers, so a column that would turn those into one leaves them alone."""


class ExistingColumn(msgspec.Struct, frozen=True):
    """A column as the file has it; `type` is as declared, the empty string where it was not."""

    name: str
    type: str
    generated: bool
    required: bool


class Existing(msgspec.Struct, frozen=True):
    """A table as the file has it; columns by folded name, column sets that carry ON CONFLICT."""

    name: str
    columns: Mapping[str, ExistingColumn]
    unique: Sequence[frozenset[str]]
    strict: bool

    def column(self, name: str) -> ExistingColumn | None:
        """Return the column SQLite means by `name`."""
        return self.columns.get(name.translate(_FOLD))


def table_name(table: TableId) -> str:
    """Return what a table is called in the file."""
    if table.schema in _PLAIN_SCHEMAS:
        return table.name
    parts = (table.schema, table.name)
    return ".".join(part.replace(".", "_u2e_") for part in parts)


def refuse_shared(table: TableId, others: Iterable[TableId]) -> None:
    """Stop where two tables of the mapping would be one in the file."""
    name = table_name(table).translate(_FOLD)
    for other in others:
        if other != table and table_name(other).translate(_FOLD) == name:
            raise SchemaIncompatible(
                f"{table} and {other} would be one table of the file, {table_name(table)}",
                hint="Map one of them to another table with `to:`.",
            )


class Catalog:
    """Reads and changes what the file holds, over the connection of the target."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, table: TableId) -> Existing | None:
        """Return the table as it is, None when there is none.

        Raises `errors.SchemaIncompatible` for a view, and for a table spelled otherwise.
        """
        name = table_name(table)
        found = self._connection.execute(_TABLE, (name,)).fetchone()
        if found is None:
            return None
        kind, spelled, text = found
        if kind != "table" or text.upper().startswith("CREATE VIRTUAL"):
            raise SchemaIncompatible(
                f"{name} is a view or a virtual table in the file, which takes no upserts",
                hint="Map the topic to a table with `to:`.",
            )
        if spelled != name:
            raise SchemaIncompatible(
                f"the file has a table {spelled}, which SQLite does not tell from {name}",
                hint=f"Write `to: {spelled}` to fill it, or map the topic to another table.",
            )
        columns = [ExistingColumn(*row) for row in self._connection.execute(_COLUMNS, (name,))]
        return Existing(
            name,
            {column.name.translate(_FOLD): column for column in columns},
            self._unique(name),
            "STRICT" in text.upper().rpartition(")")[2],
        )

    def _unique(self, name: str) -> list[frozenset[str]]:
        """Return the sets of columns, folded, by which rows are told apart byte for byte."""
        out = [_folded(self._connection.execute(_PRIMARY, (name,)).fetchall())]
        for (index,) in self._connection.execute(_UNIQUE, (name,)).fetchall():
            columns = self._connection.execute(_INDEXED, (index,)).fetchall()
            if any(column is None for column, _ in columns):  # an expression
                continue
            if all(collation == "BINARY" for _, collation in columns):
                out.append(_folded(columns))
            elif _folded(columns) in out:
                out.remove(_folded(columns))
        return out

    def ensure(self, schema: TableSchema, rules: SchemaChanges) -> Existing:
        """Return the table, made or changed as `rules` say.

        Raises `errors.SchemaIncompatible` with the statement that is missing where they say stop,
        and for what SQLite cannot change; `errors.PreflightFailed` when no unique index carries
        the key.
        """
        _refuse_names(schema)
        existing = self.read(schema.table)
        if existing is None or _asked(schema, existing, rules).first:
            existing = self._complete(schema, rules)
        for column in schema.columns:
            if column.name not in schema.passing:
                _refuse_unlike(column, existing)
        if schema.key and _folded((name,) for name in schema.key) not in existing.unique:
            raise PreflightFailed(
                f"no unique index of {existing.name} covers exactly {', '.join(schema.key)}, "
                "compared byte for byte",
                hint=_index(schema),
            )
        return existing

    def drops(self, schema: TableSchema, rules: SchemaChanges) -> Existing | None:
        """Drop the columns that `rules` drop for `schema`; return the table if there were any."""
        existing = self.read(schema.table) if schema.former else None
        behind = [] if existing is None else _asked(schema, existing, rules).behind
        if not behind:
            return None
        try:
            with writing(self._connection):
                for change in behind:
                    self._connection.execute(_statement(schema, change))
        except OperationalError as error:
            if error.sqlite_errorcode != SQLITE_ERROR:
                raise
            raise SchemaIncompatible(
                f"SQLite cannot drop a column of {schema.table}: {error}",
                hint="Drop the index, view or trigger that names it, or set "
                "`schema_changes: {drop: ignore}`.",
            ) from error
        return self.read(schema.table)

    def _complete(self, schema: TableSchema, rules: SchemaChanges) -> Existing:
        # Inside a batch the write lock is ours already.
        within = self._connection.in_transaction
        with nullcontext() if within else writing(self._connection):
            # Looked at again under the lock: another sink may have made the same.
            existing = self.read(schema.table)
            if existing is None:
                if not rules.creates:
                    raise forbidden([_creation(schema)])
                self._connection.execute(_creation(schema))
            else:
                for change in _asked(schema, existing, rules).first:
                    self._connection.execute(_statement(schema, change))
            existing = self.read(schema.table)
        if existing is None:
            raise dropped(schema.table)
        return existing


def _asked(schema: TableSchema, existing: Existing, rules: SchemaChanges) -> Plan:
    """Return what the rules make of the changes, as far as SQLite can make any.

    A type is never changed: what the column that is there would not keep stops the sink anyway.
    """

    def declares(there: Declared, column: Column) -> bool:
        return there.type.upper() == storage(column.type)

    asked = plan(changes(schema, existing.column, declares), rules)
    if asked.stop:
        raise stopped(schema, asked.stop, [_statement(schema, c) for c in asked.stop if _can(c)])
    for change in asked.first:
        if change.kind == "nullability":
            raise SchemaIncompatible(
                f"{schema.table}: {change.sentence}, which SQLite cannot change in a table",
                hint="Make the table anew without NOT NULL, or set `schema_changes: "
                "{nullability: ignore}`: a row without a value is a dead letter then.",
            )
    return structs.replace(asked, first=[change for change in asked.first if _can(change)])


def _can(change: Change) -> bool:
    return change.kind in ("add", "drop")


def _folded(rows: Iterable[Sequence[str]]) -> frozenset[str]:
    return frozenset(row[0].translate(_FOLD) for row in rows)


def _refuse_names(schema: TableSchema) -> None:
    """Stop where SQLite would take a name for another one, or for its own."""
    name = table_name(schema.table).translate(_FOLD)
    if name.startswith(_OURS):
        raise SchemaIncompatible(
            f"a table of SQLite's own or of the sink's would be called {name}",
            hint="Map the topic to another table with `to:`.",
        )
    seen: dict[str, str] = {}
    for column in schema.columns:
        other = seen.setdefault(column.name.translate(_FOLD), column.name)
        if other != column.name:
            raise SchemaIncompatible(
                f"{schema.table} has columns {other} and {column.name}, which are one to SQLite",
                hint="Rename one of them in the mapping (`fields:`).",
            )


def _refuse_unlike(column: Column, existing: Existing) -> None:
    """Stop where the column would turn values into something else, or take none at all."""
    there, wanted = existing.column(column.name), storage(column.type)
    if there is None or _keeps(column, there.type.upper(), strict=existing.strict):
        return
    raise SchemaIncompatible(
        f"{existing.name}.{there.name} is {there.type or 'untyped'} in the file, which would not "
        f"keep a {column.type.logical} as it is: that is stored as {wanted}",
        hint=f"Cast it in the mapping (`{column.name}: {{from: …, as: …}}`), map it to another "
        f"column, or declare the file's column {wanted}.",
    )


def _keeps(column: Column, declared: str, *, strict: bool) -> bool:
    wanted = storage(column.type)
    if strict:
        return declared in (wanted, "ANY") or (wanted, declared) == ("INTEGER", "INT")
    return column.type.logical in _NEVER_NUMBERS or _affinity(declared) in _TAKEN[wanted]


def _affinity(declared: str) -> str:
    """Source: sqlite.org/datatype3.html, 3.1 "Determination Of Column Affinity"."""
    for affinity, parts in _AFFINITIES.items():
        if any(part in declared for part in parts):
            return affinity
    return "NUMERIC" if declared else "BLOB"


def _creation(schema: TableSchema) -> str:
    columns = [
        f"{_column(c)} NOT NULL" if c.name in schema.key else _column(c) for c in schema.columns
    ]
    if schema.key:
        columns.append(f"PRIMARY KEY ({', '.join(map(quoted, schema.key))})")
    return f"CREATE TABLE {quoted(table_name(schema.table))} ({', '.join(columns)})"


def _statement(schema: TableSchema, change: Change) -> str:
    table = f"ALTER TABLE {quoted(table_name(schema.table))}"
    if change.kind == "drop" or change.now is None:
        return f"{table} DROP COLUMN {quoted(change.there)}"
    return f"{table} ADD COLUMN {_column(change.now)}"


def _column(column: Column) -> str:
    return f"{quoted(column.name)} {storage(column.type)}"


def _index(schema: TableSchema) -> str:
    name = table_name(schema.table)
    key = ", ".join(map(quoted, schema.key))
    return f"CREATE UNIQUE INDEX {quoted(f'{name}_key')} ON {quoted(name)} ({key});"
