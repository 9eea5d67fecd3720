"""Rows that changed their key and carry some columns only (R6): what they lack is in the old row.

    COPY moved ← new row and old key
    INSERT INTO stage SELECT … FROM moved JOIN t ON the old key      before anything is deleted

From then on they lie in staging as whole rows. The table is made at the first such row, for they
are rare: the log must have left a large value out, and the source the row before it was re-read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc.connections.postgres import qualified
from schemas.change import ABSENT, Cell
from schemas.forms import copy_line
from schemas.table import TableSchema
from sinks.postgres.catalog import Existing
from sinks.postgres.statements import WHOLE
from sinks.refusals import unmoved

__all__ = ["Moves"]

Connection = psycopg.Connection[Any]
_Absent = tuple[int, ...]


class Moves:
    """The moved rows of one version of a target table."""

    def __init__(self, number: int, schema: TableSchema, existing: Existing) -> None:
        self._schema = schema
        self._existing = existing
        self._stage = sql.Identifier("pg_temp", f"stage_{number}")
        self._moved = sql.Identifier("pg_temp", f"moved_{number}")
        self._made = sql.Identifier(f"moved_{number}")
        self._key = schema.key_indexes()
        self._kinds: dict[_Absent, int] = {}
        self._lines: list[bytes] = []

    def stage(
        self, moves: Sequence[tuple[Sequence[Cell], Sequence[Cell]]], step: int
    ) -> dict[_Absent, int]:
        """Queue pairs of old key and new row; return how many there are of each pattern."""
        patterns: dict[_Absent, int] = {}
        for old, row in moves:
            absent = tuple(place for place, cell in enumerate(row) if cell is ABSENT)
            kind = self._kinds.setdefault(absent, len(self._kinds))
            patterns[absent] = patterns.get(absent, 0) + 1
            cells = [None if cell is ABSENT else cell for cell in (*row, *old)]
            self._lines.append(b"%d\t%d\t%s" % (step, kind, copy_line(cells)))
        return patterns

    def flush(self, connection: Connection) -> None:
        """Copy what is queued into the table of moved rows."""
        if not self._lines:
            return
        data = b"".join(self._lines)
        self.forget()
        connection.execute(self._create())
        copied = sql.SQL("COPY {} FROM STDIN").format(self._moved)
        with connection.cursor() as cursor, cursor.copy(copied) as copy:
            copy.write(data)

    def forget(self) -> None:
        """Drop what is queued."""
        self._lines = []

    def complete(self, connection: Connection, step: int, patterns: dict[_Absent, int]) -> int:
        """Put the rows of `step` into staging, whole; return how many.

        Raises `errors.DataError` when an old row is not there.
        """
        for absent, rows in patterns.items():
            found = connection.execute(self._fill(step, absent)).rowcount
            if found != rows:
                raise unmoved(self._schema.table, rows - found)
        return sum(patterns.values())

    def _create(self) -> sql.Composed:
        # The types' names come from format_type of the target itself.
        types = [sql.SQL(self._existing.type_of(column.name)) for column in self._schema.columns]
        cells = [sql.SQL("{} {}").format(_c(n), kind) for n, kind in enumerate(types)]
        old = [sql.SQL("{} {}").format(_o(n), types[n]) for n in self._key]
        return sql.SQL(
            "CREATE TEMP TABLE IF NOT EXISTS {} (step integer, kind smallint, {}) "
            "ON COMMIT DELETE ROWS"
        ).format(self._made, _comma([*cells, *old]))

    def _fill(self, step: int, absent: _Absent) -> sql.Composed:
        names = [sql.Identifier(column.name) for column in self._schema.columns]
        kept = [n for n in absent if self._schema.columns[n].name in self._existing.columns]
        values = [
            sql.SQL("t.{}").format(name) if n in kept else sql.SQL("m.{}").format(_c(n))
            for n, name in enumerate(names)
        ]
        same = [sql.SQL("t.{} = m.{}").format(names[n], _o(n)) for n in self._key]
        return sql.SQL(
            "INSERT INTO {} (step, kind, {}) SELECT step, {}, {} FROM {} m JOIN {} t ON {} "
            "WHERE m.step = {} AND m.kind = {}"
        ).format(
            self._stage,
            _comma([_c(n) for n in range(len(names))]),
            sql.Literal(WHOLE),
            _comma(values),
            self._moved,
            qualified(self._schema.table),
            sql.SQL(" AND ").join(same),
            sql.Literal(step),
            sql.Literal(self._kinds[absent]),
        )


def _c(place: int) -> sql.Identifier:
    return sql.Identifier(f"c{place}")


def _o(place: int) -> sql.Identifier:
    return sql.Identifier(f"o{place}")


def _comma(parts: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)
