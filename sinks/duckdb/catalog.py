"""Which tables and columns the file has, and how missing ones are made.

A table of `public`, or of none, lies in DuckDB's own schema `main`, one of another schema in the
schema of that name. Names that differ in the case of ASCII letters alone are one name to DuckDB;
where two would become one, the sink stops.

Tables of ours have no primary key: each key is in them once because nothing but whole sets of
rows is ever put in their place. An index would have to be kept in memory, takes twice the time
per row, and DuckDB then never frees the room of rows that were replaced (measured, DuckDB 2.0).
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence

import duckdb
import msgspec

from cdc.errors import PreflightFailed, SchemaIncompatible
from schemas.table import Column, TableId, TableSchema
from sinks.duckdb.files import Connection, quoted
from sinks.duckdb.values import TEXT, Form, form_of
from sinks.policy import Change, Declared, SchemaChanges, changes, plan, stopped
from sinks.refusals import dropped, forbidden

__all__ = [
    "Existing",
    "ExistingColumn",
    "drops",
    "ensure",
    "read",
    "refuse_shared",
    "stored_form",
    "table_name",
]

_FOLD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_PLAIN_SCHEMAS = ("", "main", "public")
_NOT_OURS = ("information_schema", "pg_catalog", "temp", "system")

_TABLE = """
SELECT schema_name, table_name, sql FROM duckdb_tables()
WHERE database_name = current_database() AND lower(schema_name) = lower(?)
  AND lower(table_name) = lower(?)
UNION ALL
SELECT schema_name, view_name, '' FROM duckdb_views()
WHERE database_name = current_database() AND lower(schema_name) = lower(?)
  AND lower(view_name) = lower(?)
"""
_COLUMNS = """
SELECT column_name, data_type, is_generated, NOT is_nullable FROM duckdb_columns()
WHERE database_name = current_database() AND schema_name = ? AND table_name = ?
"""
_FOREIGN_KEYS = """
SELECT constraint_text FROM duckdb_constraints()
WHERE database_name = current_database() AND constraint_type = 'FOREIGN KEY'
  AND schema_name = ? AND ? IN (table_name, referenced_table)
"""
_COLLATED = re.compile(r"\bCOLLATE\b", re.IGNORECASE)
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")

_INTEGERS = ("SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_SPELLED = {"TIMESTAMPTZ": ("TIMESTAMP WITH TIME ZONE",)}
"""Our type → what DuckDB calls it."""
_IMPOSSIBLE = (duckdb.ConversionException, duckdb.CatalogException, duckdb.DependencyException)
"""What an ALTER gets for values that do not convert, and for what stands in its way."""
_KEPT: Mapping[str, Sequence[str]] = {
    "SMALLINT": _INTEGERS,
    "INTEGER": _INTEGERS,
    "BIGINT": _INTEGERS,
    "FLOAT": ("FLOAT", "DOUBLE"),
    "TIMESTAMPTZ": ("TIMESTAMP WITH TIME ZONE",),
}
"""Our type → types of a column that keep its values as they are, or refuse them."""


class ExistingColumn(msgspec.Struct, frozen=True):
    """A column as the file has it."""

    name: str
    type: str
    generated: bool
    required: bool


class Existing(msgspec.Struct, frozen=True):
    """A table as the file has it; columns by folded name."""

    quoted: str
    columns: Mapping[str, ExistingColumn]

    def column(self, name: str) -> ExistingColumn | None:
        """Return the column DuckDB means by `name`."""
        return self.columns.get(_folded(name))

    def makes(self, name: str) -> bool:
        """Tell whether the table computes that column itself, or does not have it."""
        column = self.column(name)
        return column is None or column.generated

    def has(self, name: str) -> bool:
        """Tell whether there is such a column."""
        return self.column(name) is not None

    def others(self, schema: TableSchema) -> list[str]:
        """Return the columns that are the user's own and hold values."""
        ours = {_folded(column.name) for column in schema.columns}
        columns = self.columns.items()
        return [there.name for n, there in columns if n not in ours and not there.generated]


def _folded(name: str) -> str:
    return name.translate(_FOLD)


def _place(table: TableId) -> tuple[str, str]:
    """Return schema and name of a table in the file."""
    return ("main" if table.schema in _PLAIN_SCHEMAS else table.schema), table.name


def table_name(table: TableId) -> str:
    """Return what a table is called in the file, as a person says it."""
    schema, name = _place(table)
    return name if schema == "main" else f"{schema}.{name}"


def _named(connection: Connection, place: tuple[str, str]) -> str:
    """Return a table's name in SQL, with the file's before it: a schema may be called as it is."""
    [(database,)] = connection.execute("SELECT current_database()").fetchall()
    return ".".join(map(quoted, (database, *place)))


def refuse_shared(table: TableId, others: Iterable[TableId]) -> None:
    """Stop where two tables of the mapping would be one in the file."""
    place = tuple(map(_folded, _place(table)))
    for other in others:
        if other != table and tuple(map(_folded, _place(other))) == place:
            raise SchemaIncompatible(
                f"{table} and {other} would be one table of the file, {'.'.join(place)}",
                hint="Map one of them to another table with `to:`.",
            )


def stored_form(column: Column, existing: Existing) -> Form:
    """Return how a column is filled: one of texts keeps any value as the text it is."""
    there = existing.column(column.name)
    return TEXT if there is not None and there.type == "VARCHAR" else form_of(column.type)


def read(connection: Connection, table: TableId) -> Existing | None:
    """Return the table as it is, None when there is none.

    Raises `errors.SchemaIncompatible` for a view, for a table spelled otherwise, and for one with
    foreign keys or collations.
    """
    place = _place(table)
    found = connection.execute(_TABLE, [*place, *place]).fetchall()
    if not found:
        return None
    schema, name, text = found[0]
    _refuse_unfit(connection, place, (schema, name), text)
    columns = [ExistingColumn(*row) for row in connection.execute(_COLUMNS, place).fetchall()]
    return Existing(_named(connection, place), {_folded(column.name): column for column in columns})


def _refuse_unfit(
    connection: Connection, place: tuple[str, str], spelled: tuple[str, str], text: str
) -> None:
    name, there = ".".join(place), ".".join(spelled)
    if there != name:
        raise SchemaIncompatible(
            f"the file has a table {there}, which DuckDB does not tell from {name}",
            hint=f"Write `to: {there}` to fill it, or map the topic to another table.",
        )
    elsewhere = "Map the topic to another table with `to:`."
    if not text:
        raise SchemaIncompatible(f"{name} is a view, which takes no rows", hint=elsewhere)
    if _COLLATED.search(text):
        raise SchemaIncompatible(
            f"{name} has a collation: it would take two keys for one", hint=elsewhere
        )
    if connection.execute(_FOREIGN_KEYS, list(place)).fetchall():
        raise SchemaIncompatible(
            f"{name} has foreign keys, or is what one points to: DuckDB judges them row by row, "
            "not at the end of a transaction",
            hint=f"{elsewhere} The source has judged them already.",
        )


def ensure(connection: Connection, schema: TableSchema, rules: SchemaChanges) -> Existing:
    """Return the table, made or changed as `rules` say.

    Raises `errors.SchemaIncompatible` with the statements that are missing where they say stop,
    and for names or types that would lose something.
    """
    _refuse_names(schema)
    existing = read(connection, schema.table)
    if existing is None:
        statements = _creation(_named(connection, _place(schema.table)), schema)
        if not rules.creates:
            raise forbidden(statements)
        _run(connection, statements)
    else:
        asked = plan(_changes(schema, existing), rules)
        if asked.stop:
            raise stopped(schema, asked.stop, _alterations(existing, asked.stop))
        _run(connection, _alterations(existing, asked.first))
    existing = read(connection, schema.table)
    if existing is None:
        raise dropped(schema.table)
    for column in schema.columns:
        if column.name not in schema.passing:
            _refuse_unlike(column, existing)
    if not schema.key and existing.column("rowid") is not None:
        raise PreflightFailed(
            f"{existing.quoted} has no key, and a column `rowid` that hides DuckDB's own: a "
            "single row of several equal ones cannot be named",
            hint="Give that column another name in the mapping (`fields:`).",
        )
    return existing


def drops(connection: Connection, schema: TableSchema, rules: SchemaChanges) -> Existing | None:
    """Drop the columns that `rules` drop for `schema`; return the table if there were any."""
    existing = read(connection, schema.table) if schema.former else None
    behind = [] if existing is None else plan(_changes(schema, existing), rules).behind
    if existing is None or not behind:
        return None
    _run(connection, _alterations(existing, behind))
    return read(connection, schema.table)


def _run(connection: Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        try:
            connection.execute(statement)
        except _IMPOSSIBLE as error:
            raise SchemaIncompatible(
                f"DuckDB cannot change the table: {str(error).partition(chr(10))[0]}",
                hint=f"Make way for it, or do it by hand: {statement};",
            ) from error


def _changes(schema: TableSchema, existing: Existing) -> list[Change]:
    def declares(there: Declared, column: Column) -> bool:
        storage = form_of(column.type).storage
        return there.type in (storage, *_SPELLED.get(storage, ()))

    return changes(schema, existing.column, declares)


def _alterations(existing: Existing, asked: Iterable[Change]) -> list[str]:
    """Return the statements that make `asked`: DuckDB takes one change at a time."""
    clauses = [_clause(change) for change in asked]
    return [f"ALTER TABLE {existing.quoted} {clause}" for clause in clauses if clause]


def _clause(change: Change) -> str:
    name = quoted(change.there)
    if change.kind == "drop":
        return f"DROP COLUMN {name}"
    if change.kind == "nullability":
        return f"ALTER COLUMN {name} DROP NOT NULL"
    if change.now is None or change.kind == "rename":
        return ""
    if change.kind == "add":
        return f"ADD COLUMN {_column(change.now)}"
    return f"ALTER COLUMN {name} TYPE {form_of(change.now.type).storage}"


def _refuse_names(schema: TableSchema) -> None:
    """Stop where DuckDB would take a name for another one, or for its own."""
    folder, name = map(_folded, _place(schema.table))
    if folder in _NOT_OURS or name.startswith("tailrace_"):
        raise SchemaIncompatible(
            f"{folder}.{name} would be a table of DuckDB's own or of the sink's",
            hint="Map the topic to another table with `to:`.",
        )
    seen: dict[str, str] = {}
    for column in schema.columns:
        other = seen.setdefault(_folded(column.name), column.name)
        if other != column.name:
            raise SchemaIncompatible(
                f"{schema.table} has columns {other} and {column.name}, which are one to DuckDB",
                hint="Rename one of them in the mapping (`fields:`).",
            )


def _refuse_unlike(column: Column, existing: Existing) -> None:
    """Stop where the column would turn values into something else."""
    there, wanted = existing.column(column.name), form_of(column.type).storage
    if there is None or there.generated or _keeps(wanted, there.type):
        return
    raise SchemaIncompatible(
        f"{existing.quoted}.{there.name} is {there.type} in the file, which would not keep a "
        f"{column.type.logical} as it is: that is stored as {wanted}",
        hint=f"Cast it in the mapping (`{column.name}: {{from: …, as: …}}`), map it to another "
        f"column, or declare the file's column {wanted}, or VARCHAR for the text.",
    )


def _keeps(wanted: str, declared: str) -> bool:
    if declared == "VARCHAR":
        return True
    ours, there = _DECIMAL.fullmatch(wanted), _DECIMAL.fullmatch(declared)
    if ours and there:
        digits, scale = int(ours[1]), int(ours[2])
        return int(there[2]) >= scale and int(there[1]) - int(there[2]) >= digits - scale
    if wanted == "VARCHAR" and declared.startswith("ENUM"):
        return True
    return declared in _KEPT.get(wanted, (wanted,))


def _creation(name: str, schema: TableSchema) -> list[str]:
    """Return what makes the table."""
    columns = [
        f"{_column(c)} NOT NULL" if c.name in schema.key else _column(c) for c in schema.columns
    ]
    folder = name.rpartition(f".{quoted(schema.table.name)}")[0]
    return [
        f"CREATE SCHEMA IF NOT EXISTS {folder}",
        f"CREATE TABLE {name} ({', '.join(columns)})",
    ]


def _column(column: Column) -> str:
    return f"{quoted(column.name)} {form_of(column.type).storage}"
