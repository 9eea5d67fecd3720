"""One transaction of the log as it is read: which of its events are carried, and which is the last.

    MariaDB   Gtid (says what it is) ─ …                        MySQL   Gtid ─ …
    ordinary       rows … ─ Xid, or a statement alone                   BEGIN ─ rows … ─ Xid
    XA PREPARE     XA START ─ rows … ─ XA END ─ XA_prepare              the same
    XA COMMIT      XA COMMIT                                            the same
    one phase      rows … ─ Xid                                         as XA PREPARE, which says so

MariaDB's Gtid event names the XA transaction, MySQL's statements do. All of it was read in logs of
MariaDB 11.4 and MySQL 9.7.
"""

from __future__ import annotations

from cdc.decode.binlogevents import (
    Event,
    Query,
    RowsEvent,
    TableEvent,
    Transaction,
    XaPrepare,
    Xid,
)
from cdc.errors import UnknownEvent
from cdc.mariadb.statements import XA, Deed, read_statement
from cdc.mariadb.xa import named, xid_text

__all__ = ["Opened"]

_BEGINS = (Deed.BEGIN, Deed.XA)
_ENDS_XA = (Deed.XA_COMMIT, Deed.XA_ROLLBACK)


class Opened:
    """A transaction that has begun.

    `xid` is the XA transaction it is about, "" for none: one that it `prepares`, or that it
    `completes`, and then `commits` or not.
    """

    def __init__(self, begun: Transaction) -> None:
        self.begun = begun
        self.xid = xid_text(begun.xid) if begun.xid else ""
        self.prepares = begun.prepared
        self.completes = begun.completed
        self.commits = True
        self._first = True

    def take(self, event: Event) -> bool:
        """Take its next event; tell whether it is the last. Raises `errors.UnknownEvent`."""
        if isinstance(event, XaPrepare):
            self.prepares = not event.one_phase
            return True
        if isinstance(event, Query):
            return self._take_statement(event)
        return isinstance(event, Xid)

    def _take_statement(self, event: Query) -> bool:
        deed = read_statement(event.text, event.database).deed
        first, self._first = self._first, False
        if deed in XA:
            self._take_xa(event, deed, first=first)
        alone = self.begun.standalone
        if alone is None:
            alone = first and deed not in _BEGINS
        return alone or deed in (Deed.COMMIT, Deed.ROLLBACK, *_ENDS_XA)

    def _take_xa(self, event: Query, deed: Deed, *, first: bool) -> None:
        if not first and (deed in _ENDS_XA or not self.xid):
            raise UnknownEvent(f"{event.text!r} comes within the transaction {self.begun.gtid}")
        self.xid = self.xid or named(event.text)
        if deed in _ENDS_XA:
            self.completes, self.commits = True, deed is Deed.XA_COMMIT

    def carries(self, event: Event) -> bool:
        """Tell whether the event it has taken is of what it does.

        Where an XA transaction begins and ends is not: that differs between the transaction that
        prepares it and the one that completes it.
        """
        if isinstance(event, Query):
            return not self.xid or read_statement(event.text, event.database).deed not in XA
        return isinstance(event, (TableEvent, RowsEvent))
