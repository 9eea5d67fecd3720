"""XA transactions that are prepared and have not ended: where the log has their rows, and these.

    XA PREPARE    Gtid ─ rows … ─ XA_prepare     nothing leaves; where the rows stand is stored
    XA COMMIT     Gtid ─ Query                   they leave, as rows of this transaction
    XA ROLLBACK   Gtid ─ Query                   they are forgotten

Rows are kept while there is room: most transactions end at once. What was let go, and all of it
after a restart, is read again from where it stands in the log (`lookback.py`). The log is kept
anyway, so a transaction may stay prepared for hours and cost a line in the position. Where it was
purged in between the commit is a gap; a rollback needs nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cdc.decode.gtid import Gtids
from cdc.errors import UnknownEvent
from cdc.mariadb.connection import whole_guard
from cdc.mariadb.lookback import Lookback
from cdc.mariadb.position import PreparedXa
from cdc.mariadb.spill import Spill

__all__ = ["Ended", "Prepared"]

_MOST = 4_000
"""So many fit into a position, which is one record of Kafka."""
_KEPT = 256
"""Each of them may have a file open."""


class Ended(msgspec.Struct, frozen=True):
    """The XA transaction `xid` has ended in the log, as its transaction `gtid`."""

    xid: str
    gtid: str


class Prepared:
    """See the module's text. At most `limit` bytes of rows are kept in memory."""

    def __init__(
        self,
        stored: Iterable[PreparedXa] = (),
        limit: int = 0,
        lookback: Lookback | None = None,
    ) -> None:
        self._open = {item.xid: item for item in stored}
        self._kept: dict[str, Spill] = {}
        self._room = limit
        self._log = lookback

    def open(self) -> tuple[PreparedXa, ...]:
        """Return those that have not ended, as they are stored."""
        return tuple(self._open.values())

    def keep(self, prepared: PreparedXa, rows: Spill) -> None:
        """Take a transaction that was prepared."""
        xid = prepared.xid
        self._let_go(xid)
        if len(self._open) >= _MOST:
            raise UnknownEvent(
                f"{len(self._open)} XA transactions are prepared and have not ended",
                hint="XA RECOVER lists them: end them by XA COMMIT or XA ROLLBACK",
            )
        self._open[xid] = prepared
        self._kept[xid] = rows
        self._room -= rows.in_memory
        while self._room < 0 or len(self._kept) > _KEPT:
            self._let_go(next(iter(self._kept)))

    def end(self, xid: str, now: Gtids, into: Spill, *, commits: bool) -> Spill:
        """Return the rows of a transaction that ends behind the position `now`.

        They are read `into` where they were not kept; of one that rolls back there are none.
        Raises `errors.GapError` when the log has them no more.
        """
        found, kept = self._open.pop(xid, None), self._taken(xid)
        if kept is not None and commits:
            into.close()
            return kept
        if kept is not None:
            kept.close()
        elif commits:
            found = found or self._lookback.find(xid, now)
            if found is not None:
                self._lookback.read(found, now, into)
        return into

    def settle(self, xid: str) -> None:
        """Wait until the tables have what a commit did that the log has already."""
        catalog = self._lookback.catalog
        with whole_guard(catalog.login):
            catalog.dialect.settle_xa(catalog.connection, xid)

    @property
    def _lookback(self) -> Lookback:
        if self._log is None:
            raise UnknownEvent("an XA transaction cannot be captured here")
        return self._log

    def _taken(self, xid: str) -> Spill | None:
        rows = self._kept.pop(xid, None)
        if rows is not None:
            self._room += rows.in_memory
        return rows

    def _let_go(self, xid: str) -> None:
        rows = self._taken(xid)
        if rows is not None:
            rows.close()

    def close(self) -> None:
        """Let go of all rows."""
        for xid in list(self._kept):
            self._let_go(xid)
