"""The events of one committed transaction → runs of changes, one per table and stretch of rows."""

from __future__ import annotations

from collections.abc import Callable

from cdc.decode.binlogevents import Event, Query, RowsEvent, TableEvent
from cdc.errors import PreflightFailed, UnknownEvent
from cdc.mariadb.absent import filled
from cdc.mariadb.images import is_whole, packed
from cdc.mariadb.partial import has_keys, packed_partly
from cdc.mariadb.statements import SCHEMA, Deed, Statement, read_statement
from cdc.mariadb.tables import Shape, Tables
from schemas.change import Origin, Rows
from schemas.table import TableSchema

__all__ = ["PER_EVENT", "Run"]

PER_EVENT = 24
"""An ordinal is (place of the event in the transaction) << 24 | (place of the row in the event)."""

_ROLLED_BACK = (Deed.ROLLBACK, Deed.UNDO)


class Run:
    """Collects the changes of one transaction; those up to ordinal `skip` left in another life.

    `size` counts what waits for `flush`. `altered` has the statements that changed a schema.
    `settle` is called before rows of the tables are looked at: until then the log may be ahead.
    """

    def __init__(self, tables: Tables, origin: Origin, skip: int, where: str) -> None:
        self._tables = tables
        self._origin = origin
        self._skip = skip
        self._where = where
        self._shapes: dict[int, Shape | None] = {}
        self._schema: TableSchema | None = None
        self._items: list[bytes] = []
        self._ordinals: list[int] = []
        self._rows: list[Rows] = []
        self._captured = False
        self._partly = False
        self.size = 0
        self.ordinal = 0
        self.altered: list[Statement] = []
        self.settle: Callable[[], None] = _settled

    def take(self, event: Event, index: int) -> None:
        """Take the event that stands at `index` of its transaction.

        Raises `errors.UnknownEvent` for what cannot be read, `errors.PreflightFailed` for what
        was logged without whole rows.
        """
        if isinstance(event, TableEvent):
            self._shapes[event.number] = self._tables.shape(event)
        elif isinstance(event, RowsEvent):
            self._take_rows(event, index)
        elif isinstance(event, Query):
            self._take_statement(event, index)

    def _take_rows(self, event: RowsEvent, index: int) -> None:
        if event.number not in self._shapes:
            raise UnknownEvent(f"rows at {self._where} come before their Table_map event")
        shape = self._shapes[event.number]
        if shape is None:
            return
        try:
            found = self._packed(event, shape)
        except ValueError as error:
            raise UnknownEvent(
                f"rows of {shape.schema.table} at {self._where} cannot be read: {error}"
            ) from error
        self._put(shape.schema, found, index)

    def _packed(self, event: RowsEvent, shape: Shape) -> list[bytes]:
        if is_whole(event) and not event.parts:
            return packed(event, shape.images)
        key = shape.schema.key_indexes()
        if not has_keys(event, key):
            raise _partial(shape.schema)
        self._partly = True
        return packed_partly(event, shape.readers, key, shape.documents)

    def _put(self, schema: TableSchema, found: list[bytes], index: int) -> None:
        if len(found) >> PER_EVENT:
            raise UnknownEvent(f"{len(found)} rows of {schema.table} in one event are too many")
        self._captured = True
        first = index + 1 << PER_EVENT
        if first + len(found) - 1 <= self._skip:
            return
        if schema is not self._schema:
            self._close()
            self._schema = schema
        past = max(self._skip + 1 - first, 0)
        self._items += found[past:]
        self._ordinals += range(first + past, first + len(found))
        self.size += len(found)

    def _take_statement(self, event: Query, index: int) -> None:
        statement = read_statement(event.text, event.database)
        deed = statement.deed
        if deed in _ROLLED_BACK and self._captured:
            raise UnknownEvent(
                f"the transaction at {self._where} was rolled back after rows of captured tables, "
                "some of them in tables without transactions",
                hint="ALTER TABLE … ENGINE = InnoDB for these, and `cdc position reset`",
            )
        if deed is Deed.ROWS:
            self._refuse_statement(event)
        elif self._empties(statement):
            self._put(self._tables.schema(statement.tables[0]), [b"T"], index)
        if deed in SCHEMA:
            self._tables.changed(statement)
            self.altered.append(statement)

    def _empties(self, statement: Statement) -> bool:
        """Tell whether a captured table has none of its rows any more, or is made anew."""
        made = statement.deed is Deed.CREATE and statement.tables[0] in self._tables.gone
        if not made and statement.deed not in (Deed.TRUNCATE, Deed.REPLACE):
            return False
        return self._tables.wants(statement.tables[0])

    def _refuse_statement(self, event: Query) -> None:
        """A statement that changes rows stops us unless it cannot be about a captured table."""
        if self._tables.may_mean(event.database, event.text):
            raise UnknownEvent(
                f"a statement at {self._where} changed rows of {event.database or 'a database'} "
                f"and was logged in statement format: {event.text[:120]!r}",
                hint="SET GLOBAL binlog_format = 'ROW'; end the sessions that had another format, "
                "then read again what it changed: `cdc position reset`",
            )

    def flush(self) -> list[Rows]:
        """Hand over what was collected; `ordinal` is that of the last row."""
        self._close()
        rows, self._rows, self.size = self._rows, [], 0
        return rows

    def _close(self) -> None:
        items, self._items = self._items, []
        ordinals, self._ordinals = self._ordinals, []
        if items and self._schema is not None:
            rows = Rows(self._schema, "pgoutput", self._origin, items, ordinals)
            if self._partly:
                self.settle()
                rows = filled(rows, self._tables)
            self._rows.append(rows)
            self.ordinal = ordinals[-1]
        self._schema = None


def _settled() -> None:
    """The tables have what the log has."""


def _partial(schema: TableSchema) -> PreflightFailed:
    return PreflightFailed(
        f"rows of {schema.table} were logged without all of their columns, or without its key",
        hint="SET GLOBAL binlog_row_image = 'FULL'; end the sessions that had another image, "
        "then begin anew with `cdc position reset`",
    )
