"""The statements of one version of a target table, and its rows as their literals.

Per step:  INSERT INTO stage; UPDATE stage JOIN t    rows whose key changed take what they lack (R6)
           DELETE FROM t                             a truncate
           DELETE t FROM stage JOIN t                deletes
           INSERT INTO t … ON DUPLICATE KEY UPDATE   whole rows
           UPDATE stage JOIN t SET …                 per pattern of absent columns (R6)

Whole rows go straight into the table, as many in a statement as fit. ON DUPLICATE KEY UPDATE would
overwrite another row where a unique index beside the key's is hit; a table that has one is merged
out of staging instead, by an UPDATE of what is there and an INSERT of the rest.
(Rows of 10 columns cost 11.4 9 µs of CPU each that way, LOAD DATA LOCAL and a merge 7 to 10: not
worth a client that hands out files.)

Staging is a temporary table whose columns are typed as the target's, so that keys are compared as
the target compares them. It is private, rolled back with the transaction, and not in the log. It
has a key of its own, which servers may demand of every table, and no statement names it twice,
which MySQL refuses.
"""

# ruff: noqa: S608 - names pass through `quoted`, values are literals of ours

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import pymysql

from cdc.connections.mariadb import Connection, quoted
from cdc.errors import DataError
from schemas.change import ABSENT, Cell
from schemas.table import TableSchema
from sinks.mariadb.dialect import Dialect
from sinks.mariadb.existing import Existing
from sinks.mariadb.forms import NULL, Forms, Literal
from sinks.mariadb.refused import is_of_a_value, refused_rows
from sinks.refusals import unmatched, unmoved
from sinks.sql import cells_of
from sinks.target import Mapped, RowsRefused

__all__ = ["Table"]

Row = Sequence[Cell]

_DELETE, _WHOLE, _FIRST_PATTERN = 0, 1, 2
"""`kind` of a staged row: a key to delete, a whole row, from 2 a pattern of absent columns."""
_STATEMENT_BYTES = 256 * 1024
"""Rows are sent in statements of about this size."""
_MARGIN_BYTES = 16 * 1024
"""Left free in the largest statement: for names, where the packet is told, and the protocol."""
_OTHERWISE = re.compile(rb"\\[fv]")
"""Escapes of COPY that the server reads otherwise, or what looks like one."""


class Table:
    """Knows how `schema` is written into the table as it exists."""

    def __init__(
        self, number: int, schema: TableSchema, existing: Existing, dialect: Dialect, packet: int
    ) -> None:
        """`number` is new to the connection, `packet` the server's largest statement in bytes."""
        self.schema = schema
        self.existing = existing
        self._dialect = dialect
        self._packet = packet
        self._name = existing.quoted
        self._stage = quoted(f"tailrace_stage_{number}")
        self._columns = [quoted(column.name) for column in schema.columns]
        self._key = schema.key_indexes()
        found = [existing.column(column.name) for column in schema.columns]
        self._there = {n for n, there in enumerate(found) if there is not None}
        self._fixed = {n for n, there in enumerate(found) if there is None or there.generated}
        self._writable = [n for n in range(len(self._columns)) if n not in self._fixed]
        self._settable = [n for n in self._writable if n not in self._key]
        self._is_direct = not self._key or existing.is_unique_only_by(schema.key)
        self._special = _special(schema, dialect.forms)
        slots = [b"%s" if n in self._special else b"'%s'" for n in range(len(self._columns))]
        self._template = b"(" + b",".join(slots) + b")"
        self._staged = False

    def fits(self, existing: Existing) -> bool:
        """Tell whether what was made for the table as it was goes for it as it is."""
        names = [column.name for column in self.schema.columns]
        return all(self.existing.column(name) == existing.column(name) for name in names)

    def create(self, connection: Connection) -> None:
        """Make the staging table; it lives as long as the connection."""
        columns = ["staged BIGINT AUTO_INCREMENT PRIMARY KEY", "kind INT"]
        for place, column in enumerate(self.schema.columns):
            there = self.existing.column(column.name)
            declared = there.declared if there is not None else "LONGTEXT"
            columns.append(f"c{place} {declared} NULL")
            if place in self._key:
                columns.append(f"o{place} {declared} NULL")
        connection.query(
            f"CREATE TEMPORARY TABLE {self._stage} ({', '.join(columns)}) ENGINE=InnoDB"
        )

    def complete(self, connection: Connection, mapped: Mapped) -> None:
        """Fetch what moved rows lack from their old ones, while those are there.

        Raises `errors.DataError` when an old row is not there.
        """
        patterns: dict[tuple[int, ...], list[bytes]] = {}
        for old, row in mapped.moves:
            keys = [self._literal(place, cell) for place, cell in zip(self._key, old, strict=True)]
            cells = b",".join([*keys, *self._literals(row)])
            patterns.setdefault(_absent(row), []).append(cells)
        places = [f"o{n}" for n in self._key] + [f"c{n}" for n in range(len(self._columns))]
        for kind, (absent, rows) in enumerate(patterns.items(), _FIRST_PATTERN):
            self._put(connection, kind, places, rows)
            fetched = [f"s.c{n} = t.{self._columns[n]}" for n in absent if n in self._there]
            found = connection.query(
                f"UPDATE {self._join('o')} SET {', '.join([*fetched, f's.kind = {_WHOLE}'])} "
                f"WHERE s.kind = {kind}"
            )
            if found != len(rows):
                raise unmoved(self.schema.table, len(rows) - found)

    def clear(self, connection: Connection, mapped: Mapped) -> None:
        """Delete what the step deletes."""
        if mapped.truncate:
            self.truncate(connection)
        if not mapped.deletes:
            return
        if not self._key:
            self._delete_each(connection, mapped.deletes)
            return
        keys = (
            b",".join([self._literal(n, cell) for n, cell in zip(self._key, key, strict=True)])
            for key in mapped.deletes
        )
        self._put(connection, _DELETE, [f"o{n}" for n in self._key], keys)
        connection.query(f"DELETE t FROM {self._join('o')} WHERE s.kind = {_DELETE}")

    def truncate(self, connection: Connection) -> None:
        """Empty the table; TRUNCATE would end the transaction."""
        connection.query(f"DELETE FROM {self._name}")

    def write(self, connection: Connection, mapped: Mapped) -> None:
        """Merge whole rows, then update those that carry some columns only.

        Raises `errors.DataError` when a row to be updated in part is not there (R6), and
        `RowsRefused` with all whole rows that have a value their column cannot hold.
        """
        whole: list[Row] = []
        partial: dict[tuple[int, ...], list[Row]] = {}
        for row in mapped.upserts:
            if ABSENT in row:
                partial.setdefault(_absent(row), []).append(row)
            else:
                whole.append(row)
        try:
            self._put_whole(connection, map(self._of_line, mapped.lines))
            self._put_whole(connection, map(self._of_row, whole))
        except pymysql.Error as error:
            if is_of_a_value(error):
                self._name_refused(connection, [*map(cells_of, mapped.lines), *whole])
            raise
        if mapped.moves or not self._is_direct:
            self._merge(connection)
        for kind, (absent, rows) in enumerate(partial.items(), _FIRST_PATTERN):
            self._update(connection, kind, absent, rows)
        if self._staged:
            connection.query(f"DELETE FROM {self._stage}")
            self._staged = False

    def _name_refused(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Raise `RowsRefused` for those of `rows` whose values do not fit, if there are any."""
        literals = (b"(" + b",".join(self._literals(row)) + b")" for row in rows)
        names = [column.name for column in self.schema.columns]
        found = refused_rows(connection, self._stage, self._chunks(literals, 0), names)
        places = self._key or range(len(names))
        refused = {
            (self.schema.table, tuple(rows[number][n] for n in places)): reason
            for number, reason in found.items()
        }
        if refused:
            raise RowsRefused(refused)

    def _update(
        self, connection: Connection, kind: int, absent: Sequence[int], rows: Sequence[Row]
    ) -> None:
        if not self._key or set(absent) & set(self._key):
            raise DataError(f"a row of {self.schema.table} cannot be found: its key was not sent")
        sent = [n for n in range(len(self._columns)) if n not in absent]
        cells = (b",".join([self._literal(n, row[n]) for n in sent]) for row in rows)
        self._put(connection, kind, [f"c{n}" for n in sent], cells)
        settable = [n for n in sent if n in self._settable] or list(self._key)
        changes = ", ".join(f"t.{self._columns[n]} = s.c{n}" for n in settable)
        found = connection.query(f"UPDATE {self._join('c')} SET {changes} WHERE s.kind = {kind}")
        if found != len(rows):
            raise unmatched(self.schema.table, len(rows) - found)

    def _merge(self, connection: Connection) -> None:
        """Update what is there, insert the rest: a unique value that is taken is an error."""
        names = ", ".join(self._columns[n] for n in self._writable)
        cells = ", ".join(f"s.c{n}" for n in self._writable)
        changes = ", ".join(f"t.{self._columns[n]} = s.c{n}" for n in self._settable)
        if changes:
            connection.query(f"UPDATE {self._join('c')} SET {changes} WHERE s.kind = {_WHOLE}")
        connection.query(
            f"INSERT INTO {self._name} ({names}) SELECT {cells} FROM {self._stage} s "
            f"LEFT JOIN {self._name} t ON {self._same('c')} "
            f"WHERE s.kind = {_WHOLE} AND t.{self._columns[self._key[0]]} IS NULL"
        )

    def _delete_each(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Delete one row among those equal to each whole one, byte for byte."""
        places = [f"c{n}" for n in self._writable]
        cells = ", ".join(f"CAST({self._columns[n]} AS BINARY)" for n in self._writable)
        wanted = ", ".join(f"CAST({place} AS BINARY)" for place in places)
        for number, row in enumerate(rows):
            self._put(connection, number, places, [self._of_row(row)[1:-1]])
            one = f"SELECT {wanted} FROM {self._stage} WHERE kind = {number}"
            connection.query(f"DELETE FROM {self._name} WHERE ({cells}) <=> ({one}) LIMIT 1")
        connection.query(f"DELETE FROM {self._stage}")

    # Rows

    def _literal(self, place: int, cell: Cell) -> bytes:
        """Return one cell. Raises `errors.DataError` for none of its type."""
        column = self.schema.columns[place]
        try:
            return self._dialect.forms.literal(column.type, cell)
        except ValueError as error:
            raise DataError(
                f"{self.schema.table}.{column.name} takes no such {column.type.logical}: {error}"
            ) from error

    def _literals(self, row: Row) -> list[bytes]:
        return [self._literal(place, cell) for place, cell in enumerate(row)]

    def _of_row(self, row: Row) -> bytes:
        cells = self._literals(row)
        return b"(" + b",".join(cells[n] for n in self._writable) + b")"

    def _of_line(self, line: bytes) -> bytes:
        r"""Return a row of COPY text, whose escapes are the server's too, but for \f and \v.

        A quote in it is escaped first; from then on `'\N'` can only be a field that is NULL, since
        every other backslash stands before another character than N.
        """
        if self._fixed or _OTHERWISE.search(line):
            return self._of_row(cells_of(line))
        text = line.replace(b"'", b"\\'")
        if self._special:
            fields = text.split(b"\t")
            try:
                for place, form in self._special.items():
                    fields[place] = _of_field(fields[place], form)
            except ValueError:
                return self._of_row(cells_of(line))
            text = self._template % tuple(fields)
        else:
            text = b"('" + text.replace(b"\t", b"','") + b"')"
        return text.replace(b"'\\N'", NULL) if b"\\N" in text else text

    # Statements

    def _put_whole(self, connection: Connection, rows: Iterable[bytes]) -> None:
        if self._is_direct:
            names = ", ".join(self._columns[n] for n in self._writable)
            head = f"INSERT INTO {self._name} ({names}) VALUES "
            self._send(connection, head, rows, self._on_duplicate())
            return
        names = ", ".join(f"c{n}" for n in self._writable)
        staged = (b"(%d,%s" % (_WHOLE, row[1:]) for row in rows)
        self._send(connection, f"INSERT INTO {self._stage} (kind, {names}) VALUES ", staged, "")
        self._staged = True

    def _put(
        self, connection: Connection, kind: int, places: Sequence[str], rows: Iterable[bytes]
    ) -> None:
        """Put rows of some columns into staging."""
        head = f"INSERT INTO {self._stage} (kind, {', '.join(places)}) VALUES "
        self._send(connection, head, (b"(%d,%s)" % (kind, row) for row in rows), "")
        self._staged = True

    def _send(self, connection: Connection, head: str, rows: Iterable[bytes], tail: str) -> None:
        """Send rows in as few statements as fit."""
        first, last = head.encode(), tail.encode()
        for chunk in self._chunks(rows, len(first) + len(last)):
            connection.query(first + b",".join(chunk) + last)

    def _chunks(self, rows: Iterable[bytes], beside: int) -> Iterator[list[bytes]]:
        """Yield rows that fit into a statement, with what is said `beside` them (bytes)."""
        room = self._packet - beside - _MARGIN_BYTES
        most = min(room, _STATEMENT_BYTES)
        chunk: list[bytes] = []
        size = 0
        for row in rows:
            if chunk and size + len(row) > most:
                yield chunk
                chunk, size = [], 0
            if len(row) > room:
                raise DataError(
                    f"a row of {self.schema.table} takes {len(row)} bytes in a statement, the "
                    f"server's max_allowed_packet is {self._packet}"
                )
            chunk.append(row)
            size += len(row) + 1
        if chunk:
            yield chunk

    def _on_duplicate(self) -> str:
        if not self._key:
            return ""
        places = self._settable or list(self._key)
        return self._dialect.upsert([self._columns[n] for n in places])

    def _join(self, prefix: str) -> str:
        """Return staging joined with the table, which is asked by its key for each staged row."""
        return f"{self._stage} s STRAIGHT_JOIN {self._name} t ON {self._same(prefix)}"

    def _same(self, prefix: str) -> str:
        pairs = [f"t.{self._columns[n]} = s.{prefix}{n}" for n in self._key]
        return " AND ".join(pairs)


def _absent(row: Row) -> tuple[int, ...]:
    return tuple(place for place, cell in enumerate(row) if cell is ABSENT)


def _special(schema: TableSchema, forms: Forms) -> dict[int, Literal]:
    """Return the columns whose literal is not simply their text in quotes."""
    made = [forms[column.type.logical].literal for column in schema.columns]
    return {place: form for place, form in enumerate(made) if form is not None}


def _of_field(field: bytes, form: Literal) -> bytes:
    r"""Return the literal of a field of COPY text: `\N`, or a text that may hold `\\`."""
    if field == b"\\N":
        return NULL
    return form(field.replace(b"\\\\", b"\\") if b"\\" in field else field)
