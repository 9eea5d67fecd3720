"""What an event of the binary log says, as typed values; how it is read is in `binlog.py`."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

import msgspec

from cdc.decode.gtid import Gtid

__all__ = [
    "Event",
    "Format",
    "GtidList",
    "Header",
    "Heartbeat",
    "Ignored",
    "Incident",
    "MysqlTransaction",
    "Query",
    "Reader",
    "Rotate",
    "RowsEvent",
    "Stopped",
    "TableEvent",
    "Transaction",
    "XaPrepare",
    "Xid",
]


class Header(NamedTuple):
    """What every event begins with; `end` is the offset behind it, 0 for one never written.

    `seconds` is the time of the statement, since 1970 UTC. `end` has 32 bits and wraps.
    """

    seconds: int
    kind: int
    server: int
    size: int
    end: int
    flags: int


class Format(msgspec.Struct, frozen=True):
    """The first event of a file: who wrote it, and whether events carry a checksum."""

    server: str
    checksum: bool


class Rotate(msgspec.Struct, frozen=True):
    """The log goes on in `file` at `offset`."""

    file: str
    offset: int


class Transaction(msgspec.Struct, frozen=True):
    """A MariaDB transaction begins; one `standalone` is a single statement and has no end.

    `xid` names the XA transaction that is `prepared` by this one, or `completed`.
    `alter` is "start", "commit" or "rollback" for the halves of a two-phase ALTER TABLE.
    """

    gtid: Gtid
    standalone: bool
    ddl: bool
    prepared: bool = False
    completed: bool = False
    xid: bytes = b""
    alter: str = ""


class MysqlTransaction(msgspec.Struct, frozen=True):
    """A MySQL transaction begins; `server` is None when it has no global id."""

    server: UUID | None
    number: int


class GtidList(msgspec.Struct, frozen=True):
    """The MariaDB position a file begins at."""

    last: tuple[Gtid, ...]


class Query(msgspec.Struct, frozen=True):
    """A statement, in the character set its session had; `error` is what it ended with."""

    database: str
    text: str
    error: int


class Xid(msgspec.Struct, frozen=True):
    """The transaction has committed."""

    number: int


class XaPrepare(msgspec.Struct, frozen=True):
    """The XA transaction `xid` is prepared, or has committed in one phase."""

    xid: bytes
    one_phase: bool


class TableEvent(msgspec.Struct, frozen=True):
    """The shape of the rows that follow under `number`, still as bytes."""

    number: int
    body: bytes


class RowsEvent(msgspec.Struct, frozen=True):
    """Rows of one table; `kind` is b"I", b"U" or b"D".

    `before` and `after` are bitmaps of the columns an image has; `ends` closes its statement.
    """

    kind: bytes
    number: int
    width: int
    before: bytes
    after: bytes
    data: bytes
    ends: bool


class Incident(msgspec.Struct, frozen=True):
    """The server may have failed to log something."""

    number: int
    message: str


class Heartbeat(msgspec.Struct, frozen=True):
    """Nothing was written since the header's `end` in `file`."""

    file: str


class Stopped(msgspec.Struct, frozen=True):
    """The server was shut down; the log goes on in the next file."""


class Ignored(msgspec.Struct, frozen=True):
    """An event that changes nothing, by its name."""

    name: str


Event = (
    Format
    | Rotate
    | Transaction
    | MysqlTransaction
    | GtidList
    | Query
    | Xid
    | XaPrepare
    | TableEvent
    | RowsEvent
    | Incident
    | Heartbeat
    | Stopped
    | Ignored
)


class Reader:
    """A cursor over bytes. Raises `ValueError` when it is asked for more than there is."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    @property
    def left(self) -> int:
        """How many bytes follow."""
        return len(self._data) - self.at

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        end = self.at + size
        if end > len(self._data):
            raise ValueError(f"{size} bytes wanted at byte {self.at} of {len(self._data)}")
        found = self._data[self.at : end]
        self.at = end
        return found

    def number(self, size: int) -> int:
        """Return a little-endian number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def packed(self) -> int:
        """Return a length-encoded integer."""
        first = self.number(1)
        if first < 0xFB:
            return first
        if first not in _PACKED:
            raise ValueError(f"{first:#x} at byte {self.at - 1} begins no length")
        return self.number(_PACKED[first])

    def name(self) -> str:
        """Return a text of one length byte, closed by a zero byte."""
        found = self.take(self.number(1)).decode()
        if self.take(1) != b"\0":
            raise ValueError(f"a name at byte {self.at} has no end")
        return found

    def rest(self) -> bytes:
        """Return all that follows."""
        return self.take(self.left)


_PACKED = {0xFC: 2, 0xFD: 3, 0xFE: 8}
