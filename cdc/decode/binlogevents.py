"""What an event of the binary log says, as typed values; how it is read is in `binlog.py`."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from cdc.decode.gtid import Gtid, Intervals, MysqlGtid

__all__ = [
    "Event",
    "Format",
    "GtidList",
    "Header",
    "Heartbeat",
    "Ignored",
    "Incident",
    "Payload",
    "PreviousGtids",
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
    """A transaction begins; one `standalone` is a single statement and has no end.

    MySQL does not say, so it is None: then it has an end if its first statement is BEGIN. Nor has
    each of MySQL's an id.

    `xid` names the XA transaction that is `prepared` by this one, or `completed`.
    `alter` is "start", "commit" or "rollback" for the halves of a two-phase ALTER TABLE.
    """

    gtid: Gtid | MysqlGtid | None
    standalone: bool | None
    ddl: bool
    prepared: bool = False
    completed: bool = False
    xid: bytes = b""
    alter: str = ""


class Payload(msgspec.Struct, frozen=True):
    """The events of a whole transaction of MySQL, perhaps compressed from `size` bytes."""

    data: bytes
    compressed: bool
    size: int


class PreviousGtids(msgspec.Struct, frozen=True):
    """The MySQL position a file begins at."""

    gtids: Intervals


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
    `parts`: new rows may have parts of a JSON document only.
    """

    kind: bytes
    number: int
    width: int
    before: bytes
    after: bytes
    data: bytes
    ends: bool
    parts: bool = False


class Incident(msgspec.Struct, frozen=True):
    """The server may have failed to log something."""

    number: int
    message: str


class Heartbeat(msgspec.Struct, frozen=True):
    """Nothing was written since `offset` in `file`; where it is 0, the header's `end`."""

    file: str
    offset: int = 0


class Stopped(msgspec.Struct, frozen=True):
    """The server was shut down; the log goes on in the next file."""


class Ignored(msgspec.Struct, frozen=True):
    """An event that changes nothing, by its name."""

    name: str


Event = (
    Format
    | Rotate
    | Transaction
    | Payload
    | PreviousGtids
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
