"""The twin of the target's staging: merges are played on plain rows.

`sinks.postgres.straight.Straight` runs as it is, and its COPY is played by `target.Connection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from cdc.errors import DataError
from schemas.change import ABSENT, Cell
from schemas.forms import read_copy
from schemas.table import TableSchema
from simulation.target import Connection
from simulation.world import HERE, call
from sinks.postgres.straight import Straight
from sinks.target import Mapped


class Staged:
    """What one step does to one table."""

    def __init__(self, table: StagedTable, mapped: Mapped, straight: Sequence[bytes]) -> None:
        self.table = table
        self.mapped = mapped
        self.straight = straight
        self.upserts = list(mapped.upserts)
        self.put(mapped.lines[: len(mapped.lines) - len(straight)])
        self.truncate = mapped.truncate
        self.deletes = len(mapped.deletes)

    def put(self, lines: Sequence[bytes]) -> None:
        """Stage whole rows."""
        self.upserts += [read_copy(line).after or () for line in lines]


class StagedTable:
    """Stands for `sinks.postgres.merge.StagedTable`."""

    def __init__(self, _number: int, schema: TableSchema, existing: Any) -> None:
        self.schema = schema
        self.existing = existing
        self._key = schema.key_indexes()
        self.process = HERE.world.current
        ways: Any = SimpleNamespace(
            takes_lines=True, plan=lambda: "EXPLAIN", fill=lambda _where: self.schema
        )
        self._straight = Straight(ways)

    def open(self, connection: Connection) -> None:
        connection.alive()

    def create(self, connection: Any, staged: Staged) -> bool:
        """Write new rows by the straight way; False when they are staged instead."""
        left = self._straight.copy(connection, staged.straight) if staged.straight else ()
        staged.put(left)
        return not left

    def fits(self, _existing: Any) -> bool:
        return True

    def stage(self, connection: Connection, mapped: Mapped, _step: int) -> Staged:
        connection.alive()
        return Staged(self, mapped, self._straight.take(mapped))

    @call("target.copy")
    def flush(self, connection: Connection) -> None:
        connection.alive()

    def begin(self) -> None:
        """No table here asks anything of a row, so none is judged."""

    def trial(self, _connection: Connection, _mapped: Mapped, _step: int) -> dict[Any, str]:
        """Steps are small here: each is tried alone."""
        return {}

    def index(self, _connection: Connection) -> None:
        """Nothing is slow here."""

    def refused(self, _connection: Connection) -> dict[Any, str]:
        """Every value fits."""
        return {}

    def forget(self) -> None:
        """Begin another transaction; nothing is queued."""
        self._straight.forget()

    @call("target.truncate")
    def truncate(self, connection: Connection) -> None:
        connection.alive()
        connection.rows(self.schema.table).clear()

    @call("target.delete")
    def delete(self, connection: Connection, staged: Staged) -> None:
        connection.alive()
        for key in staged.mapped.deletes:
            connection.rows(self.schema.table).pop(tuple(key), None)

    def complete(self, connection: Connection, staged: Staged) -> None:
        """Take what moved rows lack from their old ones, while those are there."""
        rows = connection.rows(self.schema.table)
        for old, row in getattr(staged.mapped, "moves", ()):
            if tuple(old) not in rows:
                raise DataError("a row that changed its key lacks values, and its old row is gone")
            staged.upserts.append(_filled(row, rows[tuple(old)]))

    @call("target.merge")
    def upsert(self, connection: Connection, staged: Staged) -> None:
        connection.alive()
        rows = connection.rows(self.schema.table)
        for row in staged.upserts:
            key = tuple(row[place] for place in self._key)
            if ABSENT in row and key not in rows:
                raise DataError("an update that carries some columns only finds no row")
            rows[key] = _filled(row, rows.get(key, row))


def _filled(row: Sequence[Cell], old: Sequence[Cell]) -> list[Cell]:
    return [was if is_ is ABSENT else is_ for is_, was in zip(row, old, strict=True)]
