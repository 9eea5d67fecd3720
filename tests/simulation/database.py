"""A twin of the source database: transactions, the log, visibility, one replication slot.

    begin ─▶ rows (locked keys) ─▶ logged: the commit record is in the log ─▶ visible
                                   decoding delivers it from here on          snapshots see it

Between the last two a commit waits, as for a standby: the log delivers what no snapshot sees yet.
Rows are (id, v, big); `big` is a TOAST value, which an update that leaves it alone does not log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from simulation.world import World

Row = tuple[int, str, str]

TABLES = {5001: "accounts", 5002: "branches"}
"""Table by oid; both are (id integer primary key, v text, big text) in the schema `public`."""


@dataclass(eq=False)
class Op:
    """One record of a transaction: I, U, D, T (truncate) or M (message, in `content`)."""

    kind: str
    oid: int = 0
    old: Row | None = None
    new: Row | None = None
    sub: int = 0
    content: tuple[str, bytes] = ("", b"")
    lsn: int = 0


@dataclass(eq=False)
class Txn:
    """One transaction. `state` is open, logged, visible or aborted."""

    xid: int
    state: str = "open"
    ops: list[Op] = field(default_factory=list)
    keys: set[tuple[int, int]] = field(default_factory=set)
    sub: int = 0
    first_at: int = 0
    commit_lsn: int = 0
    end_lsn: int = 0
    aborted: set[int] = field(default_factory=set)

    def survivors(self) -> list[Op]:
        return [op for op in self.ops if op.sub not in self.aborted]


@dataclass(eq=False)
class Entry:
    """One record of the log: op, subabort, commit, abort or message; `end` is behind it."""

    lsn: int
    end: int
    kind: str
    txn: Txn | None
    op: Op | None = None
    sub: int = 0


@dataclass
class Slot:
    """The replication slot; it delivers what commits from `point` on, once it is `ready`."""

    name: str
    point: int
    confirmed: int
    reader: object | None = None
    ready: bool = True


class Database:
    """See the module's text. The application's side calls it without a process: no steps."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lsn = 1000
        self.xid = 700
        self.log: list[Entry] = []
        self.tables: dict[int, dict[int, Row]] = {oid: {} for oid in TABLES}
        self.running: dict[int, Txn] = {}
        self.slot: Slot | None = None
        self.publications: list[str] = []
        self.logged: Callable[[Txn], None] = lambda _: None
        self.confirming: Callable[[int], None] = lambda _: None
        self.connections: list[object] = []

    # The application

    def begin(self) -> Txn:
        self.xid += 1
        txn = Txn(self.xid, sub=self.xid, first_at=len(self.log))
        self.running[txn.xid] = txn
        return txn

    def _append(self, kind: str, txn: Txn | None, op: Op | None = None, sub: int = 0) -> Entry:
        start = self.lsn
        self.lsn += 8
        entry = Entry(start, self.lsn, kind, txn, op, sub)
        self.log.append(entry)
        return entry

    def write(self, txn: Txn, op: Op) -> None:
        op.sub = txn.sub
        op.lsn = self._append("op", txn, op, txn.sub).lsn
        txn.ops.append(op)
        txn.keys |= {(op.oid, row[0]) for row in (op.old, op.new) if row is not None}
        if op.kind == "T":
            txn.keys.add((op.oid, -1))

    def free(self, txn: Txn, oid: int, key: int) -> bool:
        """Tell whether `txn` would get the lock on a row without waiting."""
        others = [other.keys for other in self.running.values() if other is not txn]
        return not any((oid, key) in keys or (oid, -1) in keys for keys in others)

    def untouched(self, txn: Txn, oid: int) -> bool:
        """Tell whether `txn` alone works on a table."""
        others = [other for other in self.running.values() if other is not txn]
        return not any(oid == place[0] for other in others for place in other.keys)

    def seen_by(self, txn: Txn, oid: int) -> dict[int, Row]:
        """Return a table as `txn` sees it."""
        rows = dict(self.tables[oid])
        _play(rows, [op for op in txn.survivors() if op.oid == oid])
        return rows

    def savepoint(self, txn: Txn) -> None:
        self.xid += 1
        txn.sub = self.xid

    def roll_back_to_savepoint(self, txn: Txn) -> None:
        if txn.sub != txn.xid:
            txn.aborted.add(txn.sub)
            self._append("subabort", txn, sub=txn.sub)
            txn.sub = txn.xid

    def commit(self, txn: Txn, *, visible: bool = True) -> None:
        entry = self._append("commit", txn)
        txn.state, txn.commit_lsn, txn.end_lsn = "logged", entry.lsn, entry.end
        self.logged(txn)
        if visible:
            self.show(txn)

    def abort(self, txn: Txn) -> None:
        self._append("abort", txn)
        txn.state = "aborted"
        del self.running[txn.xid]

    def show(self, txn: Txn) -> None:
        """What `txn` did becomes visible."""
        if txn.state == "logged":
            txn.state = "visible"
            del self.running[txn.xid]
            for oid, rows in self.tables.items():
                _play(rows, [op for op in txn.survivors() if op.oid == oid])

    def show_all(self) -> None:
        for txn in list(self.running.values()):
            self.show(txn)

    def quiet(self, xids: Iterable[int]) -> bool:
        return not any(xid in self.running for xid in xids)

    # What connections ask

    def snapshot(self) -> str:
        running = sorted(self.running)
        oldest = running[0] if running else self.xid + 1
        return f"{oldest}:{self.xid + 1}:{','.join(map(str, running))}"

    def waiting_for_a_standby(self) -> list[int]:
        return [txn.xid for txn in self.running.values() if txn.state == "logged"]

    def emit(self, prefix: str, content: bytes, *, transactional: bool) -> None:
        op = Op("M", content=(prefix, content))
        if transactional:
            txn = self.begin()
            self.write(txn, op)
            self.commit(txn)
        else:
            op.lsn = self.lsn
            self._append("message", None, op)

    def restart_at(self, start: int) -> int:
        """Return where in the log decoding must begin to deliver all commits from `start` on."""
        needed = [
            entry.txn.first_at if entry.txn is not None else place
            for place, entry in enumerate(self.log)
            if entry.end > start
        ]
        return min(needed, default=len(self.log))

    def confirm(self, lsn: int) -> None:
        if self.slot is not None and lsn > self.slot.confirmed:
            self.confirming(lsn)
            self.slot.confirmed = lsn


def _play(rows: dict[int, Row], ops: Iterable[Op]) -> None:
    for op in ops:
        if op.kind == "T":
            rows.clear()
        if op.old is not None:
            rows.pop(op.old[0], None)
        if op.new is not None:
            rows[op.new[0]] = op.new
