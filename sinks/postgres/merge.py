"""Rows → private staging → one statement per table and kind (R4).

    COPY stage ← rows of all steps          no lock that anyone else could wait for
    then, per step:  DELETE FROM t                            a truncate
                     INSERT INTO stage … SELECT FROM t        rows whose key changed (moves.py)
                     DELETE FROM t USING stage                children before parents
                     COPY t ← new rows                        the straight way (straight.py)
                     INSERT … SELECT … ON CONFLICT DO UPDATE  parents before children
                     UPDATE … FROM stage                      per pattern of absent columns (R6)

Staging is one temporary table per version of a table. Its columns are c0, c1, …, typed as the
target's, so that COPY judges every value; `step` and `kind` say when and how a row is used. It is
read in the order it was written: nobody else writes there, and a scan of it is never shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import psycopg

from cdc.errors import DataError
from schemas.change import ABSENT, Cell
from schemas.table import TableSchema
from sinks.postgres import trials
from sinks.postgres.catalog import Existing
from sinks.postgres.demands import Demands
from sinks.postgres.moves import Moves
from sinks.postgres.refused import Skipped, heard, reasons, tells
from sinks.postgres.statements import DELETE, FIRST_PATTERN, WHOLE, Statements
from sinks.postgres.straight import Straight
from sinks.refusals import unmatched
from sinks.sql import cells_of, line_of
from sinks.target import Mapped

__all__ = ["Staged", "StagedTable"]

Connection = psycopg.Connection[Any]

_FLUSH_BYTES = 256 * 1024
_SLICE = 1000
"""Lines joined for one write."""
_SHOWN = 100
"""Characters of a refused value in the reason."""

Key = tuple[Cell, ...]


class Staged:
    """What one step does to one table, once its rows lie in staging."""

    def __init__(self, table: StagedTable, step: int, mapped: Mapped) -> None:
        self.table = table
        self.step = step
        self.truncate = mapped.truncate
        self.deletes = len(mapped.deletes)
        self.upserts = 0
        self.straight: Sequence[bytes] = ()
        self.partial: dict[tuple[int, ...], int] = {}
        self.moved: dict[tuple[int, ...], int] = {}


class StagedTable:
    """One version of a target table with its staging table."""

    def __init__(self, number: int, schema: TableSchema, existing: Existing) -> None:
        self.schema = schema
        self.existing = existing
        self._statements = Statements(number, schema, existing)
        self._moves = Moves(number, schema, existing)
        self._straight = Straight(self._statements)
        self._demands = Demands(schema, existing, self._statements.stage)
        self._key = schema.key_indexes()
        self._kinds: dict[tuple[int, ...], int] = {}
        self._queue: list[tuple[bytes, Sequence[bytes]]] = []
        self._bytes = 0
        self._refused: dict[Key, tuple[int, Cell]] = {}
        self._inside: list[bytes] | None = None
        self._left_out = 0
        self._numbered = False

    def fits(self, existing: Existing) -> bool:
        """Tell whether what was made for the table as it was goes for it as it is."""
        names = [column.name for column in self.schema.columns]
        before, after = self.existing.columns, existing.columns
        return all(before.get(name) == after.get(name) for name in names)

    def open(self, connection: Connection) -> None:
        """Make the staging table; it lives as long as the session."""
        connection.execute(self._statements.create_stage())

    def stage(self, connection: Connection, mapped: Mapped, step: int) -> Staged:
        """Queue the rows of `mapped`, and copy what has gathered when it is much."""
        staged = Staged(self, step, mapped)
        staged.moved = self._moves.stage(mapped.moves, step)
        self._put(step, DELETE, [line_of(self._spread(key)) for key in mapped.deletes])
        lines = []
        for row in mapped.upserts:
            try:
                lines.append(line_of(row))
            except TypeError:
                self._put_partial(staged, row)
        staged.straight = self._straight.take(mapped)
        for whole in (mapped.lines[: len(mapped.lines) - len(staged.straight)], lines):
            self._put_whole(staged, whole)
        if self._bytes >= _FLUSH_BYTES:
            self.flush(connection)
        return staged

    def flush(self, connection: Connection) -> None:
        """Copy what is queued into staging."""
        self._moves.flush(connection)
        if not self._queue:
            return
        queue, self._queue, self._bytes = self._queue, [], 0
        statement = self._statements.copy(tells=tells(connection))
        with heard(connection) as skipped, connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for prefix, lines in queue:
                    between = b"\n" + prefix
                    for at in range(0, len(lines), _SLICE):
                        copy.write(prefix + between.join(lines[at : at + _SLICE]) + b"\n")
            missing = sum(len(lines) for _, lines in queue) - cursor.rowcount
        if missing or self._inside is not None:
            self._note([line for _, lines in queue for line in lines], skipped, missing)

    def _note(self, lines: Sequence[bytes], skipped: Sequence[Skipped], missing: int) -> None:
        """Remember which rows the server left out, and those inside when they are judged."""
        known = len(skipped) == missing and all(
            0 < line <= len(lines) and column < len(self.schema.columns) for line, column in skipped
        )
        if not known:
            raise self._unnamed()
        for line, column in skipped:
            cells = cells_of(lines[line - 1])
            self._refused[self._key_of(cells)] = (column, cells[column])
        if self._inside is not None:
            out = {line - 1 for line, _ in skipped}
            self._inside += [line for n, line in enumerate(lines) if n not in out]

    def _key_of(self, cells: Sequence[Cell]) -> Key:
        return tuple(cells[n] for n in self._key) if self._key else tuple(cells)

    def heed(self, connection: Connection) -> bool:
        """Judge the rows of the next batches by what the table asks of each; True once."""
        self._straight.again()
        if not self._numbered:
            connection.execute(self._statements.number_stage())
            self._numbered = True
        return self._demands.heed(connection)

    def begin(self) -> None:
        """Begin a batch whose rows may be left out."""
        self._inside = [] if self._demands.begin() else None

    def refused(self, connection: Connection) -> dict[Key, str]:
        """Return the rows that cannot be merged, by key (whole where there is none).

        None of them is in staging any more.
        """
        found = self._unfit(connection)
        if not self._inside:
            return found
        lines = self._inside
        broken = self._demands.broken(connection, len(lines))
        if len(broken) < self._left_out:
            raise self._unnamed()
        self._inside = [line for n, line in enumerate(lines) if n not in broken]
        self._left_out = 0
        found |= {self._key_of(cells_of(lines[n])): why for n, why in broken.items()}
        return found

    def trial(self, connection: Connection, mapped: Mapped, step: int) -> dict[Key, str]:
        """Try the rows of a step alone, where they are many and whole; return those refused.

        The caller rolls back. Raises as psycopg does.
        """
        few = len(mapped.lines) + len(mapped.upserts) < trials.WORTH_IT
        others = mapped.deletes or mapped.moves or mapped.truncate
        if few or others or any(ABSENT in row for row in mapped.upserts):
            return {}
        if not self._numbered:
            connection.execute(self._statements.number_stage())
        lines = [*mapped.lines, *map(line_of, mapped.upserts)]
        self._put(step, WHOLE, lines)
        self.flush(connection)
        if self._refused:
            return {}  # they are named already
        insert = partial(self._statements.insert, step)
        found = trials.refused(connection, self._statements.stage, step, insert)
        return {self._key_of(cells_of(lines[n])): why for n, why in found.items()}

    def _unfit(self, connection: Connection) -> dict[Key, str]:
        """Return the rows whose values fit no column, which COPY has left out.

        Each is asked for again: no row is blamed for a notice that was misread. Raises
        `errors.DataError` then.
        """
        columns = [self.schema.columns[column].name for column, _ in self._refused.values()]
        cells = [cell for _, cell in self._refused.values()]
        values = [cell.decode() if isinstance(cell, bytes) else "" for cell in cells]
        types = [self.existing.type_of(name) for name in columns]
        said = reasons(connection, values, types) if values else []
        if None in said:
            raise self._unnamed()
        told = zip(self._refused, said, columns, values, strict=True)
        self._refused = {}
        return {key: f"{why}\n{name}: {value[:_SHOWN]!r}" for key, why, name, value in told}

    def _unnamed(self) -> DataError:
        return DataError(f"the target refuses rows of {self.schema.table}")

    def forget(self) -> None:
        """Drop what is queued."""
        self._moves.forget()
        self._straight.forget()
        self._queue, self._bytes = [], 0
        self._refused, self._inside, self._left_out = {}, None, 0

    def index(self, connection: Connection) -> None:
        """Make many small steps cheap: each then finds its rows without reading all."""
        connection.execute(self._statements.index_stage())

    def truncate(self, connection: Connection) -> None:
        """Empty the table."""
        connection.execute(self._statements.truncate())

    def complete(self, connection: Connection, staged: Staged) -> None:
        """Fetch what moved rows lack from their old ones, while those are there."""
        staged.upserts += self._moves.complete(connection, staged.step, staged.moved)

    def delete(self, connection: Connection, staged: Staged) -> None:
        """Delete what the step deletes."""
        connection.execute(self._statements.delete(staged.step))

    def create(self, connection: Connection, staged: Staged) -> bool:
        """Write new rows by the straight way; False when some lie in staging only now."""
        if not staged.straight:
            return True
        judged = None if self._inside is None else self._demands
        left = self._straight.copy(connection, staged.straight, judged)
        if not left:
            return True
        self._left_out = len(left) if len(left) < len(staged.straight) else 0
        self._put_whole(staged, left)
        self.flush(connection)
        return False

    def upsert(self, connection: Connection, staged: Staged) -> None:
        """Merge whole rows, then update those that carry some columns only.

        Raises `errors.DataError` when a row to be updated in part is not there (R6).
        """
        if staged.upserts:
            connection.execute(self._statements.insert(staged.step))
        for absent, rows in staged.partial.items():
            statement = self._statements.update(staged.step, self._kinds[absent], absent)
            touched = connection.execute(statement).rowcount
            if touched != rows:
                raise unmatched(self.schema.table, rows - touched)

    def _spread(self, key: Sequence[Cell]) -> Sequence[Cell]:
        """Put key values where their columns are; a keyless table is deleted by whole rows."""
        if not self._key:
            return key
        row: list[Cell] = [None] * len(self.schema.columns)
        for place, cell in zip(self._key, key, strict=True):
            row[place] = cell
        return row

    def _put_partial(self, staged: Staged, row: Sequence[Cell]) -> None:
        absent = tuple(place for place, cell in enumerate(row) if cell is ABSENT)
        if not self._key or set(absent) & set(self._key):
            raise DataError(f"a row of {self.schema.table} cannot be found: its key was not sent")
        kind = self._kinds.setdefault(absent, FIRST_PATTERN + len(self._kinds))
        staged.partial[absent] = staged.partial.get(absent, 0) + 1
        self._put(staged.step, kind, [line_of([None if c is ABSENT else c for c in row])])

    def _put_whole(self, staged: Staged, lines: Sequence[bytes]) -> None:
        staged.upserts += len(lines)
        self._put(staged.step, WHOLE, lines)

    def _put(self, step: int, kind: int, lines: Sequence[bytes]) -> None:
        if lines:
            self._queue.append((b"%d\t%d\t" % (step, kind), lines))
            self._bytes += sum(map(len, lines))
