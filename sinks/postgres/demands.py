"""What a table asks of each row by itself: CHECK and NOT NULL, asked of a whole batch at once.

    a merge is refused for one of these ─▶ the same batch again, with its rows judged
    for a while ─▶ every batch is judged ─▶ the rows it breaks on are left out of it

A statement that fails names one row and costs the whole batch; a search tries nearly every row by
itself. The same expressions over staging name all rows in one pass over it. On the straight way a
COPY leaves out what they are false for, and a function that is called for such a row alone says in
which line it is; these rows go to staging, and are judged there like all others.

No row is blamed for what the table would have taken: the constraints are read again for each
batch; an expression is left to the statement itself where it needs a column that is not staged as
it would be stored (generated, of a domain, unknown here) or a function of somebody's own, which may
look at other rows, and all of them where a BEFORE trigger or a rule may change the row. Text is
compared under the column's own collation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from cdc.errors import DataError
from schemas.table import TableSchema
from sinks.postgres.catalog import Existing
from sinks.postgres.statements import WHOLE

__all__ = ["Demands"]

Connection = psycopg.Connection[Any]

_BATCHES = 64
"""Batches that are judged behind one that broke something."""

_ASKED = """
SELECT jsonb_build_object(
    'free', c.relkind IN ('r', 'p') AND NOT c.relhasrules AND NOT EXISTS (
        SELECT FROM pg_trigger t
        WHERE (t.tgrelid = c.oid OR t.tgrelid IN (SELECT relid FROM pg_partition_tree(c.oid)))
          AND NOT t.tgisinternal AND t.tgenabled <> 'D'
          AND t.tgtype & 3 = 3 AND t.tgtype & 20 <> 0),
    'checks', ARRAY(
        SELECT jsonb_build_array(k.conname, pg_get_expr(k.conbin, k.conrelid), ARRAY(
            SELECT a.attname FROM pg_attribute a
            WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)))
        FROM pg_constraint k
        WHERE k.conrelid = c.oid AND k.contype = 'c'
          AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
          AND NOT EXISTS (
              SELECT FROM unnest(k.conkey) n
              LEFT JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = n
              LEFT JOIN pg_type t ON t.oid = a.atttypid
              WHERE a.attnum IS NULL OR t.typtype = 'd')
          AND NOT EXISTS (
              SELECT FROM pg_depend d
              WHERE d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
                AND d.refclassid <> 'pg_class'::regclass)
        ORDER BY k.conname),
    'required', ARRAY(
        SELECT a.attname FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attnotnull AND NOT a.attisdropped),
    'collations', ARRAY(
        SELECT jsonb_build_array(a.attname, n.nspname, o.collname)
        FROM pg_attribute a JOIN pg_collation o ON o.oid = a.attcollation
        JOIN pg_namespace n ON n.oid = o.collnamespace
        WHERE a.attrelid = c.oid AND a.attnum > 0))
FROM pg_class c WHERE c.oid = %s
"""
"""`free`: rows are stored as they are sent; `tgtype` as in pg_trigger.h: 1 row, 2 before, 4 insert,
16 update. `conenforced` is PostgreSQL 18's; a key of 0 is a whole row, which is no column. A
function, type or operator that is not the server's own may look elsewhere, or be out of reach."""
_TELLS = """
CREATE OR REPLACE FUNCTION pg_temp.tailrace_leaves_out() RETURNS boolean LANGUAGE plpgsql STABLE
AS $$ BEGIN RAISE NOTICE 'tailrace leaves out a row'; RETURN false; END $$
"""
"""Not volatile: then COPY would write row by row."""
_TELLING = "tailrace leaves out a row"
_NUMBER = re.compile(r"\d+")


class _Found(NamedTuple):
    """What holds for a row that breaks something, and what to say then; collations of columns."""

    asked: Sequence[tuple[sql.Composable, str]]
    collations: Sequence[Sequence[str]]


class Demands:
    """The demands of one version of a target table on what is staged for it."""

    def __init__(self, schema: TableSchema, existing: Existing, stage: sql.Identifier) -> None:
        self._table = schema.table
        self._columns = [column.name for column in schema.columns]
        self._existing = existing
        self._stage = stage
        self._left = 0
        self._tells = False
        self._found: _Found | None = None

    def heed(self, connection: Connection) -> bool:
        """Judge the next batches; True where the last one was not."""
        anew = not self._left
        self._left = _BATCHES
        try:
            connection.execute(_TELLS)
        except psycopg.DatabaseError:
            self._tells = False  # nobody may, or there is no PL/pgSQL: all rows are staged
        else:
            self._tells = True
        return anew

    def begin(self) -> bool:
        """Begin a batch; tell whether its rows are judged."""
        self._found = None
        self._left = max(self._left - 1, 0)
        return self._left > 0

    def where(self, connection: Connection) -> sql.Composable:
        """Return what makes a COPY into the table leave out, and tell, rows that break something.

        Empty where nothing can be said before.
        """
        broken = [condition for condition, _ in self._read(connection).asked]
        if not broken or not self._tells:
            return sql.SQL("")
        text = sql.SQL(" WHERE NOT ({}) OR pg_temp.tailrace_leaves_out()")
        return text.format(sql.SQL(" OR ").join(broken))

    @contextmanager
    def told(self, connection: Connection) -> Iterator[list[int]]:
        """Collect the numbers of the lines, from 1, that such a COPY leaves out."""
        found: list[int] = []

        def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
            if diagnostic.message_primary == _TELLING:
                # In whatever language: the function's line, then the COPY's with table and line.
                place = (diagnostic.context or "").partition("\n")[2]
                number = _NUMBER.search(place.partition(self._table.name)[2])
                found.append(int(number[0]) if number else 0)

        connection.add_notice_handler(notice)
        try:
            yield found
        finally:
            connection.remove_notice_handler(notice)

    def broken(self, connection: Connection, rows: int) -> Mapping[int, str]:
        """Take the whole rows that break something out of staging, which holds `rows`.

        Returns why, by their numbers from 0 in the order they were staged, which staging must know;
        nothing where an expression fails for a row. Raises `errors.DataError` where staging holds
        something else, and as psycopg does.
        """
        found = self._read(connection)
        if not found.asked:
            return {}
        try:
            with connection.transaction():
                lines = connection.execute(self._query(found)).fetchall()
        except psycopg.OperationalError:
            raise
        except psycopg.DatabaseError:
            return {}
        if not lines:
            return {}
        if lines[0][2] != rows:
            raise DataError(f"the target refuses rows of {self._table}")
        self._left = _BATCHES
        return {line - 1: found.asked[which][1] for line, which, _ in lines}

    def _read(self, connection: Connection) -> _Found:
        """Return what the table asks, read once for each batch."""
        if self._found is None:
            rows = connection.execute(_ASKED, (self._existing.oid,)).fetchall()
            there: Mapping[str, Any] = rows[0][0] if rows else {"free": False}
            asked = list(self._asked(there)) if there["free"] else []
            self._found = _Found(asked, there.get("collations", ()))
        return self._found

    def _asked(self, found: Mapping[str, Any]) -> Iterator[tuple[sql.Composable, str]]:
        """Yield what holds for a row that breaks something, in the table's columns."""
        there = self._existing.columns
        staged = {n for n in self._columns if n in there and not there[n].generated}
        for name, expression, columns in found["checks"]:
            if staged.issuperset(columns):
                # The server's own text of an expression it has parsed and stored.
                said = f'it violates check constraint "{name}": {expression}'
                yield sql.SQL("({}) IS FALSE").format(sql.SQL(expression)), said
        for name in found["required"]:
            if name in staged:
                said = f'null value in column "{name}" violates its not-null constraint'
                # Of a composite value whose parts are all NULL, IS NULL is true.
                yield sql.SQL("{} IS NOT DISTINCT FROM NULL").format(sql.Identifier(name)), said

    def _query(self, found: _Found) -> sql.Composed:
        """Return what asks for number and condition of broken rows, and the count of all."""
        line, place, kind = map(self._unlike, ("line", "place", "kind"))
        compared = {
            name: sql.SQL(" COLLATE {}").format(sql.Identifier(*at))
            for name, *at in found.collations
        }
        columns = [
            sql.SQL("{}{} AS {}").format(
                sql.Identifier(f"c{n}"), compared.get(name, sql.SQL("")), sql.Identifier(name)
            )
            for n, name in enumerate(self._columns)
            if name in self._existing.columns
        ]
        which = [
            sql.SQL("WHEN {} THEN {}").format(condition, sql.Literal(n))
            for n, (condition, _) in enumerate(found.asked)
        ]
        return sql.SQL(
            "WITH judged AS (SELECT {line} AS line, {place} AS place, "
            "CASE WHEN {kind} <> {whole} THEN NULL {which} END AS which FROM ("
            "SELECT row_number() OVER (ORDER BY line) AS {line}, ctid AS {place}, kind AS {kind}, "
            "{columns} FROM {stage}) numbered), "
            "broken AS MATERIALIZED (SELECT * FROM judged WHERE which IS NOT NULL), "
            "gone AS (DELETE FROM {stage} WHERE ctid = ANY (ARRAY(SELECT place FROM broken))) "
            "SELECT line, which, (SELECT count(*) FROM {stage}) FROM broken ORDER BY line"
        ).format(
            line=line,
            place=place,
            kind=kind,
            whole=sql.Literal(WHOLE),
            which=sql.SQL(" ").join(which),
            columns=sql.SQL(", ").join(columns),
            stage=self._stage,
        )

    def _unlike(self, wanted: str) -> sql.Identifier:
        """Return a name that no column of the table has."""
        names = (f"{wanted}_{n}" for n in count())
        return sql.Identifier(next(name for name in names if name not in self._existing.columns))
