"""A twin of the walsender: the log decoded into pgoutput messages, protocol version 2.

Each connection decides by its own dice which transactions it streams before their commit, how
much arrives at once, and where keepalives fall; so one transaction is delivered in other ways
after a restart.

Source: PostgreSQL 18 manual, "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
from typing import Any

from psycopg import pq

from cdc.decode.lsn import format_lsn, parse_lsn
from simulation.database import TABLES, Database, Entry, Op, Row, Slot, Txn
from simulation.world import HERE, call

_COLUMNS = (("id", 23, 1), ("v", 25, 0), ("big", 25, 0))


def _tuple(cells: list[str | None]) -> bytes:
    """Return TupleData; "?" stands for an unchanged TOAST value."""
    out = [struct.pack(">H", len(cells))]
    for cell in cells:
        if cell is None:
            out.append(b"n")
        elif cell == "?":
            out.append(b"u")
        else:
            data = cell.encode()
            out.append(b"t" + struct.pack(">I", len(data)) + data)
    return b"".join(out)


def _row(row: Row, before: Row | None = None) -> bytes:
    big = "?" if before is not None and before[2] == row[2] else row[2]
    return _tuple([str(row[0]), row[1], big])


def _key(row: Row) -> bytes:
    return _tuple([str(row[0]), None, None])


def _message(op: Op) -> bytes:
    """Return the message of `op` behind its kind byte and, in a stream, its xid."""
    oid = struct.pack(">I", op.oid)
    if op.kind == "I" and op.new:
        return oid + b"N" + _row(op.new)
    if op.kind == "D" and op.old:
        return oid + b"K" + _key(op.old)
    if op.kind == "U" and op.old and op.new:
        moved = op.old[0] != op.new[0]
        return oid + (b"K" + _key(op.old) if moved else b"") + b"N" + _row(op.new, op.old)
    if op.kind == "T":
        return struct.pack(">IB", 1, 0) + oid
    prefix, content = op.content
    head = struct.pack(">BQ", 1, op.lsn) + prefix.encode() + b"\0"
    return head + struct.pack(">I", len(content)) + content


def _relation(oid: int) -> bytes:
    out = [struct.pack(">I", oid), b"public\0", TABLES[oid].encode(), b"\0d", struct.pack(">H", 3)]
    for name, kind, flag in _COLUMNS:
        out.append(bytes([flag]) + name.encode() + b"\0" + struct.pack(">Ii", kind, -1))
    return b"".join(out)


class Decoding:
    """One START_REPLICATION: walks the log and fills `out` with CopyData payloads."""

    def __init__(self, database: Database, start: int) -> None:
        self._database = database
        self._dice = database.world.dice
        self._start = start
        self._place = database.restart_at(start)
        self._sent = start
        self._relations: set[int] = set()
        self._streams: dict[Txn, set[int]] = {}
        self._told: dict[Txn, int] = {}
        self._likes = self._dice.choice((0.0, 0.3, 0.8))
        self.out: list[bytes] = []

    def advance(self) -> bool:
        """Decode one record of the log; tell whether there was one."""
        if self._place >= len(self._database.log):
            return False
        entry = self._database.log[self._place]
        self._place += 1
        self._decode(entry)
        self._sent = max(self._sent, entry.end)
        return True

    def keepalive(self) -> None:
        reply = self._dice.random() < 0.2
        self.out.append(struct.pack(">cqqb", b"k", self._sent, 0, reply))

    def _data(self, payload: bytes) -> None:
        self.out.append(struct.pack(">cqqq", b"w", self._sent, self._sent, 0) + payload)
        if self._dice.random() < 0.05:
            self.keepalive()

    def _decode(self, entry: Entry) -> None:
        txn = entry.txn
        if txn is None or entry.kind == "message":
            if entry.op is not None and entry.end > self._start:
                payload = _message(entry.op)
                self._data(b"M\0" + payload[1:])
        elif entry.kind == "op":
            if entry.lsn >= self._start and self._dice.random() < self._likes / 2:
                self._stream(txn, entry)
        elif entry.kind == "commit" and entry.lsn >= self._start:
            self._commit(txn, entry)
        elif txn in self._streams and entry.kind in ("abort", "subabort"):
            sub = txn.xid if entry.kind == "abort" else entry.sub
            self._data(struct.pack(">cII", b"A", txn.xid, sub))
            if entry.kind == "abort":
                del self._streams[txn]

    def _stream(self, txn: Txn, upto: Entry) -> None:
        """Send what `txn` has done so far and is not rolled back yet."""
        first = txn not in self._streams
        known = self._streams.setdefault(txn, set())
        done, end = self._told.get(txn, 0), upto.lsn
        gone = self._aborted_before(txn, end)
        self._data(struct.pack(">cIB", b"S", txn.xid, first))
        for number, op in enumerate(txn.ops):
            if number >= done and op.lsn <= end:
                self._told[txn] = number + 1
                if op.sub not in gone:
                    self._single(op, known, struct.pack(">I", op.sub))
        self._data(b"E")

    def _aborted_before(self, txn: Txn, lsn: int) -> set[int]:
        if not txn.aborted:
            return set()
        log = self._database.log[: self._place]
        return {e.sub for e in log if e.txn is txn and e.kind == "subabort" and e.lsn <= lsn}

    def _single(self, op: Op, known: set[int], xid: bytes = b"") -> None:
        if op.oid and op.oid not in known | self._relations:
            known.add(op.oid)
            self._data(b"R" + xid + _relation(op.oid))
        self._data(op.kind.encode() + xid + _message(op))

    def _commit(self, txn: Txn, entry: Entry) -> None:
        stamp = entry.lsn
        if txn in self._streams:
            self._stream(txn, entry)
            self._relations |= self._streams.pop(txn)
            head = struct.pack(">cIB", b"c", txn.xid, 0)
            self._data(head + struct.pack(">QQq", entry.lsn, entry.end, stamp))
            return
        ops = txn.survivors()
        if not ops:
            return
        self._data(struct.pack(">cQqI", b"B", entry.lsn, stamp, txn.xid))
        for op in ops:
            self._single(op, self._relations)
        self._data(struct.pack(">cBQQq", b"C", 0, entry.lsn, entry.end, stamp))


class Result:
    """A `PGresult` of one row, or of an error."""

    def __init__(self, status: int, row: list[str], error: tuple[str, str] = ("", "")) -> None:
        self.status = status
        self._row, self._error = row, error

    def get_value(self, _row: int, column: int) -> bytes:
        return self._row[column].encode()

    def get_error_message(self) -> str:
        return self._error[1]

    def error_field(self, _field: int) -> bytes:
        return self._error[0].encode()


class Walsender:
    """The libpq connection of the stream, `psycopg.pq.PGconn`."""

    def __init__(self, _login: Any, _settings: Any = None) -> None:
        self.world = HERE.world
        self.process = self.world.current
        self.database: Database = HERE.world.database  # type: ignore[attr-defined]
        self.nonblocking = 0
        self.server_version = 160000
        self.backend_pid = 1 + len(self.database.connections)
        self.status = pq.ConnStatus.OK
        self.cut = False
        self._decoding: Decoding | None = None
        self._inbox: list[bytes] = []
        self._creating: list[int] | None = None
        self._results: list[Result] = []
        self.database.connections.append(self)

    @property
    def socket(self) -> Walsender:
        return self

    @call("walsender.exec")
    def exec_(self, command: bytes) -> Result:
        text = command.decode()
        if text == "IDENTIFY_SYSTEM":
            place = format_lsn(self.database.lsn)
            return Result(pq.ExecStatus.TUPLES_OK, ["7000", "1", place])
        slot = self.database.slot
        assert text.startswith("START_REPLICATION"), text
        if slot is None or slot.reader not in (None, self):
            return Result(pq.ExecStatus.FATAL_ERROR, [], ("55006", "slot is active"))
        slot.reader = self
        start = max(parse_lsn(text.split()[4]), slot.confirmed)
        self._decoding = Decoding(self.database, start)
        return Result(pq.ExecStatus.COPY_BOTH, [])

    @call("walsender.create_slot")
    def send_query(self, command: bytes) -> None:
        if self.cut or self.database.slot is not None:
            state = ("57P01", "cut") if self.cut else ("42710", "the slot already exists")
            self._results = [Result(pq.ExecStatus.FATAL_ERROR, [], state)]
            return
        name = command.decode().split('"')[1]
        self.database.slot = Slot(name, 0, 0, self, ready=False)
        self._creating = list(self.database.running)

    def _create(self) -> None:
        slot = self.database.slot
        if self._creating is None or not self.database.quiet(self._creating):
            return
        self._creating = None
        if slot is None or slot.reader is not self:
            self._results = [Result(pq.ExecStatus.FATAL_ERROR, [], ("57P01", "cut"))]
            return
        self.database.show_all()
        slot.point = slot.confirmed = self.database.lsn
        slot.ready, slot.reader = True, None
        self._results = [Result(pq.ExecStatus.TUPLES_OK, [slot.name, format_lsn(slot.point)])]

    def is_busy(self) -> bool:
        return self._creating is not None

    def get_result(self) -> Result | None:
        return self._results.pop() if self._results else None

    def get_copy_data(self, _async: int) -> tuple[int, memoryview | None]:
        if self.cut:
            return -2, None
        if not self._inbox:
            return 0, None
        data = self._inbox.pop(0)
        return len(data), memoryview(data)

    @call("walsender.receive")
    def consume_input(self) -> None:
        self._create()
        decoding = self._decoding
        if decoding is None or self.cut:
            return
        dice = self.world.dice
        for _ in range(dice.choice((0, 1, 2, 6))):
            if not decoding.advance():
                break
        if dice.random() < 0.15:
            decoding.keepalive()
        count = dice.randrange(len(decoding.out) + 1) if dice.random() < 0.5 else 99
        self._inbox += decoding.out[:count]
        del decoding.out[:count]

    @call("walsender.feedback")
    def put_copy_data(self, data: bytes) -> None:
        _, _, flushed, _, _, _ = struct.unpack(">cqqqqb", data)
        if not self.cut:
            self.database.confirm(flushed)

    def flush(self) -> int:
        return 0

    def get_error_message(self) -> str:
        return "the connection was cut"

    def finish(self) -> None:
        if self.process is not None and not self.process.dead:
            self.release()

    def release(self) -> None:
        """The server finds out that the other side is gone."""
        self.cut = True
        slot = self.database.slot
        if slot is not None and slot.reader is self:
            slot.reader = None
            if not slot.ready:
                self.database.slot = None


class Select:
    """Stands for the module `select` in the product."""

    POLLIN, POLLOUT = 1, 4

    @staticmethod
    def poll() -> Poll:
        return Poll()


class Poll:
    """Waits: the clock goes on."""

    process = property(lambda _: HERE.world.current)

    def register(self, connection: Walsender, _events: int) -> None:
        self._connection = connection

    @call("walsender.wait")
    def poll(self, milliseconds: float) -> list[Any]:
        HERE.world.now += milliseconds / 1000
        return []
