"""The log's messages → runs of raw rows with their place in the log. No I/O, no waiting.

    feed(messages) ─▶ Begin ─ rows ─ Commit           committed: rows leave as they come
                   ─▶ Stream Start ─ rows ─ Stop …    in progress: spilled until Stream Commit,
                                                       then read back as Begin ─ rows ─ Commit

Why the stamps are the same each time (R1): a Begin is sent only for a transaction that has
committed, with the LSN of its commit record; ordinals count the rows, truncated tables and
messages that survive its aborted savepoints, and so do not depend on whether it was streamed.
Ordinal 0 is no row's: it is the truncation put in front of a table that was made anew.

The loop in `_run` is the hot path: of a row it looks at the kind and the relation id, and at one
more byte that tells an update of the key. Everything else happens once per run of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from cdc.decode import pgoutput
from cdc.decode.lsn import format_lsn
from cdc.errors import UnknownEvent
from cdc.postgres.position import Position
from cdc.postgres.relations import Relations, Turn
from cdc.postgres.spill import HEADER, Budget, Spill, replayed
from schemas.change import Change, Form, Op, Origin, Rows
from schemas.table import TableId, TableSchema

__all__ = ["MESSAGES", "PREFIX", "Events", "Transactions"]

PREFIX = "tailrace"
"""The prefix of our own logical messages: watermarks and heartbeats."""

MESSAGES = TableSchema(TableId("", "message"), ())
"""The pseudo table of logical messages that are not ours."""

_KEY_TUPLE = 0x4B
_ROWS = frozenset((b"I", b"U", b"D"))
_ALL = 1 << 62
_KEEPALIVE_END = slice(1, 9)


class Events(Protocol):
    """Who must hear what goes by, in the order of the log, at commit."""

    def turned(self, turn: Turn) -> None:
        """A table has another shape from here on."""
        ...

    def passing(self, rows: Rows, xid: int) -> Sequence[Rows]:
        """A run of rows of one table is about to leave; return what leaves instead."""
        ...

    def rekeyed(self, rows: Rows, xid: int) -> Sequence[Rows]:
        """A run holds an update of a key; return it with no unchanged value left out (R6)."""
        ...

    def marked(self, content: bytes, commit: Origin) -> Sequence[Rows]:
        """One of our own messages has committed; return the rows that belong at its place."""
        ...

    def committed(self, xid: int) -> None:
        """A transaction was delivered whole."""
        ...


class _Open(msgspec.Struct):
    """The transaction whose rows are leaving. Rows up to ordinal `skip` left in an earlier life."""

    origin: Origin
    xid: int
    skip: int
    ordinal: int = 0
    marks: list[bytes] = []


class Transactions:
    """See the module's text. `rows` and `position` are taken by the source after each `advance`."""

    def __init__(
        self, position: Position, relations: Relations, events: Events, budget: Budget
    ) -> None:
        self.position = position
        self.rows: list[Rows] = []
        self._relations = relations
        self._events = events
        self._budget = budget
        self._stored = position
        self._input: list[Iterator[list[bytes]]] = []
        self._open: _Open | None = None
        self._streaming: int | None = None
        self._spills: dict[int, Spill] = {}
        self._replaying: Spill | None = None
        self._run_of: bytes = b""
        self._schema: TableSchema | None = None
        self._items: list[bytes] = []
        self._rekeyed = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            pgoutput.Begin: self._begin,
            pgoutput.Commit: self._commit,
            pgoutput.Relation: self._relation,
            pgoutput.Truncate: self._truncate,
            pgoutput.LogicalMessage: self._logical,
            pgoutput.StreamStart: self._stream_start,
            pgoutput.StreamStop: self._stream_stop,
            pgoutput.StreamAbort: self._stream_abort,
        }

    @property
    def busy(self) -> bool:
        """Tell whether messages were fed that `advance` has not worked through."""
        return bool(self._input)

    @property
    def between(self) -> bool:
        """Tell whether everything fed so far belongs to whole transactions."""
        return self._open is None and not self._input

    def feed(self, messages: list[bytes]) -> None:
        """Work through `messages`, or begin to: see `busy`.

        Raises `errors.UnknownEvent` for what cannot be read.
        """
        self._run(messages)

    def advance(self) -> bool:
        """Go on with what was fed, a bounded piece of it; tell whether anything was left."""
        while self._input:
            messages = next(self._input[-1], None)
            if messages is not None:
                self._run(messages)
                return True
            self._input.pop()
        return False

    def take(self) -> list[Rows]:
        """Hand over the rows collected so far; `position` lies behind the last of them."""
        rows, self.rows = self.rows, []
        return rows

    def close(self) -> None:
        """Let go of what waits."""
        for spill in (*self._spills.values(), self._replaying):
            if spill is not None:
                spill.close()
        self._spills.clear()

    def _run(self, messages: list[bytes]) -> None:
        items, current, fast = self._items, self._run_of, self._is_fast()
        for index, data in enumerate(messages):
            kind = data[25:26]
            if fast and kind in _ROWS:
                if data[26:30] != current:
                    self._switch(data[26:30])
                    items, current = self._items, self._run_of
                if data[30] == _KEY_TUPLE and kind == b"U":
                    self._rekeyed = True
                items.append(kind + data[30:])
                continue
            if not self._control(kind, data):
                self._input.insert(len(self._input) - 1, iter([messages[index + 1 :]]))
                break
            items, current, fast = self._items, self._run_of, self._is_fast()
        self._flush()

    def _is_fast(self) -> bool:
        """Rows may leave without a further look: committed, and not delivered before."""
        return self._streaming is None and self._open is not None and self._open.skip == 0

    def _control(self, kind: bytes, data: bytes) -> bool:
        """Handle anything but a plain row; False when a streamed transaction comes next."""
        if not kind:
            self._keepalive(data)
        elif self._streaming is not None and kind not in b"EO":
            cut = kind + data[30:]
            self._spills[self._streaming].add(int.from_bytes(data[26:30], "big"), cut)
        elif kind in _ROWS:
            self._pass_over()
        else:
            self._flush()
            return self._message(self._decode(data))
        return True

    def _decode(self, data: bytes) -> pgoutput.Message:
        try:
            return pgoutput.decode(data[len(HEADER) :])
        except ValueError as error:
            place = format_lsn(int.from_bytes(data[1:9], "big"))
            raise UnknownEvent(
                f"a message at {place} cannot be read: {error}",
                hint="this version does not know what the server sends; look for a newer one",
            ) from error

    def _message(self, message: pgoutput.Message) -> bool:
        if isinstance(message, pgoutput.StreamCommit):
            self._replay(message)
            return False
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(message)
        return True

    def _keepalive(self, data: bytes) -> None:
        if self._open is None and self._streaming is None:
            self._complete(0, int.from_bytes(data[_KEEPALIVE_END], "big"))

    def _complete(self, commit: int, lsn: int) -> None:
        """All that commits at or before `commit`, and before `lsn`, was delivered whole."""
        now = self.position
        if commit > now.complete or lsn > now.confirmed_lsn:
            self.position = msgspec.structs.replace(
                now,
                complete=max(now.complete, commit),
                confirmed_lsn=max(now.confirmed_lsn, lsn),
            )

    def _begin(self, message: pgoutput.Begin) -> None:
        stored = self._stored
        skip = 0
        if message.commit_lsn < stored.commit:
            skip = _ALL
        elif message.commit_lsn == stored.commit:
            skip = stored.ordinal
        incarnation, xid = stored.incarnation, message.xid
        origin = Origin(incarnation, message.commit_lsn, message.commit_us, str(xid))
        self._open = _Open(origin, xid, skip, marks=[])

    def _commit(self, message: pgoutput.Commit) -> None:
        transaction = self._transaction()
        self._open = None
        for content in transaction.marks:
            self._mark(content, transaction)
        self._reach(message.commit_lsn, transaction.ordinal)
        self._complete(message.commit_lsn, message.end_lsn)
        self._events.committed(transaction.xid)

    def _mark(self, content: bytes, transaction: _Open) -> None:
        for rows in self._events.marked(content, transaction.origin):
            transaction.ordinal = max(transaction.ordinal, rows.ordinals[-1])
            self.rows.append(rows)

    def _transaction(self) -> _Open:
        if self._open is None:
            raise UnknownEvent("a row or Commit came outside a transaction")
        return self._open

    def _switch(self, relation: bytes) -> None:
        """Begin a run of another table."""
        self._flush()
        oid = int.from_bytes(relation, "big")
        schema = self._relations.schema(oid)
        if schema is None:
            raise UnknownEvent(f"a row of relation {oid} came before its Relation message")
        self._run_of, self._schema = relation, schema

    def _pass_over(self) -> None:
        """Pass over a row that left in an earlier life, until the last of them."""
        transaction = self._transaction()
        transaction.ordinal += 1
        if transaction.ordinal >= transaction.skip:
            transaction.skip = 0

    def _flush(self) -> None:
        """Close the run: its rows leave, its ordinals are given."""
        items, schema = self._items, self._schema
        self._run_of, self._schema, self._items = b"", None, []
        rekeyed, self._rekeyed = self._rekeyed, False
        if items and schema is not None:
            self._leave(schema, items, rekeyed=rekeyed)

    def _leave(self, schema: TableSchema, items: list[Any], *, rekeyed: bool = False) -> None:
        transaction = self._transaction()
        first = transaction.ordinal + 1
        transaction.ordinal += len(items)
        form: Form = "pgoutput" if isinstance(items[0], bytes) else "changes"
        ordinals = range(first, first + len(items))
        rows = Rows(schema, form, transaction.origin, items, ordinals)
        passing = [rows] if not rekeyed else self._events.rekeyed(rows, transaction.xid)
        for part in passing:
            self.rows.extend(self._events.passing(part, transaction.xid))
        self._reach(transaction.origin.commit, transaction.ordinal)

    def _reach(self, commit: int, ordinal: int) -> None:
        now = self.position
        if (commit, ordinal) > (now.commit, now.ordinal):
            self.position = msgspec.structs.replace(now, commit=commit, ordinal=ordinal)

    def _relation(self, message: pgoutput.Relation) -> None:
        transaction = self._transaction()
        if transaction.skip:  # what it means was stored with the rows that left
            self._relations.enforce(message)
            return
        turn = self._relations.take(message)
        schema = self._relations.schema(message.oid)
        if turn.recreated and schema is not None:
            emptied = Rows(schema, "pgoutput", transaction.origin, [b"T"], (0,))
            self.rows.extend(self._events.passing(emptied, transaction.xid))
        self._events.turned(turn)

    def _truncate(self, message: pgoutput.Truncate) -> None:
        for oid in message.oids:
            self._single(oid, b"T")

    def _single(self, oid: int, item: bytes | Change) -> None:
        """Let one item leave that is no row, or pass over it."""
        transaction = self._transaction()
        if transaction.skip:
            self._pass_over()
            return
        schema = MESSAGES if isinstance(item, Change) else self._relations.schema(oid)
        if schema is None:
            raise UnknownEvent(f"a truncation of relation {oid} came before its Relation message")
        self._leave(schema, [item])

    def _logical(self, message: pgoutput.LogicalMessage) -> None:
        content = (message.prefix, message.content)
        if message.transactional:
            if message.prefix == PREFIX and self._transaction().skip == 0:
                self._transaction().marks.append(message.content)
            elif message.prefix != PREFIX:
                self._single(0, Change(Op.MESSAGE, message=content))
        elif message.prefix != PREFIX and message.lsn > self.position.commit:
            self._open = _Open(Origin(self._stored.incarnation, message.lsn, 0), 0, 0)
            self._single(0, Change(Op.MESSAGE, message=content))
            self._open = None
            self._complete(message.lsn, 0)

    def _stream_start(self, message: pgoutput.StreamStart) -> None:
        self._streaming = message.xid
        if message.xid not in self._spills:
            self._spills[message.xid] = Spill(self._budget)

    def _stream_stop(self, _: pgoutput.StreamStop) -> None:
        self._streaming = None

    def _stream_abort(self, message: pgoutput.StreamAbort) -> None:
        spill = self._spills.get(message.xid)
        if spill is None:
            # PostgreSQL 18 passes over a transaction that was aborted before it could be streamed,
            # but still tells of the end of its savepoints (measured): nothing of it is here.
            return
        if message.subxid != message.xid:
            spill.abort(message.subxid)
        else:
            del self._spills[message.xid]
            spill.close()

    def _spilled(self, xid: int) -> Spill:
        if xid not in self._spills:
            raise UnknownEvent(f"transaction {xid} ends without ever having been streamed")
        return self._spills[xid]

    def _replay(self, message: pgoutput.StreamCommit) -> None:
        spill = self._spilled(message.xid)
        del self._spills[message.xid]
        self._replaying = spill
        self._input.append(replayed(message, spill))
