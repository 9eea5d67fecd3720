"""What the log had before: the rows of a prepared XA transaction, read again from where they stand.

On a connection of its own, so that the stream need not go back: a transaction may have been
prepared hours ago, and before this source first began. Then nobody wrote down where, and the files
of the log are looked through, newest first, back to the one that speaks of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from cdc.decode import binlog, binlogmysql
from cdc.decode.binlogevents import Event, Format, Payload, Transaction
from cdc.decode.gtid import Gtids
from cdc.errors import GapError, UnknownEvent
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.opened import Opened
from cdc.mariadb.position import AGAIN, PreparedXa
from cdc.mariadb.spill import Spill

__all__ = ["Log", "Lookback"]

Log = Callable[[str], Generator[bytes, None, None]]
"""Yields the events that follow a position, and does not end. Raises `errors.GapError`."""

_LIMITS = {2, 15, 16, 17, 18, 33, 34, 38, 40, 42, 162, 165}
"""Kinds of events that say where a transaction begins or ends, and which it is."""
_KIND_AT = 4

_Step = tuple[Opened, Event, bytes]


class Lookback:
    """See the module's text."""

    def __init__(self, catalog: Catalog, log: Log) -> None:
        self.catalog = catalog
        self._log = log
        self._checksum = False
        self._until: Gtids | None = None
        self._files: list[str] = []
        self._open: dict[str, PreparedXa] = {}
        self._ended: set[str] = set()

    def read(self, found: PreparedXa, now: Gtids, into: Spill) -> None:
        """Read the rows of a transaction that `now` has.

        Raises `errors.GapError` when the log lacks them.
        """
        try:
            self._read(found, now, into)
        except GapError as error:
            raise GapError(
                f"XA transaction {found.xid} has committed, and its rows, logged as {found.gtid} "
                f"when it was prepared, are not in the log any more: {error}",
                hint=error.hint,
            ) from error

    def _read(self, found: PreparedXa, now: Gtids, into: Spill) -> None:
        reached = now.way_back(found.gtid, found.behind)
        with closing(self._steps(str(reached), found.gtid)) as steps:
            for opened, event, data in steps:
                inside = str(opened.begun.gtid) == found.gtid
                if isinstance(event, Transaction):
                    reached = _beyond(reached, event)
                    into.checksum = self._checksum
                over = opened.take(event)
                if inside and opened.carries(event):
                    into.add(data)
                if inside and over and opened.prepares and opened.xid == found.xid:
                    return
                if (inside and over) or (reached.names(found.gtid) and not inside):
                    raise GapError(f"the log has {opened.begun.gtid} in its place", hint=AGAIN)

    def find(self, xid: str, now: Gtids) -> PreparedXa | None:
        """Return where a transaction was prepared that is not known, None when it had ended.

        It is looked for before the position `now`. Raises `errors.GapError` when the log does not
        say.
        """
        if self._until is None:
            self._until = now
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
        start, until = self.catalog.dialect.begins(self.catalog, file), self._until
        if start is None or until is None or start.covers(until):
            return False
        self._until = start
        opened: dict[str, PreparedXa] = {}
        said = False
        with closing(self._passed(start, until)) as transactions:
            for behind, met in transactions:
                said = said or met.xid == wanted
                self._note(opened, PreparedXa(met.xid, str(met.begun.gtid), behind.noted()), met)
        for xid, found in opened.items():
            if xid not in self._ended:
                self._open.setdefault(xid, found)
        return said

    def _note(self, opened: dict[str, PreparedXa], found: PreparedXa, met: Opened) -> None:
        before = opened.pop(found.xid, None)
        if met.prepares:
            opened[found.xid] = found
        elif before is None:
            self._ended.add(found.xid)

    def _passed(self, start: Gtids, until: Gtids) -> Generator[tuple[Gtids, Opened], None, None]:
        """Yield the XA transactions from `start` to `until`, each with what the log had before."""
        now = start
        with closing(self._steps(str(start))) as steps:
            for opened, event, _ in steps:
                if not opened.take(event):
                    continue
                if opened.xid:
                    yield now, opened
                now = _beyond(now, opened.begun)
                if now.covers(until):
                    return

    def _steps(self, start: str, whole: str = "") -> Generator[_Step, None, None]:
        """Yield what follows a position: events with the transaction they are of.

        All are yielded of the one called `whole`, of others what tells where they begin and end.
        """
        opened = None
        with closing(self._log(start)) as events:
            for sent in events:
                inside = opened is not None and str(opened.begun.gtid) == whole
                if not inside and sent[_KIND_AT] not in _LIMITS:
                    continue
                for event, data in self._decoded(sent):
                    if isinstance(event, Format):
                        self._checksum, opened = event.checksum, None
                    elif isinstance(event, Transaction):
                        opened = Opened(event)
                    if opened is not None:
                        yield opened, event, data

    def _decoded(self, data: bytes) -> Iterator[tuple[Event, bytes]]:
        """Yield an event, or those that were logged as one."""
        try:
            event = binlog.decode(data, checksum=self._checksum)[1]
            if not isinstance(event, Payload):
                yield event, data
                return
            for part in binlogmysql.events_of(event, checksum=self._checksum):
                yield binlog.decode(part, checksum=self._checksum)[1], part
        except ValueError as error:
            raise UnknownEvent(f"an event of the log's past cannot be read: {error}") from error


def _beyond(reached: Gtids, begun: Transaction) -> Gtids:
    """Return the position behind a transaction; one the server died in may come again."""
    return reached if reached.contains(begun.gtid) else reached.advanced(begun.gtid)
