"""The statements of one version of a target table, and its rows as they are bound.

Per step:  rows whose key changed take what they lack from their old ones (R6)
           DELETE FROM t                                 a truncate
           DELETE FROM t WHERE key                       deletes
           INSERT INTO t … ON CONFLICT (key) DO UPDATE   whole rows
           UPDATE t SET … WHERE key                      per pattern of absent columns (R6)

Columns are named through the table: SQLite takes a quoted name that is no column for a string.
"""

# ruff: noqa: S608 - names pass through `quoted`, values are bound

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sqlite3 import Connection
from typing import Any

from cdc.errors import DataError
from schemas.change import ABSENT, Cell
from schemas.table import TableSchema
from sinks.refusals import unmatched, unmoved
from sinks.sql import cells_of
from sinks.sqlite.catalog import Existing, ExistingColumn
from sinks.sqlite.files import quoted
from sinks.sqlite.values import Value, binder
from sinks.target import Mapped

__all__ = ["Bound", "Table"]

Bound = list[Value | None]
"""A row as it is bound, in the order of the statement's columns."""

_ROWIDS = ("rowid", "_rowid_", "oid")


class Table:
    """Knows how `schema` is written into the table as it exists."""

    def __init__(self, schema: TableSchema, existing: Existing) -> None:
        self.schema = schema
        self._existing = existing
        self._name = f"{quoted(existing.name)} AS t"
        self._columns = [quoted(column.name) for column in schema.columns]
        binders = enumerate(binder(column.type) for column in schema.columns)
        self._binders = {place: bind for place, bind in binders if bind is not None}
        self._key = schema.key_indexes()
        found = [existing.column(column.name) for column in schema.columns]
        self._there = [place for place, there in enumerate(found) if there is not None]
        self._fixed = [place for place, there in enumerate(found) if not _is_writable(there)]
        self._insert = self._insertion()
        self._delete = f"DELETE FROM {self._name} WHERE {self._same_key()}"

    def is_of(self, existing: Existing) -> bool:
        """Tell whether this is the table `existing` describes."""
        return self._existing.name == existing.name

    def complete(self, connection: Connection, mapped: Mapped) -> list[Bound]:
        """Return the rows whose key changed, whole, while their old ones are there."""
        return [self._moved(connection, old, row) for old, row in mapped.moves]

    def clear(self, connection: Connection, mapped: Mapped) -> None:
        """Delete what the step deletes."""
        if mapped.truncate:
            self.truncate(connection)
        if mapped.deletes and self._key:
            connection.executemany(self._delete, map(self._bound_key, mapped.deletes))
        elif mapped.deletes:
            rows = map(self._bound, mapped.deletes)
            there = ([row[place] for place in self._there] for row in rows)
            connection.executemany(self._deletion_of_one(), there)

    def truncate(self, connection: Connection) -> None:
        """Empty the table."""
        connection.execute(f"DELETE FROM {quoted(self._existing.name)}")

    def write(self, connection: Connection, mapped: Mapped, moved: Sequence[Bound]) -> None:
        """Merge whole rows, then update those that carry some columns only.

        Raises `errors.DataError` when a row to be updated in part is not there (R6).
        """
        whole: list[Sequence[Cell]] = []
        partial: dict[tuple[int, ...], list[Sequence[Cell]]] = {}
        for row in mapped.upserts:
            if ABSENT in row:
                absent = tuple(place for place, cell in enumerate(row) if cell is ABSENT)
                partial.setdefault(absent, []).append(row)
            else:
                whole.append(row)
        for rows in (map(self._bound_line, mapped.lines), map(self._bound, whole), moved):
            connection.executemany(self._insert, self._writable(rows))
        for absent, pattern in partial.items():
            self._update(connection, absent, pattern)

    def _update(
        self, connection: Connection, absent: Sequence[int], rows: Sequence[Sequence[Cell]]
    ) -> None:
        if not self._key or set(absent) & set(self._key):
            raise DataError(f"a row of {self.schema.table} cannot be found: its key was not sent")
        sent = [place for place in self._settable() if place not in absent] or list(self._key)
        changes = ", ".join(f"{self._columns[place]} = ?" for place in sent)
        statement = f"UPDATE {self._name} SET {changes} WHERE {self._same_key()}"
        places = (*sent, *self._key)
        bound = ([self._value(place, row[place]) for place in places] for row in rows)
        touched = connection.executemany(statement, bound).rowcount
        if touched != len(rows):
            raise unmatched(self.schema.table, len(rows) - touched)

    def _moved(self, connection: Connection, old: Sequence[Cell], row: Sequence[Cell]) -> Bound:
        absent = [place for place in self._there if row[place] is ABSENT]
        wanted = ", ".join(f"t.{self._columns[place]}" for place in absent)
        query = f"SELECT {wanted} FROM {self._name} WHERE {self._same_key()}"
        found = connection.execute(query, self._bound_key(old)).fetchone()
        if found is None:
            raise unmoved(self.schema.table, 1)
        kept = dict(zip(absent, found, strict=True))
        return [
            kept[place] if place in kept else self._value(place, cell)
            for place, cell in enumerate(row)
        ]

    # Rows

    def _value(self, place: int, cell: Cell) -> Value | None:
        """Return one cell as it is bound. Raises `errors.DataError` for none of its type."""
        if not isinstance(cell, bytes):
            return None
        bind, text = self._binders.get(place), cell.decode()
        try:
            return text if bind is None else bind(text)
        except ValueError as error:
            column = self.schema.columns[place]
            raise DataError(
                f"{self.schema.table}.{column.name} takes no such {column.type.logical}: {error}"
            ) from error

    def _bound(self, row: Sequence[Cell]) -> Bound:
        return [self._value(place, cell) for place, cell in enumerate(row)]

    def _bound_line(self, line: bytes) -> Bound:
        """Return a row as it is bound; nothing is done per column where its text is its value."""
        if b"\\" in line:  # a NULL, or something escaped
            return self._bound(cells_of(line))
        bound: list[Any] = line.decode().split("\t")
        try:
            for place, bind in self._binders.items():
                bound[place] = bind(bound[place])
        except ValueError:
            return self._bound(cells_of(line))
        return bound

    def _bound_key(self, key: Sequence[Cell]) -> Bound:
        return [self._value(place, cell) for place, cell in zip(self._key, key, strict=True)]

    def _writable(self, rows: Iterable[Bound]) -> Iterable[Bound]:
        """Leave out what the table computes itself, or does not have."""
        if not self._fixed:
            return rows
        return ([v for n, v in enumerate(row) if n not in self._fixed] for row in rows)

    # Statements

    def _settable(self) -> list[int]:
        places = range(len(self._columns))
        return [n for n in places if n not in self._key and n not in self._fixed]

    def _same_key(self) -> str:
        return " AND ".join(f"t.{self._columns[place]} = ?" for place in self._key)

    def _insertion(self) -> str:
        names = [name for n, name in enumerate(self._columns) if n not in self._fixed]
        statement = (
            f"INSERT INTO {self._name} ({', '.join(names)}) "
            f"VALUES ({', '.join('?' for _ in names)})"
        )
        if not self._key:
            return statement
        key = ", ".join(self._columns[place] for place in self._key)
        settable = [self._columns[place] for place in self._settable()]
        changes = [f"{name} = excluded.{name}" for name in settable]
        action = f"UPDATE SET {', '.join(changes)}" if changes else "NOTHING"
        return f"{statement} ON CONFLICT ({key}) DO {action}"

    def _deletion_of_one(self) -> str:
        """Return the delete of one row among those equal to a whole one."""
        taken = self._existing.columns
        rowid = next((name for name in _ROWIDS if name not in taken), "rowid")
        same = " AND ".join(f"t.{self._columns[place]} IS ?" for place in self._there)
        return (
            f"DELETE FROM {quoted(self._existing.name)} WHERE {rowid} = "
            f"(SELECT t.{rowid} FROM {self._name} WHERE {same} LIMIT 1)"
        )


def _is_writable(there: ExistingColumn | None) -> bool:
    return there is not None and not there.generated
