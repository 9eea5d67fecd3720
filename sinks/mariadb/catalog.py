"""Which tables and columns the server has, and how missing ones are made.

MariaDB calls a schema a database. A table of `public`, or of none, lies in the database that the
URL names, one of another schema in the database of that name.

What MariaDB would take for a value that differs (a shorter decimal, a key that knows no capitals),
or for no transaction at all (MyISAM), stops the sink: its strict mode says nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pymysql
from pymysql.constants import ER

from cdc.connections.mariadb import Connection, code_of, fetch, quoted
from cdc.errors import PreflightFailed, SchemaIncompatible
from schemas.table import Column, TableId, TableSchema
from sinks.mariadb.cursors import TABLE_OPTIONS
from sinks.mariadb.forms import WIDE, key_storage, storage
from sinks.mariadb.transactions import LACKING, LOCKED
from sinks.refusals import dropped

__all__ = ["Catalog", "Change", "Existing", "ExistingColumn", "Index", "place_of", "run"]

Change = Callable[[Sequence[str]], None]
"""Runs the statements that make what is missing, or refuses to."""

_PLAIN_SCHEMAS = ("", "public")
_OURS = "tailrace_"
_LAST_CHARACTER = "\uffff"

_TABLE = """
SELECT TABLE_TYPE, ENGINE,
       (SELECT TRANSACTIONS FROM information_schema.ENGINES e WHERE e.ENGINE = t.ENGINE)
FROM information_schema.TABLES t WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
"""
_COLUMNS = """
SELECT COLUMN_NAME, COLUMN_TYPE, DATA_TYPE, CHARACTER_SET_NAME, COLLATION_NAME,
       IS_GENERATED = 'ALWAYS', COALESCE(NUMERIC_SCALE, DATETIME_PRECISION, 0)
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
ORDER BY ORDINAL_POSITION
"""
_UNIQUE = """
SELECT INDEX_NAME, COLUMN_NAME, SUB_PART IS NULL FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NOT NON_UNIQUE
"""
_PARENTS = """
SELECT UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME
FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = %s AND TABLE_NAME = %s
"""

_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext"}
_BYTES = {"varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_INTEGERS = {"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", *_TEXTS}
_DAYS = {"date", "datetime", "timestamp", *_TEXTS}
_MOMENTS = {"datetime", "timestamp", *_TEXTS}
_WORDS = {*_TEXTS, *_BYTES, "enum", "set", "uuid", "inet4", "inet6", "decimal", "date", *_MOMENTS}
_TAKEN = {
    "boolean": _INTEGERS,
    "int16": _INTEGERS,
    "int32": _INTEGERS,
    "int64": _INTEGERS,
    "float32": {"float", "double", *_TEXTS},
    "float64": {"double", *_TEXTS},
    "decimal": {"decimal", *_TEXTS},
    "date": _DAYS,
    "time": {"time", *_TEXTS},
    "timestamp": _MOMENTS,
    "timestamptz": _MOMENTS,
    "bytes": _BYTES,
    "uuid": {"uuid", *_TEXTS},
    "string": _WORDS,
    "json": _WORDS,
    "enum": _WORDS,
    "text": {*_WORDS, "time"},
}
"""Logical type → types of a column that keeps its values as they are, or refuses them."""
_FRACTION = 6
_FRACTIONS = {"time": {"time"}, "timestamp": _MOMENTS - _TEXTS, "timestamptz": _MOMENTS - _TEXTS}

_MALFORMED = (
    ER.DUP_FIELDNAME,
    ER.TOO_LONG_IDENT,
    ER.WRONG_DB_NAME,
    ER.WRONG_TABLE_NAME,
    ER.WRONG_COLUMN_NAME,
    ER.TOO_LONG_KEY,
    ER.TOO_MANY_KEY_PARTS,
    ER.TOO_MANY_FIELDS,
    ER.TOO_BIG_ROWSIZE,
)


class ExistingColumn(msgspec.Struct, frozen=True):
    """A column as the server has it.

    `type` is as declared, `family` its name alone, `scale` digits behind the point or, of a moment,
    of a second.
    """

    name: str
    type: str
    family: str
    charset: str | None
    collation: str | None
    generated: bool
    scale: int

    @property
    def declared(self) -> str:
        """Return the type with what decides which texts are equal."""
        if self.charset is None or self.collation is None:
            return self.type
        return f"{self.type} CHARACTER SET {self.charset} COLLATE {self.collation}"

    @property
    def is_exact(self) -> bool:
        """Tell whether values are equal only byte for byte."""
        return self.collation is None or self.collation.endswith("_nopad_bin")


class Index(msgspec.Struct):
    """A unique index: its columns, folded; whether it holds whole values, no beginnings."""

    columns: set[str]
    whole: bool = True


class Existing(msgspec.Struct, frozen=True):
    """A table as the server has it; columns by folded name, and where foreign keys point to."""

    database: str
    name: str
    engine: str
    transactional: bool
    columns: Mapping[str, ExistingColumn]
    unique: Sequence[Index]
    parents: Sequence[tuple[str, str]]

    @property
    def quoted(self) -> str:
        """Return the name for a statement."""
        return f"{quoted(self.database)}.{quoted(self.name)}"

    def column(self, name: str) -> ExistingColumn | None:
        """Return the column MariaDB means by `name`: it knows no capitals there."""
        return self.columns.get(name.lower())

    def is_unique_by(self, key: Iterable[str]) -> bool:
        """Tell whether a unique index covers exactly `key`."""
        wanted = {name.lower() for name in key}
        return any(index.whole and index.columns == wanted for index in self.unique)

    def is_unique_only_by(self, key: Iterable[str]) -> bool:
        """Tell whether two rows that a unique index takes for one have the same `key`."""
        wanted = {name.lower() for name in key}
        return all(index.whole and index.columns >= wanted for index in self.unique)


def place_of(table: TableId, database: str) -> tuple[str, str]:
    """Return the database and the name of a table; `database` is the URL's."""
    return (database if table.schema in _PLAIN_SCHEMAS else table.schema, table.name)


class Catalog:
    """Reads what the server holds, and says what would make the rest."""

    def __init__(self, connection: Connection, database: str) -> None:
        self._connection = connection
        self._database = database

    def _rows(self, query: str, *parameters: str) -> Sequence[tuple[Any, ...]]:
        return fetch(self._connection, query, parameters)

    def read(self, table: TableId) -> Existing | None:
        """Return the table as it is, None when there is none.

        Raises `errors.SchemaIncompatible` for a view.
        """
        place = place_of(table, self._database)
        found = self._rows(_TABLE, *place)
        if not found:
            return None
        [(kind, engine, transactions)] = found
        if engine is None:
            raise SchemaIncompatible(
                f"{'.'.join(place)} is a {kind.lower()}, which takes no upserts",
                hint="Map the topic to a table with `to:`.",
            )
        columns = [ExistingColumn(*row) for row in self._rows(_COLUMNS, *place)]
        indexes: dict[str, Index] = {}
        for name, column, whole in self._rows(_UNIQUE, *place):
            index = indexes.setdefault(name, Index(set()))
            index.columns.add(column.lower())
            index.whole = index.whole and bool(whole)
        return Existing(
            *place,
            engine,
            transactions == "YES",
            {column.name.lower(): column for column in columns},
            list(indexes.values()),
            [(row[0], row[1]) for row in self._rows(_PARENTS, *place)],
        )

    def ensure(self, schema: TableSchema, change: Change) -> Existing:
        """Return the table, made or completed by `change`.

        Raises `errors.SchemaIncompatible` where its columns or engine would not keep the rows,
        `errors.PreflightFailed` when no unique index carries the key.
        """
        _refuse_names(schema)
        existing = self.read(schema.table)
        statements = self._statements(schema, existing)
        if statements:
            change(statements)
            existing = self.read(schema.table)
        if existing is None:
            raise dropped(schema.table)
        _refuse_engine(existing)
        for column in schema.columns:
            _refuse_unlike(column, existing)
        _refuse_key(schema, existing)
        return existing

    def _statements(self, schema: TableSchema, existing: Existing | None) -> list[str]:
        """Return what makes the table, or the columns it lacks."""
        database, name = place_of(schema.table, self._database)
        table = f"{quoted(database)}.{quoted(name)}"
        if existing is not None:
            lacking = [c for c in schema.columns if existing.column(c.name) is None]
            parts = [f"ADD COLUMN {quoted(c.name)} {storage(c.type)} NULL" for c in lacking]
            return [f"ALTER TABLE {table} {', '.join(parts)}"] if parts else []
        keys = [schema.column(name).type for name in schema.key]
        columns = [
            f"{quoted(c.name)} {key_storage(c.type, keys)} NOT NULL"
            if c.name in schema.key
            else f"{quoted(c.name)} {storage(c.type)} NULL"
            for c in schema.columns
        ]
        if schema.key:
            columns.append(f"PRIMARY KEY ({', '.join(map(quoted, schema.key))})")
        made = f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(columns)}) {TABLE_OPTIONS}"
        if self._has_database(database):
            return [made]
        return [f"CREATE DATABASE IF NOT EXISTS {quoted(database)}", made]

    def _has_database(self, name: str) -> bool:
        query = "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s"
        return bool(self._rows(query, name))


def run(connection: Connection, statements: Sequence[str]) -> None:
    """Run statements that make something.

    Raises `errors.PreflightFailed` without the right to, `errors.SchemaIncompatible` for a name or
    a key that MariaDB does not know.
    """
    for statement in statements:
        try:
            connection.query(statement)
        except pymysql.Error as error:
            code, text = code_of(error), str(error.args[-1])
            if code in LACKING:
                raise PreflightFailed(
                    f"the target's user may not make what is missing: {text}",
                    hint=f"Grant it, or run as another user: {statement};",
                ) from error
            if code in _MALFORMED and code not in LOCKED:
                raise SchemaIncompatible(
                    f"MariaDB cannot make the table: {text}",
                    hint="Map the topic to another table with `to:`, its columns to others with "
                    "`fields:`, or to another `key:`.",
                ) from error
            raise


def _refuse_names(schema: TableSchema) -> None:
    if schema.table.name.lower().startswith(_OURS):
        raise SchemaIncompatible(
            f"a table of the sink's own would be called {schema.table.name}",
            hint="Map the topic to another table with `to:`.",
        )
    names = [schema.table.schema, schema.table.name, *(c.name for c in schema.columns)]
    for name in names:
        if name and max(name) > _LAST_CHARACTER:
            raise SchemaIncompatible(
                f"MariaDB takes no name like {name}: a character of it is outside the basic plane",
                hint="Map the table to another with `to:`, its columns with `fields:`.",
            )
    seen: dict[str, str] = {}
    for column in schema.columns:
        other = seen.setdefault(column.name.lower(), column.name)
        if other != column.name:
            raise SchemaIncompatible(
                f"{schema.table} has columns {other} and {column.name}, which are one to MariaDB",
                hint="Rename one of them in the mapping (`fields:`).",
            )


def _refuse_engine(existing: Existing) -> None:
    if not existing.transactional:
        raise PreflightFailed(
            f"{existing.database}.{existing.name} is of the engine {existing.engine}, which knows "
            "no transactions: rows and cursor would not move together",
            hint=f"ALTER TABLE {existing.quoted} ENGINE=InnoDB;",
        )


def _refuse_unlike(column: Column, existing: Existing) -> None:
    """Stop where the column would turn values into something else, or take none at all."""
    there = existing.column(column.name)
    if there is None or _keeps(column, there):
        return
    raise SchemaIncompatible(
        f"{existing.name}.{there.name} is {there.type} in the target, which would not keep a "
        f"{column.type.logical} as it is: that is stored as {storage(column.type)}",
        hint=f"Cast it in the mapping (`{column.name}: {{from: …, as: …}}`), map it to another "
        f"column, or: ALTER TABLE {existing.quoted} MODIFY {quoted(there.name)} "
        f"{storage(column.type)};",
    )


def _keeps(column: Column, there: ExistingColumn) -> bool:
    logical = column.type.logical
    if there.family not in _TAKEN[logical]:
        return False
    if logical == "decimal" and there.family == "decimal":
        return there.scale >= column.type.scale
    cuts = there.family in _FRACTIONS.get(logical, ()) and there.scale < _FRACTION
    return not cuts or column.type.native == f"mariadb {there.type}"  # nothing is there to be cut


def _refuse_key(schema: TableSchema, existing: Existing) -> None:
    if not schema.key:
        return
    if not existing.is_unique_by(schema.key):
        key = ", ".join(map(quoted, schema.key))
        raise PreflightFailed(
            f"no unique index of {existing.database}.{existing.name} covers exactly "
            f"{', '.join(schema.key)}",
            hint=f"CREATE UNIQUE INDEX {quoted('tailrace_key')} ON {existing.quoted} ({key});",
        )
    for name in schema.key:
        there = existing.column(name)
        if there is not None and not there.is_exact and schema.column(name).type.logical in WIDE:
            raise PreflightFailed(
                f"the key {existing.name}.{there.name} takes texts for equal that differ in "
                f"capitals, accents or blanks ({there.collation})",
                hint=f"ALTER TABLE {existing.quoted} MODIFY {quoted(there.name)} {there.type} "
                "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL;",
            )
