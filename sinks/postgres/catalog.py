"""Which tables and columns the target has, and how missing ones are made.

What is asked of a table is decided in `sinks.policy`; here are its statements. Those of one version
are one ALTER TABLE, which PostgreSQL carries out whole or not at all.

A column that travels as "postgres numeric(12,2)" is made as exactly that where the target knows
the type; `to_regtype` decides, with the server's own parser, so that a type's name out of a
schema can never be anything but a type's name. Otherwise the logical type names the nearest one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, LiteralString

import msgspec
import psycopg
from psycopg import sql

from cdc.connections.postgres import qualified
from cdc.errors import PreflightFailed, SchemaIncompatible
from schemas.table import Column, TableId, TableSchema, Type
from sinks.policy import Change, Declared, SchemaChanges, changes, plan, stopped
from sinks.refusals import dropped, forbidden
from sinks.room import holds

__all__ = ["Catalog", "Existing", "ExistingColumn"]

Connection = psycopg.Connection[Any]

_NATIVE = "postgres "
_LOGICAL = {
    "boolean": "boolean",
    "int16": "smallint",
    "int32": "integer",
    "int64": "bigint",
    "float32": "real",
    "float64": "double precision",
    "date": "date",
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "bytes": "bytea",
    "uuid": "uuid",
    "json": "jsonb",
}

_COLUMNS = """
SELECT a.attname::text,
       CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod)
            ELSE format_type(a.atttypid, a.atttypmod) END,
       a.attgenerated <> '', a.attidentity = 'a', a.attnotnull
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_UNIQUE = """
SELECT array_agg(a.attname::text)
FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
  AND i.indexprs IS NULL AND i.indnkeyatts = i.indnatts AND i.indimmediate
GROUP BY i.indexrelid
"""
_FOREIGN = """
SELECT conrelid, confrelid FROM pg_constraint
WHERE contype = 'f' AND conrelid = ANY (%s) AND confrelid = ANY (%s)
"""
_KINDS = """
SELECT n, typcategory::text,
       CASE WHEN typtype = 'd' THEN format_type(typbasetype, typtypmod) ELSE n END
FROM unnest(%s::text[]) n LEFT JOIN pg_type ON pg_type.oid = to_regtype(n)
"""
_ANYTHING = (None, "S", "U", "X", "Z")
"""Categories (pg_type.typcategory) that take, or may hold, the text of anything: strings, and
user-defined types, whose input function alone knows."""
_MADE_MEANWHILE = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateColumn,
)
"""What two workers that make the same with IF NOT EXISTS get when they race in the catalogue."""
_IMPOSSIBLE = (
    psycopg.DataError,
    psycopg.NotSupportedError,
    psycopg.ProgrammingError,
    psycopg.errors.DependentObjectsStillExist,
)
"""What an ALTER gets for values that do not convert, and for views and the like in its way."""
_ROUNDING = ("numeric", "real", "double", "date", "time", "timestamp", "interval")
"""Types that take what does not fit them by rounding or cutting it, without a word."""
_RETYPED = ("widen", "retype")
_RELATION = """
SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'f')
"""


class ExistingColumn(msgspec.Struct, frozen=True):
    """A column as the target has it; `type` is a domain's base type, `required` is NOT NULL."""

    name: str
    type: str
    generated: bool
    identity_always: bool
    required: bool


class Existing(msgspec.Struct, frozen=True):
    """A table as the target has it; `unique` are the column sets that can carry ON CONFLICT."""

    oid: int
    table: TableId
    columns: Mapping[str, ExistingColumn]
    unique: Sequence[frozenset[str]]

    def type_of(self, name: str) -> str:
        """Return the type a value of a column is staged with, also of one that is not there."""
        there = self.columns.get(name)
        return "text" if there is None else there.type


class Catalog:
    """Reads and changes the target's catalogue over one autocommit connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, table: TableId) -> Existing | None:
        """Return the table as it is, None when there is none."""
        found = self._connection.execute(_RELATION, (table.schema, table.name)).fetchone()
        if found is None:
            return None
        columns = self._connection.execute(_COLUMNS, found).fetchall()
        unique = self._connection.execute(_UNIQUE, found).fetchall()
        return Existing(
            found[0],
            table,
            {row[0]: ExistingColumn(*row) for row in columns},
            [frozenset(row[0]) for row in unique],
        )

    def ensure(self, schema: TableSchema, rules: SchemaChanges) -> Existing:
        """Return the table, made or changed as `rules` say.

        Raises `errors.SchemaIncompatible` with the statement that is missing where they say stop,
        `errors.PreflightFailed` when no unique index carries the key.
        """
        existing = self.read(schema.table)
        if existing is None:
            statements = self._create(schema)
            if not rules.creates:
                raise forbidden([self._text(statement) for statement in statements])
            self._run(statements)
            existing = self._again(schema.table)
        asked = plan(self._changes(schema, existing), rules)
        if asked.stop:
            raise stopped(schema, asked.stop, self._texts(schema.table, asked.stop))
        _refuse_rounding(existing, asked.left)
        if asked.first:
            self._run(self._alter(schema.table, asked.first))
            existing = self._again(schema.table)
        self._refuse_unlike(schema, existing, asked.left)
        if schema.key and frozenset(schema.key) not in existing.unique:
            raise PreflightFailed(
                f"no unique index of {schema.table} covers exactly {', '.join(schema.key)}",
                hint=self._text(self._index(schema)),
            )
        return existing

    def drops(self, schema: TableSchema, rules: SchemaChanges) -> Existing | None:
        """Drop the columns that `rules` drop for `schema`; return the table if there were any."""
        if not schema.former:
            return None
        behind = plan(self._changes(schema, self._again(schema.table)), rules).behind
        self._run(self._alter(schema.table, behind))
        return self._again(schema.table) if behind else None

    def _changes(self, schema: TableSchema, existing: Existing) -> list[Change]:
        def declares(there: Declared, column: Column) -> bool:
            return there.type == self._type(column.type)

        return changes(schema, existing.columns.get, declares)

    def _refuse_unlike(
        self, schema: TableSchema, existing: Existing, left: Iterable[Change]
    ) -> None:
        """Stop where values would be refused one by one, rounded or cut; `left` was left so."""
        pairs = {
            column: (self._type(column.type), found.type)
            for column in schema.columns
            if (found := existing.columns.get(column.name)) is not None
            and column.name not in schema.passing
            and not found.generated
        }
        names = list({name for pair in pairs.values() for name in pair})
        known = {row[0]: row[1:] for row in self._connection.execute(_KINDS, (names,))}
        chosen = {*schema.cast, *(change.there for change in left if change.kind in _RETYPED)}
        for column, (wanted, there) in pairs.items():
            (kind, plain), (other, _) = known[wanted], known[there]
            if kind != other and not {kind, other} & set(_ANYTHING):
                raise _unlike(schema, column, wanted, there)
            need = column.type
            if need.native == _NATIVE + wanted:  # of a domain, what it is made of
                need = msgspec.structs.replace(need, native=_NATIVE + plain)
            if column.name not in chosen and holds(Type("", _NATIVE + there), need) is False:
                raise _narrower(schema, column, wanted, there)

    def parents(self, oids: Iterable[int]) -> dict[int, list[int]]:
        """Return table → tables its foreign keys point to, among `oids`."""
        known = list(oids)
        out: dict[int, list[int]] = {}
        for child, parent in self._connection.execute(_FOREIGN, (known, known)):
            out.setdefault(child, []).append(parent)
        return out

    def _again(self, table: TableId) -> Existing:
        existing = self.read(table)
        if existing is None:
            raise dropped(table)
        return existing

    def _run(self, statements: Iterable[sql.Composed]) -> None:
        for statement in statements:
            try:
                with self._connection.transaction():
                    self._connection.execute(statement)
            except _MADE_MEANWHILE:
                continue
            except psycopg.errors.InsufficientPrivilege as error:
                raise PreflightFailed(
                    f"the target's role may not make what is missing: {error}",
                    hint=f"Grant it, or run as the owner: {self._text(statement)};",
                ) from error
            except _IMPOSSIBLE as error:
                raise SchemaIncompatible(
                    f"the target's table cannot be changed: {error}",
                    hint=f"Make way for it, or do it by hand: {self._text(statement)};",
                ) from error

    def _texts(self, table: TableId, asked: Sequence[Change]) -> list[str]:
        return [self._text(statement) for statement in self._alter(table, asked)]

    def _text(self, statement: sql.Composable) -> str:
        return statement.as_string(self._connection)

    def _create(self, schema: TableSchema) -> list[sql.Composed]:
        columns: list[sql.Composable] = [self._column(column) for column in schema.columns]
        if schema.key:
            key = sql.SQL(", ").join(map(sql.Identifier, schema.key))
            columns.append(sql.SQL("PRIMARY KEY ({})").format(key))
        table = sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(
            qualified(schema.table), sql.SQL(", ").join(columns)
        )
        if self._has_schema(schema.table.schema):
            return [table]
        name = sql.Identifier(schema.table.schema)
        return [sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name), table]

    def _has_schema(self, name: str) -> bool:
        query = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
        return self._connection.execute(query, (name,)).fetchone() is not None

    def _alter(self, table: TableId, asked: Sequence[Change]) -> list[sql.Composed]:
        """Return the one statement that makes `asked`, or none."""
        parts = [clause for change in asked if (clause := self._clause(change)) is not None]
        if not parts:
            return []
        return [sql.SQL("ALTER TABLE {} {}").format(qualified(table), sql.SQL(", ").join(parts))]

    def _clause(self, change: Change) -> sql.Composed | None:
        name = sql.Identifier(change.there)
        if change.kind == "drop":
            return sql.SQL("DROP COLUMN IF EXISTS {}").format(name)
        if change.kind == "nullability":
            return sql.SQL("ALTER COLUMN {} DROP NOT NULL").format(name)
        if change.now is None or change.kind == "rename":
            return None
        if change.kind == "add":
            return sql.SQL("ADD COLUMN IF NOT EXISTS {}").format(self._column(change.now))
        kind = sql.SQL(self._type(change.now.type))
        # By way of its text any value has a chance, while a cast that fits may spare the rewrite.
        way: LiteralString = "" if change.kind == "widen" else " USING {}::text::{}"
        using = sql.SQL(way).format(name, kind) if way else sql.Composed([])
        return sql.SQL("ALTER COLUMN {} TYPE {}{}").format(name, kind, using)

    def _index(self, schema: TableSchema) -> sql.Composed:
        key = sql.SQL(", ").join(map(sql.Identifier, schema.key))
        return sql.SQL("CREATE UNIQUE INDEX CONCURRENTLY ON {} ({});").format(
            qualified(schema.table), key
        )

    def _column(self, column: Column) -> sql.Composed:
        # The type's name was accepted by the server's parser as a type and nothing else.
        kind = sql.SQL(self._type(column.type))
        return sql.SQL("{} {}").format(sql.Identifier(column.name), kind)

    def _type(self, kind: Type) -> str:
        native = kind.native.removeprefix(_NATIVE)
        if kind.native.startswith(_NATIVE) and self._is_type(native):
            return native
        if kind.logical == "decimal":
            return f"numeric({kind.precision},{kind.scale})"
        return _LOGICAL.get(kind.logical, "text")

    def _is_type(self, name: str) -> bool:
        try:
            with self._connection.transaction():
                found = self._connection.execute("SELECT to_regtype(%s)", (name,)).fetchone()
        except (psycopg.errors.SyntaxError, psycopg.errors.InvalidName):
            return False  # before PostgreSQL 16 a name that cannot be parsed is an error
        return found is not None and found[0] is not None


def _unlike(schema: TableSchema, column: Column, wanted: str, there: str) -> SchemaIncompatible:
    name = column.name
    return SchemaIncompatible(
        f"{schema.table}.{name} is {there} in the target and {wanted} at the source",
        hint=f"Cast it in the mapping (`{name}: {{from: …, as: …}}`), map it to another column, or "
        "change the target's column.",
    )


def _narrower(schema: TableSchema, column: Column, wanted: str, there: str) -> SchemaIncompatible:
    error = _unlike(schema, column, wanted, there)
    name, kind = sql.Identifier(column.name).as_string(), sql.SQL(wanted).as_string()
    return SchemaIncompatible(
        f"{error}, which it does not hold: values would be rounded, cut or refused",
        hint=f"ALTER TABLE {qualified(schema.table).as_string()} ALTER COLUMN {name} TYPE {kind}; "
        f"or say in the mapping that it is meant so: `{column.name}: {{from: …, as: …}}`.",
    )


def _refuse_rounding(existing: Existing, left: Iterable[Change]) -> None:
    """Stop where a type that was left as it is would change values instead of refusing them."""
    for change in left:
        there = existing.columns.get(change.there)
        if change.kind in _RETYPED and there and there.type.startswith(_ROUNDING):
            raise SchemaIncompatible(
                f"{existing.table}: {change.sentence}; left as it is, it would round or cut values",
                hint=f"`schema_changes: {{{change.kind}: apply}}`, or cast it in the mapping.",
            )
