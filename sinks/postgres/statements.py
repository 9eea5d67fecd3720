"""The SQL of one version of a target table: staging and the merges out of it.

Statements carry no parameters: names may hold a percent sign, and numbers are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from cdc.connections.postgres import qualified
from schemas.table import TableSchema
from sinks.postgres.catalog import Existing
from sinks.postgres.refused import OPTIONS

__all__ = ["DELETE", "FIRST_PATTERN", "WHOLE", "Statements"]

DELETE, WHOLE, FIRST_PATTERN = 0, 1, 2
"""`kind` of a staged row: a delete, a whole row, from 2 a pattern of absent columns."""


def _c(place: int) -> sql.Identifier:
    return sql.Identifier(f"c{place}")


def _s(place: int) -> sql.Composed:
    return sql.SQL("s.{}").format(_c(place))


def _comma(parts: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _which(step: int, kind: int) -> sql.Composed:
    return sql.SQL("s.step = {} AND s.kind = {}").format(sql.Literal(step), sql.Literal(kind))


class Statements:
    """Writes the statements for `schema` over the table as it exists."""

    def __init__(self, number: int, schema: TableSchema, existing: Existing) -> None:
        self._number = number
        self._existing = existing
        self._columns = [column.name for column in schema.columns]
        self._there = [n for n, name in enumerate(self._columns) if name in existing.columns]
        self._names = [sql.Identifier(name) for name in self._columns]
        self._key = schema.key_indexes()
        self.stage = sql.Identifier("pg_temp", f"stage_{number}")
        self._target = qualified(schema.table)

    def create_stage(self) -> sql.Composed:
        """Return the statement that makes the staging table for the session."""
        columns = [
            # The type's name comes from format_type of the target itself.
            sql.SQL("{} {}").format(_c(n), sql.SQL(self._existing.type_of(name)))
            for n, name in enumerate(self._columns)
        ]
        return sql.SQL(
            "CREATE TEMP TABLE {} (step integer, kind smallint, {}) ON COMMIT DELETE ROWS"
        ).format(self.stage, _comma(columns))

    def index_stage(self) -> sql.Composed:
        """Return the statement that makes many small steps cheap."""
        name = sql.Identifier(f"stage_{self._number}_step")
        return sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} (step)").format(name, self.stage)

    def copy(self, *, tells: bool) -> sql.Composed:
        """Return the COPY into staging, in text format; one that `tells` what it leaves out."""
        return sql.SQL("COPY {} FROM STDIN{}").format(self.stage, OPTIONS if tells else sql.SQL(""))

    @property
    def takes_lines(self) -> bool:
        """Whether a line, as it is staged, could be a row of the table."""
        there = self._existing.columns
        return all(name in there and not there[name].generated for name in self._columns)

    def fill(self, where: sql.Composable) -> sql.Composed:
        """Return the COPY into the table; like `insert` it overrides identities."""
        names = _comma(self._names)
        return sql.SQL("COPY {} ({}) FROM STDIN{}").format(self._target, names, where)

    def plan(self) -> sql.Composed:
        """Return what plans the merge, and fails where that would."""
        return sql.SQL("EXPLAIN {}").format(self.insert(0))

    def truncate(self) -> sql.Composed:
        """Return the statement that empties the table, seen by no older snapshot (R12)."""
        return sql.SQL("DELETE FROM {}").format(self._target)

    def insert(self, step: int) -> sql.Composed:
        """Return the merge of whole rows: insert, or update where the key is there."""
        columns = {n: self._existing.columns[self._columns[n]] for n in self._there}
        places = [n for n, column in columns.items() if not column.generated]
        always = any(column.identity_always for column in columns.values())
        overriding = sql.SQL("OVERRIDING SYSTEM VALUE " if always else "")
        return sql.SQL("INSERT INTO {} ({}) {}SELECT {} FROM {} s WHERE {}{}").format(
            self._target,
            _comma([self._names[n] for n in places]),
            overriding,
            _comma([_c(n) for n in places]),
            self.stage,
            _which(step, WHOLE),
            self._on_conflict(),
        )

    def update(self, step: int, kind: int, absent: Sequence[int]) -> sql.Composed:
        """Return the update of the columns that were sent; a lock at least where none was."""
        settable = [n for n in self._settable() if n not in absent]
        changes = settable or list(self._key)
        return sql.SQL("UPDATE {} t SET {} FROM {} s WHERE {} AND {}").format(
            self._target,
            _comma([sql.SQL("{} = {}").format(self._names[n], _s(n)) for n in changes]),
            self.stage,
            _which(step, kind),
            self._same_key(),
        )

    def delete(self, step: int) -> sql.Composed:
        """Return the delete by key, or of one matching row each where there is no key."""
        if not self._key:
            return self._delete_one(step)
        return sql.SQL("DELETE FROM {} t USING {} s WHERE {} AND {}").format(
            self._target, self.stage, _which(step, DELETE), self._same_key()
        )

    def _delete_one(self, step: int) -> sql.Composed:
        """Match rows by their text, the n-th equal one with the n-th: not every type has `=`."""
        rows = sql.SQL(
            "SELECT {id} AS id, txt, row_number() OVER (PARTITION BY txt) AS nth FROM "
            "(SELECT ctid, ROW({cells})::text AS txt FROM {table} s WHERE {which}) q"
        )
        have = rows.format(
            id=sql.Identifier("ctid"),
            cells=_comma([self._names[n] for n in self._there]),
            table=self._target,
            which=sql.SQL("true"),
        )
        gone = rows.format(
            id=sql.SQL("0"),
            cells=_comma([_c(n) for n in self._there]),
            table=self.stage,
            which=_which(step, DELETE),
        )
        return sql.SQL(
            "DELETE FROM {} WHERE ctid = ANY (ARRAY(SELECT have.id FROM ({}) have "
            "JOIN ({}) gone ON gone.txt = have.txt AND gone.nth = have.nth))"
        ).format(self._target, have, gone)

    def _settable(self) -> list[int]:
        columns = {n: self._existing.columns[self._columns[n]] for n in self._there}
        fixed = {n for n, c in columns.items() if c.generated or c.identity_always}
        return [n for n in self._there if n not in self._key and n not in fixed]

    def _on_conflict(self) -> sql.Composed:
        if not self._key:
            return sql.Composed([])
        key = _comma([self._names[n] for n in self._key])
        settable = self._settable()
        if not settable:
            return sql.SQL(" ON CONFLICT ({}) DO NOTHING").format(key)
        changes = [sql.SQL("{0} = excluded.{0}").format(self._names[n]) for n in settable]
        return sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {}").format(key, _comma(changes))

    def _same_key(self) -> sql.Composed:
        pairs = [sql.SQL("t.{} = {}").format(self._names[n], _s(n)) for n in self._key]
        return sql.SQL(" AND ").join(pairs)
