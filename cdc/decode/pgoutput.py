"""pgoutput's messages but for rows: bytes in, typed messages out, no I/O.

Rows (Insert, Update, Delete) stay bytes, see `schemas/forms.py`: nothing but their kind and
relation is looked at here. Inside a streamed transaction every message but the Stream ones
themselves carries the xid of its subtransaction behind the kind byte; `decode` is told so.

Source: PostgreSQL 18 manual, "Logical Replication Message Formats", protocol version 2.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from schemas.table import TableId

__all__ = [
    "EPOCH_US",
    "Begin",
    "Commit",
    "LogicalMessage",
    "Message",
    "Origin",
    "Relation",
    "RelationColumn",
    "StreamAbort",
    "StreamCommit",
    "StreamStart",
    "StreamStop",
    "Truncate",
    "TypeName",
    "decode",
]

EPOCH_US = 946_684_800_000_000
"""2000-01-01, from which PostgreSQL counts microseconds, in microseconds since 1970."""


class Begin(msgspec.Struct, frozen=True):
    """The start of a committed transaction. `commit_lsn` is where its commit record starts."""

    commit_lsn: int
    commit_us: int
    xid: int


class Commit(msgspec.Struct, frozen=True):
    """The end of a transaction. `end_lsn` lies behind the commit record."""

    commit_lsn: int
    end_lsn: int
    commit_us: int


class RelationColumn(msgspec.Struct, frozen=True):
    """A column as the log knows it; `identity` says that it is part of the replica identity."""

    name: str
    oid: int
    typmod: int
    identity: bool


class Relation(msgspec.Struct, frozen=True):
    """The shape of a table from here on. `identity` is pg_class.relreplident: d, n, f or i."""

    oid: int
    table: TableId
    identity: str
    columns: tuple[RelationColumn, ...]


class TypeName(msgspec.Struct, frozen=True):
    """The name of a type that is not built in, sent before the first Relation that uses it."""

    oid: int
    schema: str
    name: str


class Origin(msgspec.Struct, frozen=True):
    """Where a transaction was first committed, when it came in by replication."""

    lsn: int
    name: str


class Truncate(msgspec.Struct, frozen=True):
    """The published tables that one TRUNCATE emptied, those it cascaded to among them."""

    oids: tuple[int, ...]


class LogicalMessage(msgspec.Struct, frozen=True):
    """What `pg_logical_emit_message` wrote; `lsn` is where its record starts."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


class StreamStart(msgspec.Struct, frozen=True):
    """A piece of a transaction still in progress begins; `first` is true for its first piece."""

    xid: int
    first: bool


class StreamStop(msgspec.Struct, frozen=True):
    """The piece ends."""


class StreamCommit(msgspec.Struct, frozen=True):
    """The streamed transaction `xid` has committed."""

    xid: int
    commit_lsn: int
    end_lsn: int
    commit_us: int


class StreamAbort(msgspec.Struct, frozen=True):
    """The subtransaction `subxid` of `xid` was rolled back; all of it when both are equal."""

    xid: int
    subxid: int


Message = (
    Begin
    | Commit
    | Relation
    | TypeName
    | Origin
    | Truncate
    | LogicalMessage
    | StreamStart
    | StreamStop
    | StreamCommit
    | StreamAbort
)


class _Reader:
    """A cursor over one message. Raises `ValueError` when it is asked for more than there is."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise ValueError(f"{size} bytes wanted at {self._at} of {len(self._data)}")
        found = self._data[self._at : end]
        self._at = end
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def signed(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big", signed=True)

    def moment(self) -> int:
        return self.signed(8) + EPOCH_US

    def text(self) -> str:
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise ValueError(f"a text at byte {self._at} has no end")
        return self.take(end + 1 - self._at)[:-1].decode()

    def finish(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"{len(self._data) - self._at} bytes too many")


def _begin(reader: _Reader) -> Begin:
    return Begin(reader.number(8), reader.moment(), reader.number(4))


def _commit(reader: _Reader) -> Commit:
    reader.take(1)
    return Commit(reader.number(8), reader.number(8), reader.moment())


def _column(reader: _Reader) -> RelationColumn:
    identity = bool(reader.number(1) & 1)
    return RelationColumn(reader.text(), reader.number(4), reader.signed(4), identity)


def _relation(reader: _Reader) -> Relation:
    oid = reader.number(4)
    # pg_catalog is sent as an empty name; its tables cannot be published, so nothing to restore.
    table = TableId(reader.text(), reader.text())
    identity = reader.take(1).decode("ascii")
    columns = tuple(_column(reader) for _ in range(reader.number(2)))
    return Relation(oid, table, identity, columns)


def _type_name(reader: _Reader) -> TypeName:
    return TypeName(reader.number(4), reader.text() or "pg_catalog", reader.text())


def _origin(reader: _Reader) -> Origin:
    return Origin(reader.number(8), reader.text())


def _truncate(reader: _Reader) -> Truncate:
    count = reader.number(4)
    reader.take(1)
    return Truncate(tuple(reader.number(4) for _ in range(count)))


def _logical_message(reader: _Reader) -> LogicalMessage:
    transactional = bool(reader.number(1) & 1)
    lsn, prefix = reader.number(8), reader.text()
    return LogicalMessage(transactional, lsn, prefix, reader.take(reader.number(4)))


def _stream_start(reader: _Reader) -> StreamStart:
    return StreamStart(reader.number(4), bool(reader.number(1)))


def _stream_stop(_: _Reader) -> StreamStop:
    return StreamStop()


def _stream_commit(reader: _Reader) -> StreamCommit:
    xid = reader.number(4)
    reader.take(1)
    return StreamCommit(xid, reader.number(8), reader.number(8), reader.moment())


def _stream_abort(reader: _Reader) -> StreamAbort:
    return StreamAbort(reader.number(4), reader.number(4))


_DECODERS: dict[bytes, Callable[[_Reader], Message]] = {
    b"B": _begin,
    b"C": _commit,
    b"R": _relation,
    b"Y": _type_name,
    b"O": _origin,
    b"T": _truncate,
    b"M": _logical_message,
    b"S": _stream_start,
    b"E": _stream_stop,
    b"c": _stream_commit,
    b"A": _stream_abort,
}
_WITH_XID = b"RYTM"


def decode(data: bytes, *, streamed: bool = False) -> Message:
    """Return the message in `data`, kind byte first; `streamed` between Stream Start and Stop.

    Raises `ValueError` for a kind this version does not know and for bytes of the wrong length.
    """
    kind = data[:1]
    if kind not in _DECODERS:
        raise ValueError(f"message kind {kind!r} is not known")
    reader = _Reader(data, 5 if streamed and kind in _WITH_XID else 1)
    message = _DECODERS[kind](reader)
    reader.finish()
    return message
