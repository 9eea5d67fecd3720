"""What the log says further on of schemas: read once, on a connection of its own, rows unread.

The catalogue is as of the log's end, the source reads the log somewhere before. Whether a table
is there what it is here, the statements between tell.
"""

from __future__ import annotations

from contextlib import closing

from cdc.decode import binlog
from cdc.decode.binlogevents import Format, Query, Rotate, Transaction
from cdc.decode.gtid import Domains, Gtids
from cdc.errors import UnknownEvent
from cdc.mariadb.connection import Login
from cdc.mariadb.dialect import Dialect
from cdc.mariadb.dump import Dump
from cdc.mariadb.position import Place
from cdc.mariadb.statements import SCHEMA, Statement, read_statement

__all__ = ["Ahead"]

_QUERY, _ROTATE, _FORMAT, _GTID, _QUERY_COMPRESSED = 2, 4, 15, 162, 165
_READ = {_QUERY, _ROTATE, _FORMAT, _GTID, _QUERY_COMPRESSED}
_KIND_AT, _END_AT = 4, 13


class Ahead:
    """Statements that change schemas, as far as the log was read ahead."""

    def __init__(self, login: Login, dialect: Dialect) -> None:
        self._login = login
        self._dialect = dialect
        self._begun = False
        self._place = Place("", 0)
        self._gtid: Gtids = Domains()
        self._checksum = False
        self._alter = ""
        self._found: list[tuple[Place, Statement]] = []

    def between(self, gtid: str, start: Place, end: Place) -> list[Statement]:
        """Return the statements behind `start`, where the position is `gtid`, and up to `end`.

        Both lie between transactions. Raises `errors.Unavailable` or `errors.Stop`.
        """
        if start.covers(end):
            return []
        if not self._begun or not self._place.covers(start):
            self._begun = True
            self._place, self._gtid, self._found = start, Domains.parse(gtid), []
        if not self._place.covers(end):
            self._read(end)
        self._found = [item for item in self._found if not start.covers(item[0])]
        return [statement for place, statement in self._found if end.covers(place)]

    def _read(self, end: Place) -> None:
        """Read on to `end`."""
        with closing(Dump(self._login, self._dialect)) as dump:
            events = dump.look(str(self._gtid))
            self._checksum = dump.checksum
            while not self._place.covers(end):
                self._take(next(events))

    def _take(self, data: bytes) -> None:
        written = int.from_bytes(data[_END_AT : _END_AT + 4], "little")
        if written:
            self._place = self._place.passed(len(data), written)
        if data[_KIND_AT] not in _READ:
            return
        try:
            _, event = binlog.decode(data, checksum=self._checksum)
        except ValueError as error:
            raise UnknownEvent(f"an event at {self._place} cannot be read: {error}") from error
        if isinstance(event, Rotate):
            self._place = Place(event.file, event.offset)
        elif isinstance(event, Format):
            self._checksum = event.checksum
        elif isinstance(event, Transaction):
            self._gtid, self._alter = self._gtid.advanced(event.gtid), event.alter
        elif isinstance(event, Query):
            self._take_statement(event)

    def _take_statement(self, event: Query) -> None:
        statement = read_statement(event.text, event.database)
        if statement.deed in SCHEMA and self._alter not in ("start", "rollback"):
            self._found.append((self._place, statement))
