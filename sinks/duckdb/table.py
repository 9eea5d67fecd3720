"""The statements of one version of a target table: whole sets of rows, never one by one.

Per step:  rows whose key changed take what they lack from their old ones (R6)
           DELETE FROM t                a truncate
           DELETE FROM t USING gone     deletes
           rows that lack values take them from their own (R6)
           DELETE FROM t USING rows     whatever is to be replaced
           INSERT INTO t SELECT … FROM rows

A row is replaced, not updated: DuckDB stores columns, and to UPDATE 1,000 rows all over a table
of five million takes it 2.4 s, to delete and insert them 0.03 s (measured, DuckDB 2.0). So every
row is made whole first, columns of the user's own included.
"""

# ruff: noqa: S608 - names pass through `quoted`, values are bound

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from cdc.errors import DataError, StateError
from schemas.change import ABSENT, Cell
from schemas.table import TableSchema
from sinks.duckdb.catalog import Existing, stored_form
from sinks.duckdb.files import Connection, quoted
from sinks.duckdb.staging import Field, Staging, Wrong
from sinks.refusals import unmatched, unmoved
from sinks.sql import line_of
from sinks.target import Mapped

__all__ = ["Refused", "Staged", "Table"]

Row = Sequence[Cell]
Refused = dict[tuple[Cell, ...], str]
"""Key of a row, of a table without a key the whole row → why it is refused."""
Absent = tuple[int, ...]
"""Places of the values that were not sent."""


class Staged(msgspec.Struct):
    """What a step does to one table: which of its staging tables hold rows, and how many."""

    table: Table
    truncate: bool
    gone: bool
    rows: bool
    partial: dict[Absent, int]
    moved: dict[Absent, int]
    refused: Refused


class Table:
    """Knows how `schema` is written into the table as it exists. `number` tells it from others."""

    def __init__(self, number: int, schema: TableSchema, existing: Existing) -> None:
        self.schema = schema
        self._name = existing.quoted
        self._number = number
        self._key = schema.key_indexes()
        self._columns = [quoted(column.name) for column in schema.columns]
        forms = [stored_form(column, existing) for column in schema.columns]
        self._fields = [
            Field(f"c{n}", column, form)
            for n, (column, form) in enumerate(zip(schema.columns, forms, strict=True))
        ]
        self._old_key = [msgspec.structs.replace(self._fields[n], name=f"k{n}") for n in self._key]
        self._there = {n for n, c in enumerate(schema.columns) if existing.has(c.name)}
        self._places = [n for n, c in enumerate(schema.columns) if not existing.makes(c.name)]
        self._others = [quoted(name) for name in existing.others(schema)] if self._key else []
        self._rows = Staging(f"tailrace_rows_{number}", self._fields)
        self._gone = Staging(f"tailrace_gone_{number}", self._old_key or self._fields)
        self._lacking: dict[tuple[str, Absent], Staging] = {}

    def is_of(self, existing: Existing) -> bool:
        """Tell whether this is the table `existing` describes."""
        return self._name == existing.quoted

    # Staging

    def stage(self, connection: Connection, mapped: Mapped) -> Staged:
        """Stage what the step does to the table, and touch nothing.

        `refused` of what is returned are rows with values that are none of their type. Raises
        `errors.DataError` for a row whose key was not sent.
        """
        partial = [(self._key_of(row), row) for row in mapped.upserts if ABSENT in row]
        whole = [*mapped.lines, *(line_of(row) for row in mapped.upserts if ABSENT not in row)]
        gone = [line_of(key) for key in mapped.deletes]
        staged = Staged(self, mapped.truncate, bool(gone), bool(whole), {}, {}, {})
        staged.refused |= self._put(connection, self._gone, gone)
        staged.refused |= self._put(connection, self._rows, whole)
        for kind, pairs, counts in (
            ("partial", partial, staged.partial),
            ("moved", mapped.moves, staged.moved),
        ):
            for absent, lines in _by_absence(pairs).items():
                counts[absent] = len(lines)
                staged.refused |= self._put(connection, self._staging(kind, absent), lines)
        return staged

    def _key_of(self, row: Row) -> Row:
        key = [row[place] for place in self._key]
        if not key or ABSENT in key:
            raise DataError(f"a row of {self.schema.table} cannot be found: its key was not sent")
        return key

    def _staging(self, kind: str, absent: Absent) -> Staging:
        """Return where rows with the key of those that have the rest are staged."""
        name = f"tailrace_{kind}_{self._number}_{'_'.join(map(str, absent))}"
        fields = [*self._old_key, *self._fields]
        return self._lacking.setdefault((kind, absent), Staging(name, fields))

    def _put(self, connection: Connection, staging: Staging, lines: Sequence[bytes]) -> Refused:
        if not lines:
            return {}
        return dict(map(self._named, staging.fill(connection, lines)))

    def _named(self, wrong: Wrong) -> tuple[tuple[Cell, ...], str]:
        """Return the key of a refused row, whatever was staged of it, and why."""
        cells, width = tuple(wrong.cells), len(self._columns)
        if self._key and len(cells) >= width:
            row = cells[-width:]
            cells = tuple(row[place] for place in self._key)
        return cells, f"{self.schema.table}.{wrong.reason}"

    # Writing

    def write(self, connection: Connection, staged: Staged) -> None:
        """Do what was staged. Raises `errors.DataError` when a row that has the rest is missing."""
        made = [self._made(connection, "moved", *pattern) for pattern in staged.moved.items()]
        self._clear(connection, staged)
        made += [self._made(connection, "partial", *pattern) for pattern in staged.partial.items()]
        for source in [self._rows.name] * staged.rows + made:
            self._replace(connection, source)
        for name in [self._rows.name, self._gone.name, *made]:
            connection.execute(f"DROP TABLE IF EXISTS {name}")

    def truncate(self, connection: Connection) -> None:
        """Empty the table."""
        connection.execute(f"DELETE FROM {self._name}")

    def _clear(self, connection: Connection, staged: Staged) -> None:
        if staged.truncate:
            self.truncate(connection)
        if staged.gone and self._key:
            same = self._same("k")
            connection.execute(f"DELETE FROM {self._name} AS t USING {self._gone.name} s {same}")
        elif staged.gone:
            connection.execute(self._deletion_of_equals())

    def _made(self, connection: Connection, kind: str, absent: Absent, count: int) -> str:
        """Make rows whole with the values of those that have them; return their table."""
        staging = self._lacking[kind, absent]
        whole = f"{staging.name}_whole"
        values = [
            f"t.{name} AS c{n}" if n in absent and n in self._there else f"s.c{n}"
            for n, name in enumerate(self._columns)
        ]
        made = connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {whole} AS SELECT {', '.join(values)} "
            f"FROM {staging.name} s, {self._name} t {self._same('k')}"
        ).fetchall()[0][0]
        staging.drop(connection)
        if made > count:
            raise self._doubled()
        if made < count:
            refuse = unmoved if kind == "moved" else unmatched
            raise refuse(self.schema.table, count - made)
        return whole

    def _replace(self, connection: Connection, source: str) -> None:
        """Insert the rows of `source` in the place of those that have their keys."""
        columns = [self._columns[n] for n in self._places]
        values = [f"s.c{n}" for n in self._places]
        if self._others:
            self._keep_others(connection, source, columns, values)
            source = f"(FROM {source} s ANTI JOIN {self._kept} t {self._same('c', 'ON')})"
        elif self._key:
            self._delete(connection, source)
        self._insert(connection, columns, values, f"{source} s")

    def _keep_others(
        self, connection: Connection, source: str, columns: Sequence[str], values: Sequence[str]
    ) -> None:
        """Replace the rows that are there, with what they have in columns of the user's own."""
        names = ", ".join([*(self._columns[n] for n in self._key), *self._others])
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {self._kept} AS SELECT {names} "
            f"FROM {self._name} t SEMI JOIN {source} s {self._same('c', 'ON')}"
        )
        self._delete(connection, source)
        there = f"{source} s JOIN {self._kept} t {self._same('c', 'ON')}"
        kept = [f"t.{name}" for name in self._others]
        self._insert(connection, [*columns, *self._others], [*values, *kept], there)

    @property
    def _kept(self) -> str:
        return f"tailrace_kept_{self._number}"

    def _delete(self, connection: Connection, source: str) -> None:
        same = self._same("c")
        connection.execute(f"DELETE FROM {self._name} AS t USING {source} s {same}")

    def _insert(
        self, connection: Connection, columns: Sequence[str], values: Sequence[str], source: str
    ) -> None:
        connection.execute(
            f"INSERT INTO {self._name} ({', '.join(columns)}) SELECT {', '.join(values)} "
            f"FROM {source}"
        )

    def _doubled(self) -> StateError:
        key = ", ".join(self._columns[n] for n in self._key)
        return StateError(
            f"{self._name} has several rows of one key",
            hint=f"Find them: SELECT {key} FROM {self._name} GROUP BY ALL HAVING count(*) > 1",
        )

    def _same(self, prefix: str, word: str = "WHERE") -> str:
        pairs = [f"t.{self._columns[n]} = s.{prefix}{n}" for n in self._key]
        return f"{word} {' AND '.join(pairs)}"

    def _deletion_of_equals(self) -> str:
        """Return the delete of as many rows as were staged among those equal to each."""
        values = ", ".join(f"c{n}" for n in self._places)
        columns = ", ".join(f"t.{self._columns[n]}" for n in self._places)
        same = " AND ".join(
            f"t.{self._columns[n]} IS NOT DISTINCT FROM s.c{n}" for n in self._places
        )
        return (
            f"DELETE FROM {self._name} WHERE rowid IN (SELECT place FROM ("
            f"SELECT t.rowid AS place, s.many, row_number() OVER (PARTITION BY {columns}) AS nth "
            f"FROM {self._name} t JOIN (SELECT {values}, count(*) AS many FROM {self._gone.name} "
            f"GROUP BY ALL) s ON {same}) WHERE nth <= many)"
        )


def _by_absence(pairs: Iterable[tuple[Row, Row]]) -> dict[Absent, list[bytes]]:
    """Group rows by what they lack, each as a line behind the key of the row that has it."""
    out: dict[Absent, list[bytes]] = {}
    for key, row in pairs:
        absent = tuple(place for place, cell in enumerate(row) if cell is ABSENT)
        known = [None if cell is ABSENT else cell for cell in row]
        out.setdefault(absent, []).append(line_of([*key, *known]))
    return out
