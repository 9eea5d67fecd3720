"""What the log had before: the rows of a prepared XA transaction, read again from where they stand.

On a connection of its own, so that the stream need not go back: a transaction may have been
prepared hours ago, and before this source first began. Then nobody wrote down where, and the files
of the log are looked through, newest first, back to the one that speaks of it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from cdc.decode import binlog
from cdc.decode.binlogevents import (
    Event,
    Format,
    Query,
    RowsEvent,
    TableEvent,
    Transaction,
    XaPrepare,
)
from cdc.decode.gtid import Domains, Gtid
from cdc.errors import GapError, UnknownEvent
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.dump import Dump
from cdc.mariadb.position import AGAIN, Place, PreparedXa
from cdc.mariadb.spill import Spill
from cdc.mariadb.statements import XA, read_statement
from cdc.mariadb.xa import xid_text

__all__ = ["Lookback", "is_carried"]

_FORMAT, _GTID = 15, 162
_KIND_AT = 4


def is_carried(event: Event) -> bool:
    """Tell whether an event is of what an XA transaction does, not of where it begins and ends."""
    if isinstance(event, Query):
        return read_statement(event.text, event.database).deed not in XA
    return isinstance(event, (TableEvent, RowsEvent))


class Lookback:
    """See the module's text."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._checksum = False
        self._until: Domains | None = None
        self._files: list[str] = []
        self._open: dict[str, PreparedXa] = {}
        self._ended: set[str] = set()

    def read(self, found: PreparedXa, into: Spill) -> None:
        """Read the rows of a transaction. Raises `errors.GapError` when the log lacks them."""
        try:
            self._read(found, into)
        except GapError as error:
            raise GapError(
                f"XA transaction {found.xid} has committed, and its rows, logged as {found.gtid} "
                f"when it was prepared, are not in the log any more: {error}",
                hint=error.hint,
            ) from error

    def _read(self, found: PreparedXa, into: Spill) -> None:
        wanted, inside = Gtid.parse(found.gtid), False
        with closing(self._events(found.behind)) as events:
            for data in events:
                if data[_KIND_AT] == _GTID:
                    inside = self._is(wanted, data)
                    into.checksum = self._checksum
                elif inside:
                    event = self._decoded(data)
                    if isinstance(event, XaPrepare):
                        return
                    if is_carried(event):
                        into.add(data)

    def _is(self, wanted: Gtid, data: bytes) -> bool:
        """Tell whether `wanted` begins here."""
        met, begun = self._begun(data)
        if met.domain != wanted.domain:
            return False
        if met.sequence > wanted.sequence or (met == wanted and not begun.prepared):
            raise GapError(f"the log has {met} in its place", hint=AGAIN)
        return met == wanted

    def find(self, xid: str, behind: str) -> PreparedXa | None:
        """Return where a transaction was prepared that is not known, None when it had ended.

        It is looked for before the position `behind`. Raises `errors.GapError` when the log does
        not say.
        """
        if self._until is None:
            self._until = Domains.parse(behind)
            self._files = [name for name, *_ in self.catalog.rows("SHOW BINARY LOGS")]
        said = xid in self._open
        while not said and self._files:
            said = self._look_through(self._files.pop(), xid)
        if not said:
            raise GapError(
                f"XA transaction {xid} has committed, and the log does not have where it was "
                "prepared: it was purged, or the session had sql_log_bin = 0",
                hint=AGAIN,
            )
        self._ended.add(xid)
        return self._open.pop(xid, None)

    def _look_through(self, file: str, wanted: str) -> bool:
        """Note what a file has prepared that did not end later; tell whether it says `wanted`."""
        start, until = self.catalog.gtid_at(Place(file, 4)), self._until
        if start is None or until is None or start.covers(until):
            return False
        self._until = now = start
        opened: dict[str, PreparedXa] = {}
        said = False
        with closing(self._events(str(start))) as events:
            while not now.covers(until):
                data = next(events)
                if data[_KIND_AT] != _GTID:
                    continue
                gtid, begun = self._begun(data)
                behind, now = str(now), now.advanced(gtid)
                if begun.xid:
                    xid = xid_text(begun.xid)
                    said = said or xid == wanted
                    self._note(opened, PreparedXa(xid, str(gtid), behind), begun)
        for xid, found in opened.items():
            if xid not in self._ended:
                self._open.setdefault(xid, found)
        return said

    def _note(self, opened: dict[str, PreparedXa], met: PreparedXa, begun: Transaction) -> None:
        before = opened.pop(met.xid, None)
        if begun.prepared:
            opened[met.xid] = met
        elif before is None:
            self._ended.add(met.xid)

    def _events(self, gtid: str) -> Generator[bytes, None, None]:
        """Yield the events that follow a position, and do not end. Raises as `Dump.look` does."""
        with closing(Dump(self.catalog.login, self.catalog.dialect)) as dump:
            events = dump.look(gtid)
            self._checksum = dump.checksum
            for data in events:
                if data[_KIND_AT] == _FORMAT:
                    event = self._decoded(data)
                    self._checksum = isinstance(event, Format) and event.checksum
                yield data

    def _begun(self, data: bytes) -> tuple[Gtid, Transaction]:
        event = self._decoded(data)
        if isinstance(event, Transaction) and isinstance(event.gtid, Gtid):
            return event.gtid, event
        raise UnknownEvent(f"{event} begins no transaction of MariaDB")

    def _decoded(self, data: bytes) -> Event:
        try:
            return binlog.decode(data, checksum=self._checksum)[1]
        except ValueError as error:
            raise UnknownEvent(f"an event of the log's past cannot be read: {error}") from error
