"""What the catalogue says now: tables, columns, keys, types. Advisory for the stream (R11)."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec
import psycopg
from psycopg import sql

from cdc.connections.postgres import Login, guard
from cdc.decode.pgtypes import TYPE_ROWS, TypeRow, type_row
from cdc.errors import SourceUnavailable
from schemas.table import TableId

__all__ = [
    "SETTINGS",
    "Catalog",
    "ColumnFacts",
    "Connection",
    "TableFacts",
    "TableLocked",
    "selects",
]

Connection = psycopg.Connection[tuple[object, ...]]

SETTINGS = {"lock_timeout": "2s", "synchronous_commit": "local"}
"""No lock is waited for out of sight, and a watermark waits for no standby."""

_TABLES = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relreplident::text, c.relkind::text,
       (WITH RECURSIVE part AS (SELECT c.oid, c.relkind UNION ALL
            SELECT i.inhrelid, 'p' FROM part JOIN pg_catalog.pg_inherits i
            ON i.inhparent = part.oid WHERE part.relkind = 'p')
        SELECT sum(greatest(p.reltuples, 0)) FROM part
        JOIN pg_catalog.pg_class p ON p.oid = part.oid WHERE p.relkind = 'r')::bigint,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
             AND array_position(i.indkey::int2[], a.attnum) < i.indnkeyatts
             WHERE i.indrelid = c.oid AND i.indisprimary
             ORDER BY array_position(i.indkey::int2[], a.attnum)),
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
             AND array_position(i.indkey::int2[], a.attnum) < i.indnkeyatts
             WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid
             ORDER BY array_position(i.indkey::int2[], a.attnum))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {which}
"""
"""indkey counts from 0; behind indnkeyatts come the columns an index merely includes."""

_USER_TABLES = """
c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 2, 3
"""

_COLUMNS = """
SELECT a.attrelid::bigint, a.attname::text, a.atttypid::bigint, a.atttypmod,
       format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
       a.attgenerated::text
FROM pg_catalog.pg_attribute a
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = ANY (%s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""


_PARTS = """
SELECT t.oid::bigint, a.attname::text, a.atttypid::bigint, a.atttypmod
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid
WHERE t.oid = ANY (%s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY t.oid, a.attnum
"""


class TableLocked(SourceUnavailable):
    """Somebody locks or changes a table just now; what was asked is tried again."""


class ColumnFacts(msgspec.Struct, frozen=True):
    """One column now. `spelled` is its type as the server writes it, typmod and all.

    `generated` is "" for a plain column, "s" for a stored and "v" for a virtual generated one.
    """

    name: str
    oid: int
    typmod: int
    spelled: str
    nullable: bool
    default: str | None
    generated: str


class TableFacts(msgspec.Struct, frozen=True):
    """One table now. `identity` is d, n, f or i; `estimate` is pg_class.reltuples.

    `primary_key` and `identity_index` are column names in the index's order.
    """

    oid: int
    table: TableId
    identity: str
    kind: str
    estimate: int
    primary_key: tuple[str, ...]
    identity_index: tuple[str, ...]
    columns: tuple[ColumnFacts, ...] = ()


def selects(globs: Sequence[str], table: TableId) -> bool:
    """Tell whether `schema.table` matches a glob and none of those that begin with "!"."""
    name = str(table)
    wanted = any(fnmatchcase(name, glob) for glob in globs if not glob.startswith("!"))
    return wanted and not any(fnmatchcase(name, g[1:]) for g in globs if g.startswith("!"))


class Catalog:
    """Reads the catalogue over one connection; see `SETTINGS`.

    Every method may raise `errors.Unavailable`; `TableLocked` where PostgreSQL wants to lock a
    table to describe it (pg_get_expr, pg_publication_tables) and somebody holds it.
    """

    def __init__(self, connection: Connection, login: Login) -> None:
        self.connection = connection
        self._login = login
        self._types: dict[int, TypeRow] = {}

    def rows(
        self, query: str | sql.Composed, arguments: tuple[object, ...] = ()
    ) -> list[tuple[object, ...]]:
        """Run `query` and return all its rows."""
        with guard(self._login):
            if isinstance(query, str):
                query = sql.Composed([sql.SQL(query)])
            try:
                return self.connection.execute(query, arguments or None).fetchall()
            except psycopg.errors.LockNotAvailable as error:
                hint = "see who: SELECT pid, relation::regclass, mode FROM pg_locks"
                raise TableLocked("a table is locked by another session", hint=hint) from error

    def execute(self, statement: str) -> None:
        """Run a statement that returns nothing."""
        with guard(self._login):
            self.connection.execute(sql.SQL(statement))

    def value(self, query: str, arguments: tuple[object, ...] = ()) -> object:
        """Return the single value `query` gives, None when there is no row."""
        rows = self.rows(query, arguments)
        return rows[0][0] if rows else None

    def tables(self, globs: list[str]) -> list[TableFacts]:
        """Return the permanent tables `globs` select, roots for partitioned ones, by name."""
        found = [_table(row) for row in self.rows(_TABLES.format(which=_USER_TABLES))]
        return [facts for facts in found if selects(globs, facts.table)]

    def facts(self, oid: int) -> TableFacts | None:
        """Return a table with its columns, None when it is gone."""
        rows = self.rows(_TABLES.format(which="c.oid = %s"), (oid,))
        if not rows:
            return None
        return self.described([_table(rows[0])])[0]

    def described(self, tables: Sequence[TableFacts]) -> list[TableFacts]:
        """Return `tables` with their columns, asked for all at once."""
        names = ColumnFacts.__struct_fields__
        columns: dict[int, list[dict[str, object]]] = {facts.oid: [] for facts in tables}
        for oid, *row in self.rows(_COLUMNS, (list(columns),)):
            columns[int(str(oid))].append(dict(zip(names, row, strict=True)))
        return [
            msgspec.structs.replace(
                facts, columns=msgspec.convert(columns[facts.oid], tuple[ColumnFacts, ...])
            )
            for facts in tables
        ]

    def find(self, table: TableId) -> TableFacts | None:
        """Return the table called so now, with its columns; None when there is none."""
        which = "n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')"
        rows = self.rows(_TABLES.format(which=which), (table.schema, table.name))
        return self.facts(int(str(rows[0][0]))) if rows else None

    def types(self, oids: set[int]) -> dict[int, TypeRow]:
        """Return the types that are not built in, read anew when one of `oids` is unknown."""
        if any(oid >= 16384 and oid not in self._types for oid in oids):
            rows = (type_row(row) for row in self.rows(TYPE_ROWS))  # type: ignore[arg-type]
            self._types.update({row.oid: row for row in rows})
        self._name_parts(oids)
        return self._types

    def _name_parts(self, oids: set[int]) -> None:
        """Learn the parts of the composites among `oids`, and inside them, as they are now."""
        done: set[int] = set()
        while wanted := {self._base(oid) for oid in oids} - done - {0}:
            parts: dict[int, list[tuple[str, int, int]]] = {oid: [] for oid in wanted}
            for oid, *part in self.rows(_PARTS, (sorted(wanted),)):
                parts[int(str(oid))].append(msgspec.convert(part, tuple[str, int, int]))
            for oid, found in parts.items():
                self._types[oid] = msgspec.structs.replace(self._types[oid], parts=tuple(found))
            done |= wanted
            oids = {kind for found in parts.values() for _, kind, _ in found}

    def _base(self, oid: int) -> int:
        """Return the composite a type is, or is a domain over; 0 for any other."""
        row = self._types.get(oid)
        while row is not None and row.kind == "d":
            row = self._types.get(row.base)
        return row.oid if row is not None and row.kind == "c" else 0


def _table(row: tuple[object, ...]) -> TableFacts:
    oid, schema, name, identity, kind, estimate, primary, index = row
    fields = {
        "oid": oid,
        "table": TableId(str(schema), str(name)),
        "identity": identity,
        "kind": kind,
        "estimate": estimate,
        "primary_key": primary,
        "identity_index": index,
    }
    return msgspec.convert(fields, TableFacts)
