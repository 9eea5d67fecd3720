"""The log's events → runs of rows with their place in it. No I/O but a spill, no waiting.

    feed(events) ─▶ Gtid ─ Query BEGIN ─ Table_map ─ rows … ─ Xid      held until it has ended,
                    Gtid ─ Query (DDL)                                  then handed out in pieces

Why a transaction is held (R1): a server that dies while it writes leaves a part of one at the end
of a file, which it never committed; the next file's first event says so. What waits goes from
memory to an unnamed file, so a transaction of any size passes (R14). What an XA transaction did
stands in the log where it was prepared, and leaves as rows of the commit (`prepared.py`).

Why the stamps are the same each time: transactions are counted as they end, from the position on
that was stored with the count; a row's ordinal is (its event's place in the transaction, its place
in the event), whatever tables are asked for. Rows of a snapshot come behind their transaction.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from cdc.decode import binlog, binlogmysql
from cdc.decode.binlogevents import (
    Event,
    Format,
    GtidList,
    Header,
    Heartbeat,
    Incident,
    Payload,
    PreviousGtids,
    Query,
    Rotate,
    RowsEvent,
    TableEvent,
    Transaction,
    XaPrepare,
)
from cdc.errors import UnknownEvent
from cdc.mariadb.opened import Opened
from cdc.mariadb.position import Place, Position, PreparedXa
from cdc.mariadb.prepared import Ended, Prepared
from cdc.mariadb.runs import Run
from cdc.mariadb.spill import Spill
from cdc.mariadb.statements import Statement
from cdc.mariadb.tables import Tables
from schemas.change import Form, Origin, Rows
from schemas.table import TableSchema

__all__ = ["BEHIND", "Transactions"]

BEHIND = 1 << 60
"""Ordinals of snapshot rows begin here, behind every row of the transaction they follow."""

_PIECE_ROWS = 5_000
_KEPT = (TableEvent, RowsEvent, Query, XaPrepare)


Altered = Callable[[Statement], None]
"""Hears of each statement that changed a schema, once its transaction was handed out."""


class _Open(msgspec.Struct):
    """The transaction being read, and all that came of it."""

    what: Opened
    header: Header
    spill: Spill


class Transactions:
    """See the module's text. `rows` and `position` are taken by the source after each `advance`.

    `ended` are the XA transactions that have committed since rows were taken. The log is not read
    beyond `until` while there is one.
    """

    def __init__(
        self,
        position: Position,
        tables: Tables,
        spill: Callable[[], Spill],
        altered: Altered,
        *,
        checksum: bool,
        prepared: Prepared | None = None,
    ) -> None:
        self.position = position
        self.rows: list[Rows] = []
        self.ended: list[Ended] = []
        self.place = position.place
        self.until: Place | None = None
        self._waiting = 0
        self._stored = position
        self._gtid = position.gtids()
        self._tables = tables
        self._spill = spill
        self._checksum = checksum
        self._altered = altered
        self._prepared = prepared or Prepared()
        self._open: _Open | None = None
        self._leaving: Iterator[None] | None = None
        self._latest: Transaction | None = None
        self._input: deque[bytes] = deque()

    def feed(self, events: list[bytes]) -> None:
        """Take events that have arrived; `advance` works through them."""
        self._input.extend(events)

    def advance(self) -> bool:
        """Work on to the next transaction's end, or hand out a piece; tell whether there is more.

        Raises `errors.UnknownEvent` for what cannot be read, `errors.PreflightFailed` for what
        must not be.
        """
        while self._input or self._leaving is not None:
            if self._leaving is not None:
                if next(self._leaving, self) is self:
                    self._leaving = None
            elif self.arrived:
                return False
            else:
                self._read(self._input.popleft())
            if self._waiting >= _PIECE_ROWS:
                return True
        return False

    @property
    def arrived(self) -> bool:
        """Tell whether the log stands at `until`, between two transactions."""
        if self.until is None or self._open is not None or self._leaving is not None:
            return False
        return self.place.covers(self.until)

    def reached(self) -> tuple[str, Place]:
        """Return the position and the place behind the transaction that leaves, or left last."""
        latest = self._latest
        if latest is None or self._gtid.contains(latest.gtid):
            return str(self._gtid), self.place
        return str(self._gtid.advanced(latest.gtid)), self.place

    def take(self) -> list[Rows]:
        """Hand over the rows collected so far; `position` lies behind the last of them."""
        rows, self.rows, self._waiting = self.rows, [], 0
        self.ended = []
        return rows

    def close(self) -> None:
        """Let go of what waits."""
        opened, self._open, self._leaving = self._open, None, None
        if opened is not None:
            opened.spill.close()
        self._prepared.close()

    def _read(self, data: bytes) -> None:
        header, event = self._decoded(data, checksum=self._checksum)
        if isinstance(event, (Rotate, Format, Heartbeat)):
            self._moved(header, event)
            return
        self._pass(header, len(data))
        if isinstance(event, Transaction):
            self._begin(event, header)
        elif isinstance(event, Incident):
            raise self._strange(event)
        elif self._open is not None:
            self._hold(event, data)
        elif isinstance(event, _KEPT):
            raise UnknownEvent(f"{event} at {self.place} comes outside of a transaction")
        elif isinstance(event, (GtidList, PreviousGtids)) and header.end:
            self._idle()

    def _decoded(self, data: bytes, *, checksum: bool) -> tuple[Header, Event]:
        try:
            return binlog.decode(data, checksum=checksum)
        except ValueError as error:
            raise UnknownEvent(
                f"an event behind {self.place} cannot be read: {error}",
                hint="this version does not know what the server sends; look for a newer one",
            ) from error

    def _moved(self, header: Header, event: Rotate | Format | Heartbeat) -> None:
        if isinstance(event, Rotate):
            self.place = Place(event.file, event.offset)
        elif isinstance(event, Format):
            self._checksum = event.checksum
            if self._open is not None and header.end:  # the server died while it wrote it
                self._open.spill.close()
                self._open = None
        elif self._open is None and (event.offset or header.end):
            self.place = Place(event.file, event.offset or header.end)
        self._idle()

    def _pass(self, header: Header, size: int) -> None:
        """Follow the log."""
        if header.end:
            self.place = self.place.passed(size, header.end)

    def _idle(self) -> None:
        """Nothing is open: the position may follow the log, which begins before it."""
        if self._open is None and self.place.covers(self.position.place):
            file, offset = self.place
            self.position = msgspec.structs.replace(self.position, file=file, offset=offset)

    def _strange(self, event: Incident) -> UnknownEvent:
        return UnknownEvent(
            f"the server says at {self.place} that its log may lack something: "
            f"{event.message} (incident {event.number})",
            hint="read everything again: `cdc position reset`",
        )

    def _begin(self, event: Transaction, header: Header) -> None:
        if self._open is not None:
            raise UnknownEvent(f"{event.gtid} begins before {self._open.what.begun.gtid} has ended")
        if event.gtid is None:
            raise UnknownEvent(
                f"the transaction at {self.place} has no global id",
                hint="SET GLOBAL gtid_mode = ON, step by step, on every server of the topology; "
                "then begin anew with `cdc position reset`",
            )
        self._open = _Open(Opened(event), header, self._made())

    def _made(self) -> Spill:
        spill = self._spill()
        spill.checksum = self._checksum
        return spill

    def _hold(self, event: Event, data: bytes) -> None:
        """Keep an event of the open transaction; hand all out when it was the last."""
        opened = self._transaction()
        if isinstance(event, Payload):
            self._unfold(event)
            return
        what = opened.what
        ends = what.take(event)
        if what.carries(event):
            opened.spill.add(data)
        if not ends:
            return
        if what.prepares:
            found = PreparedXa(what.xid, str(what.begun.gtid), self._gtid.noted())
            self._prepared.keep(found, opened.spill)
            opened.spill = self._made()
        elif what.completes:
            self._end(opened)
        self._leaving = self._leave(opened)
        self._open = None

    def _end(self, opened: _Open) -> None:
        """An XA transaction ends: what it did when it was prepared happens now, or never."""
        xid, commits = opened.what.xid, opened.what.commits
        opened.spill = self._prepared.end(xid, self._gtid, opened.spill, commits=commits)
        if commits:
            self.ended.append(Ended(xid, str(opened.what.begun.gtid)))

    def _unfold(self, payload: Payload) -> None:
        """Take the events that were logged as one."""
        try:
            for data in binlogmysql.events_of(payload, checksum=self._checksum):
                self._hold(self._decoded(data, checksum=self._checksum)[1], data)
        except ValueError as error:
            raise UnknownEvent(f"an event behind {self.place} cannot be read: {error}") from error

    def _transaction(self) -> _Open:
        if self._open is None:
            raise UnknownEvent(f"a row at {self.place} comes outside of a transaction")
        return self._open

    def _leave(self, opened: _Open) -> Iterator[None]:
        """Hand out a transaction that has ended, in pieces."""
        what = opened.what
        self._latest = what.begun
        number = self.position.complete + 1
        skip = self._stored.ordinal if number == self._stored.commit else 0
        run = Run(self._tables, self._origin(opened), skip, str(what.begun.gtid))
        if what.completes:
            run.settle = partial(self._prepared.settle, what.xid)
        checksum = opened.spill.checksum
        try:
            for index, data in enumerate(opened.spill.events()):
                run.take(self._decoded(data, checksum=checksum)[1], index)
                if run.size >= _PIECE_ROWS:
                    self._hand_out(run, number)
                    yield
            self._hand_out(run, number)
        finally:
            opened.spill.close()
        self._complete(what, number)
        if what.begun.alter != "start":
            for statement in run.altered:
                self._altered(statement)

    def _hand_out(self, run: Run, number: int) -> None:
        rows = run.flush()
        self.rows.extend(rows)
        self._waiting += sum(len(found.items) for found in rows)
        self._reach(number, run.ordinal)

    def _complete(self, what: Opened, number: int) -> None:
        try:
            self._gtid = self._gtid.advanced(what.begun.gtid)
        except ValueError as error:
            raise UnknownEvent(f"the log at {self.place} repeats itself: {error}") from error
        file, offset = self.place
        now = self.position
        ordinal = now.ordinal if now.commit == number else 0
        self.position = msgspec.structs.replace(
            now,
            gtid=str(self._gtid),
            file=file,
            offset=offset,
            commit=number,
            ordinal=ordinal,
            complete=number,
            prepared=self._prepared.open() if what.xid else now.prepared,
        )

    def _reach(self, number: int, ordinal: int) -> None:
        """Rows up to `ordinal` of transaction `number` were handed out."""
        now = self.position
        if (number, ordinal) > (now.commit, now.ordinal):
            self.position = msgspec.structs.replace(now, commit=number, ordinal=ordinal)

    def _origin(self, opened: _Open) -> Origin:
        now, gtid = self.position, opened.what.begun.gtid
        micros = opened.header.seconds * 1_000_000
        return Origin(now.incarnation, now.complete + 1, micros, str(gtid))

    def insert(self, schema: TableSchema, items: list[Any], form: Form) -> None:
        """Let rows of a snapshot leave here, behind the last transaction."""
        now = self.position
        first = now.ordinal + 1 if now.ordinal >= BEHIND else BEHIND
        ordinals = range(first, first + len(items))
        micros = time.time_ns() // 1000
        origin = Origin(now.incarnation, now.complete, micros, snapshot=True)
        self.rows.append(Rows(schema, form, origin, items, ordinals))
        self._waiting += len(items)
        self._reach(now.complete, ordinals[-1])
