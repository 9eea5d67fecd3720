"""Which tables and columns the server has, and how missing ones are made.

The server calls a schema a database. A table of `public`, or of none, lies in the database that the
URL names, one of another schema in the database of that name.

What is asked of a table is decided in `sinks.policy`; here are its statements. Those of one version
are one ALTER TABLE, and each of them ends a transaction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pymysql
from pymysql.constants import ER

from cdc.connections.mariadb import Connection, code_of, fetch, quoted
from cdc.errors import PreflightFailed, SchemaIncompatible
from schemas.table import Column, TableId, TableSchema
from sinks.mariadb.cursors import table_options
from sinks.mariadb.dialect import Dialect
from sinks.mariadb.existing import (
    Existing,
    ExistingColumn,
    Index,
    refuse_engine,
    refuse_key,
    refuse_names,
    refuse_unlike,
)
from sinks.mariadb.refused import is_of_a_value
from sinks.mariadb.transactions import LACKING, LOCKED
from sinks.policy import Change, Declared, SchemaChanges, changes, plan, stopped
from sinks.refusals import dropped, forbidden

__all__ = ["Catalog", "Run", "place_of", "run"]

Run = Callable[[Sequence[str]], None]
"""Runs statements that make or change a table."""

_PLAIN_SCHEMAS = ("", "public")

_TABLE = """
SELECT TABLE_TYPE, ENGINE,
       (SELECT TRANSACTIONS FROM information_schema.ENGINES e WHERE e.ENGINE = t.ENGINE)
FROM information_schema.TABLES t WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
"""
_COLUMNS = """
SELECT COLUMN_NAME, COLUMN_TYPE, DATA_TYPE, CHARACTER_SET_NAME, COLLATION_NAME,
       COALESCE(GENERATION_EXPRESSION, '') <> '',
       COALESCE(NUMERIC_SCALE, DATETIME_PRECISION, 0), IS_NULLABLE = 'NO'
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
ORDER BY ORDINAL_POSITION
"""
_UNIQUE = """
SELECT INDEX_NAME, COALESCE(COLUMN_NAME, ''), SUB_PART IS NULL AND COLUMN_NAME IS NOT NULL
FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NOT NON_UNIQUE
"""
_PARENTS = """
SELECT UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME
FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = %s AND TABLE_NAME = %s
"""

_BOUND = (1553, 1828, 1829, 1901)
"""A foreign key or a generated column in the way of a drop; PyMySQL has no names for these."""
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
    3750,  # no primary key, where MySQL's sql_require_primary_key asks for one
)
_IMPOSSIBLE = (ER.CANT_DROP_FIELD_OR_KEY, *_BOUND)
_WIDTH = re.compile(r"((?:tiny|small|medium|big)?int)\(\d+\)")


def place_of(table: TableId, database: str) -> tuple[str, str]:
    """Return the database and the name of a table; `database` is the URL's."""
    return (database if table.schema in _PLAIN_SCHEMAS else table.schema, table.name)


class Catalog:
    """Reads what the server holds, and says what would make the rest."""

    def __init__(self, connection: Connection, database: str, dialect: Dialect) -> None:
        self._connection = connection
        self._database = database
        self._dialect = dialect

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

    def ensure(self, schema: TableSchema, rules: SchemaChanges, change: Run) -> Existing:
        """Return the table, made or changed by `change` as `rules` say.

        Raises `errors.SchemaIncompatible` with the statement that is missing where they say stop,
        and where its columns or engine would not keep the rows; `errors.PreflightFailed` when no
        unique index carries the key.
        """
        refuse_names(schema, self._dialect)
        existing = self.read(schema.table)
        if existing is None:
            statements = self._creation(schema)
            if not rules.creates:
                raise forbidden(statements)
            change(statements)
            existing = self._again(schema.table)
        asked = plan(self._changes(schema, existing), rules)
        if asked.stop:
            raise stopped(schema, asked.stop, self._alteration(schema, existing, asked.stop))
        if asked.first:
            change(self._alteration(schema, existing, asked.first))
            existing = self._again(schema.table)
        refuse_engine(existing)
        for column in schema.columns:
            if column.name not in schema.passing:
                refuse_unlike(column, existing, self._dialect, cast=column.name in schema.cast)
        refuse_key(schema, existing, self._dialect)
        return existing

    def drops(self, schema: TableSchema, rules: SchemaChanges, change: Run) -> Existing | None:
        """Drop the columns that `rules` drop for `schema`; return the table if there were any."""
        if not schema.former:
            return None
        existing = self._again(schema.table)
        behind = plan(self._changes(schema, existing), rules).behind
        if not behind:
            return None
        change(self._alteration(schema, existing, behind))
        return self._again(schema.table)

    def _again(self, table: TableId) -> Existing:
        existing = self.read(table)
        if existing is None:
            raise dropped(table)
        return existing

    def _creation(self, schema: TableSchema) -> list[str]:
        """Return what makes the table."""
        database, name = place_of(schema.table, self._database)
        columns = [
            f"{quoted(c.name)} {self._storage(schema, c)} "
            f"{'NOT NULL' if c.name in schema.key else 'NULL'}"
            for c in schema.columns
        ]
        if schema.key:
            columns.append(f"PRIMARY KEY ({', '.join(map(quoted, schema.key))})")
        made = (
            f"CREATE TABLE IF NOT EXISTS {quoted(database)}.{quoted(name)} "
            f"({', '.join(columns)}) {table_options(self._dialect)}"
        )
        if self._has_database(database):
            return [made]
        return [f"CREATE DATABASE IF NOT EXISTS {quoted(database)}", made]

    def _has_database(self, name: str) -> bool:
        query = "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s"
        return bool(self._rows(query, name))

    def _changes(self, schema: TableSchema, existing: Existing) -> list[Change]:
        def declares(there: Declared, column: Column) -> bool:
            return _unsized(there.type) == _unsized(self._storage(schema, column))

        return changes(schema, existing.column, declares)

    def _storage(self, schema: TableSchema, column: Column) -> str:
        if column.name not in schema.key:
            return self._dialect.forms.storage(column.type)
        beside = [schema.column(name).type for name in schema.key]
        return self._dialect.forms.key_storage(column.type, beside)

    def _alteration(
        self, schema: TableSchema, existing: Existing, asked: Sequence[Change]
    ) -> list[str]:
        """Return the one statement that makes `asked`, or none."""
        parts = [part for change in asked if (part := self._clause(schema, existing, change))]
        return [f"ALTER TABLE {existing.quoted} {', '.join(parts)}"] if parts else []

    def _clause(self, schema: TableSchema, existing: Existing, change: Change) -> str:
        name, there = quoted(change.there), existing.column(change.there)
        if change.kind == "drop":
            return f"DROP COLUMN {name}"
        if change.kind == "nullability" and there is not None:
            return f"MODIFY {name} {there.declared} NULL"
        if change.now is None or change.kind == "rename":
            return ""
        kind = self._storage(schema, change.now)
        if change.kind == "add":
            return f"ADD COLUMN {name} {kind} NULL"
        is_required = there is not None and there.required
        return f"MODIFY {name} {kind} {'NOT NULL' if is_required else 'NULL'}"


def _unsized(spelled: str) -> str:
    """Return a type without the width of an integer, which says nothing."""
    return _WIDTH.sub(r"\1", spelled.lower())


def run(connection: Connection, statements: Sequence[str], dialect: Dialect) -> None:
    """Run statements that make something.

    Raises `errors.PreflightFailed` without the right to, `errors.SchemaIncompatible` for a name or
    a key that the server does not know.
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
            if code in _IMPOSSIBLE or is_of_a_value(error):
                raise SchemaIncompatible(
                    f"{dialect.name} cannot change the table: {text}",
                    hint=f"Make way for it, or do it by hand: {statement};",
                ) from error
            if code in _MALFORMED and code not in LOCKED:
                raise SchemaIncompatible(
                    f"{dialect.name} cannot make the table: {text}",
                    hint="Map the topic to another table with `to:`, its columns to others with "
                    "`fields:`, or to another `key:`.",
                ) from error
            raise
