"""A PostgreSQL table as `cdc verify` reads it: hashed by the server, or row by row.

A row's hash is over what the server's own functions make of its columns: of the value itself where
equal hashes mean equal values, of its text everywhere else (a numeric's scale, a float's sign of
zero and an interval's units are not in their hashes; an enum's and a collation's are the server's
own). `hash_record` is linear in its columns, so rows that swapped values would give the same sum:
it is hashed once more before it is added up.

Sources: PostgreSQL sources, `rowtypes.c` (hash_record_extended, 14 and newer), `hashfunc.c`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from cdc.connections.postgres import Login, connect, qualified, whole_guard
from cdc.decode.lsn import parse_lsn
from cdc.errors import CdcError, PreflightFailed, SourceUnavailable
from cdc.postgres.catalog import Catalog
from cdc.postgres.chunks import FIND_OPERATORS
from cdc.postgres.copying import copy_lines
from cdc.postgres.publication import Carried, Publication, carried
from cdc.verify.readable import NotThere, Piece, Row, Sums, Wanted, cells_of
from schemas.table import TableId

__all__ = ["PostgresSource", "PostgresTable"]

_SETTINGS = {
    "default_transaction_read_only": "on",
    "row_security": "off",
    "lock_timeout": "3s",
    "statement_timeout": "0",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "work_mem": "64MB",
}
_FAITHFUL = {
    *("smallint", "integer", "bigint", "boolean", "uuid", "bytea", "date", "text"),
    *("character varying", "character", "time without time zone"),
    *("timestamp without time zone", "timestamp with time zone"),
}
"""Types whose equal hashes mean equal values; texts are hashed under the collation "C"."""

_COLUMNS = """
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
       format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL), t.typcollation <> 0,
       t.typtype = 'e'
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
"""
_TABLE = """
SELECT c.oid::bigint, c.relkind = 'r', (WITH RECURSIVE part AS (
        SELECT c.oid UNION ALL SELECT i.inhrelid FROM part
        JOIN pg_catalog.pg_inherits i ON i.inhparent = part.oid)
    SELECT sum(greatest(p.reltuples, 0)) FROM part JOIN pg_catalog.pg_class p ON p.oid = part.oid
    )::bigint
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'f')
"""
_HERE = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
    ELSE pg_current_wal_insert_lsn() END::text, current_setting('wal_block_size')::int,
    (SELECT count(*) FROM pg_catalog.pg_stat_activity
     WHERE backend_xid IS NOT NULL AND wait_event = 'SyncRep')
"""
_PAGE_HEADER = 40
"""Bytes at most; what ends with a page is told to end behind the next one's header."""

_ALONE = 1_000_000
"""Rows of a piece of a table without a key: each is a pass over the whole table."""


class _Column(msgspec.Struct, frozen=True):
    """A column: its type as spelled, the base type without modifiers, whether it has a collation.

    `labelled` says that it is an enum.
    """

    name: str
    spelled: str
    base: str
    collated: bool
    labelled: bool

    def hashed(self) -> sql.Composable:
        """Return the expression that goes into the hash of a row."""
        name: sql.Composable = sql.Identifier(self.name)
        if self.base not in _FAITHFUL:
            return sql.SQL('{}::text COLLATE "C"').format(name)
        return sql.SQL('{} COLLATE "C"').format(name) if self.collated else name


class PostgresTable:
    """See `cdc.verify.readable.Readable`, `Lined` and `Hashing`.

    `only` leaves the children of plain inheritance out.
    """

    engine = "postgres"

    def __init__(self, login: Login, wanted: Wanted, *, only: bool = False) -> None:
        self._login, self._wanted = login, wanted
        self._table = TableId(wanted.table.schema or "public", wanted.table.name)
        self._only, self._condition = only, ""
        self._connection: psycopg.Connection[Any] | None = None
        self._columns: list[_Column] = []
        self._rows = 0

    def open(self) -> None:
        """Connect and look the table up."""
        self.close()
        self._connection = connect(self._login, _SETTINGS)
        connection = self._live()
        with self._named():
            connection.execute(FIND_OPERATORS)
            name = (self._table.schema, self._table.name)
            found = connection.execute(_TABLE, name).fetchone()
            if found is None:
                raise NotThere(f"there is no table {self._table}")
            oid, plain, self._rows = found
            self._only = self._only and plain
            known = {row[0]: _Column(*row) for row in connection.execute(_COLUMNS, (oid,))}
        missing = [name for name in self._wanted.columns if name not in known]
        if missing:
            raise NotThere(f"{self._table} has no column {', '.join(missing)}")
        self._columns = [known[name] for name in self._wanted.columns]

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def types(self) -> Sequence[str]:
        """Return the columns' types with their modifiers; an enum is hashed as the text it is."""
        return ["text" if column.labelled else column.spelled for column in self._columns]

    def sums(self, piece: Piece) -> Sums:
        """Count and sum up in one pass."""
        query = sql.SQL("SELECT count(*), coalesce(sum({}), 0)::text {}").format(
            self._hash(), self._from(piece)
        )
        with self._named():
            found = self._live().execute(query).fetchone()
        return Sums(found[0], found[1]) if found else Sums(0, "0")

    def hashes(self, piece: Piece) -> Iterator[tuple[Row, bytes | None]]:
        """Yield key and hash of each row."""
        query = sql.SQL("SELECT {}, {} {}").format(self._key(), self._hash(), self._from(piece))
        for row in map(cells_of, self._copied(query)):
            yield row[:-1], row[-1]

    def rows(self, piece: Piece) -> Iterator[Row]:
        """Yield whole rows."""
        return map(cells_of, self._copied(self._query(piece)))

    def lines(self, piece: Piece) -> Sequence[bytes]:
        """Return whole rows as COPY gives them."""
        return list(self._copied(self._query(piece)))

    def find(self, keys: Sequence[Row]) -> Iterator[Row]:
        """Yield the rows of some keys."""
        if not keys:
            return iter(())
        where = sql.SQL(" WHERE {}").format(self._among(keys))
        query = sql.SQL("SELECT {} {}{}").format(self._all(), self._source(), where)
        return map(cells_of, self._copied(query))

    # SQL

    def _query(self, piece: Piece) -> sql.Composed:
        return sql.SQL("SELECT {} {}").format(self._all(), self._from(piece))

    def _hash(self) -> sql.Composable:
        if not self._wanted.key:
            return _hash_of(sql.SQL("the_row, copies"))
        return self._row_hash()

    def _row_hash(self) -> sql.Composable:
        return _hash_of(sql.SQL(", ").join([column.hashed() for column in self._columns]))

    def _source(self) -> sql.Composable:
        """Return FROM; a table without a key is one of hashes and how many rows have them."""
        only = sql.SQL("ONLY " if self._only else "")
        table = sql.SQL("{}{}").format(only, qualified(self._table))
        if self._condition:
            table = sql.SQL("(SELECT * FROM {} WHERE ({})) AS sent").format(
                table, sql.SQL(self._condition)
            )
        if not self._wanted.key:
            table = sql.SQL(
                "(SELECT {} AS the_row, count(*) AS copies FROM {} GROUP BY 1) AS kinds"
            ).format(self._row_hash(), table)
        return sql.SQL("FROM {}").format(table)

    def _from(self, piece: Piece) -> sql.Composable:
        sides = [(">", piece.after), ("<=", piece.upto)]
        conditions = [
            sql.SQL("({}) {} ({})").format(self._key(), sql.SQL(sign), self._values(bound))
            for sign, bound in sides
            if bound is not None
        ]
        if not conditions:
            return self._source()
        return sql.SQL("{} WHERE {}").format(self._source(), sql.SQL(" AND ").join(conditions))

    def _key(self) -> sql.Composable:
        if not self._wanted.key:
            return sql.Identifier("the_row")
        names = self._wanted.columns[: self._wanted.key]
        return sql.SQL(", ").join(map(sql.Identifier, names))

    def _all(self) -> sql.Composable:
        if not self._wanted.key:
            return sql.SQL("the_row, copies")
        return sql.SQL(", ").join(map(sql.Identifier, self._wanted.columns))

    def _key_types(self) -> Sequence[str]:
        if not self._wanted.key:
            return ["bigint"]
        return [column.spelled for column in self._columns[: self._wanted.key]]

    def _values(self, key: Row) -> sql.Composable:
        typed = [
            sql.SQL("{}::{}").format(sql.Literal((cell or b"").decode()), sql.SQL(kind))
            for cell, kind in zip(key, self._key_types(), strict=True)
        ]
        return sql.SQL(", ").join(typed)

    def _among(self, keys: Sequence[Row]) -> sql.Composable:
        listed = [sql.SQL("({})").format(self._values(key)) for key in keys]
        return sql.SQL("({}) IN ({})").format(self._key(), sql.SQL(", ").join(listed))

    # Talking

    def _copied(self, query: sql.Composed) -> Iterator[bytes]:
        connection = self._live()
        text = sql.SQL("COPY ({}) TO STDOUT").format(query).as_bytes(connection)
        with self._named(), closing(copy_lines(connection.pgconn, text, lambda: None)) as lines:
            yield from lines

    def _live(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            raise self._login.unavailable("the connection is closed")
        return self._connection

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            with whole_guard(self._login):
                yield
        except CdcError as error:
            if isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
                raise PreflightFailed(
                    f"{self._table} cannot be read: {error.__cause__}",
                    hint=f"GRANT SELECT ON {self._table} TO the role of `url`",
                ) from error
            raise


class PostgresSource(PostgresTable):
    """See `cdc.verify.readable.ReadableSource`."""

    def __init__(self, login: Login, wanted: Wanted, publication: Publication) -> None:
        super().__init__(login, wanted, only=True)
        self._publication = publication

    def open(self) -> None:
        """Connect, look the table up, and see which part of it is published."""
        super().open()
        table = self._wanted.table
        sent = carried(Catalog(self._live(), self._login), self._publication, [table])
        found = sent.get(table, Carried())
        self._condition = found.condition
        unsent = set(self._wanted.columns) - set(found.columns or self._wanted.columns)
        if unsent:
            raise PreflightFailed(
                f"the publication {self._publication.name} leaves out columns of {table}: "
                f"{', '.join(sorted(unsent))}",
                hint="Leave them out with `columns:` of the source too: they are in no topic.",
            )

    def estimate(self) -> int:
        """Return what the statistics say."""
        return self._rows

    def pieces(self, rows: int) -> Iterator[Piece]:
        """Cut the table behind every so many rows of the key's own order.

        Uses a connection of its own, so that others may read meanwhile.
        """
        if not self._wanted.key:
            yield from _slices(max(1, self._rows // _ALONE))
            return
        after: Row | None = None
        with closing(connect(self._login, _SETTINGS)) as connection, self._named():
            connection.execute(FIND_OPERATORS)
            while True:
                upto = self._next_bound(connection, after, rows)
                yield Piece(after, upto)
                if upto is None:
                    return
                after = upto

    def _next_bound(
        self, connection: psycopg.Connection[Any], after: Row | None, rows: int
    ) -> Row | None:
        tail = sql.SQL(" ORDER BY {} OFFSET {} LIMIT 1").format(self._key(), sql.Literal(rows - 1))
        query = sql.SQL("COPY (SELECT {} {}{}) TO STDOUT").format(
            self._key(), self._from(Piece(after)), tail
        )
        text = query.as_bytes(connection)
        found = [cells_of(line) for line in copy_lines(connection.pgconn, text, lambda: None)]
        return found[0] if found else None

    def here(self) -> int:
        """Return the end of the log: a commit is written there before anybody sees it.

        One that waits for a standby is delivered and not seen by any read (R10): that is refused.
        """
        with self._named():
            text, page, unseen = self._live().execute(_HERE).fetchone() or ("0/0", 8192, 0)
        if unseen:
            raise SourceUnavailable(
                f"{unseen} transactions have committed and wait for a standby: nobody sees them",
                hint="Is a standby in synchronous_standby_names away?",
            )
        lsn = parse_lsn(text)
        return lsn - lsn % page if lsn % page <= _PAGE_HEADER else lsn

    def has_passed(self, position: dict[str, Any], here: int) -> bool:
        """Tell whether every transaction that committed before `here` was delivered."""
        return int(position.get("confirmed_lsn", 0)) >= here

    def condition(self, keys: Sequence[Row]) -> str:
        """Return the condition for some keys."""
        return self._among(keys).as_string(None)


def _hash_of(cells: sql.Composable) -> sql.Composable:
    return sql.SQL("hashint8extended(hash_record_extended(ROW({}), 0), 0)").format(cells)


def _slices(count: int) -> Iterator[Piece]:
    """Cut the range of 64-bit hashes evenly."""
    bounds = [(number << 64) // count - (1 << 63) for number in range(1, count)]
    cuts = [None, *[(b"%d" % bound,) for bound in bounds], None]
    for after, upto in pairwise(cuts):
        yield Piece(after, upto)
