"""Where a MariaDB source stands: transactions by their global id, and the place in the log."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Self

import msgspec

from cdc.decode.gtid import Domains, Gtids
from cdc.errors import GapError
from cdc.source import StoredPosition
from schemas.change import Stamp

__all__ = ["AGAIN", "Place", "Position", "PreparedXa"]

AGAIN = "read everything again: `cdc position reset`, or `snapshot: when_needed`"
"""What is left where nothing can be gone on from."""

_KIND = "mariadb"


class Place(NamedTuple):
    """An offset in a file of the binary log; files are counted in their names' last part."""

    file: str
    offset: int

    def covers(self, other: Place) -> bool:
        """Tell whether everything before `other` lies before this place."""
        return (_count(self.file), self.offset) >= (_count(other.file), other.offset)

    def passed(self, size: int, written: int) -> Place:
        """Return the place behind an event of `size` bytes, whose header says it is `written`.

        That has 32 bits, and a transaction may pass them.
        """
        known = self.offset + size
        return Place(self.file, known if known & 0xFFFFFFFF == written else written)


def _count(file: str) -> int:
    tail = file.rpartition(".")[2]
    return int(tail) if tail.isdigit() else 0


class PreparedXa(msgspec.Struct, frozen=True):
    """An XA transaction that is prepared and has not ended: the log has its rows as `gtid`.

    `behind` is what `Gtids.noted` keeps of the position it follows. `xid` is what XA COMMIT takes.
    """

    xid: str
    gtid: str
    behind: str


class Position(StoredPosition, frozen=True):
    """Transactions 1 to `complete` were delivered whole, and `ordinal` rows of number `commit`.

    Transactions are counted from the source's first start on, in the order of the log: the count
    is their stamp (R1), because a place in the log says nothing on another server, and global ids
    are ordered within their domain alone. `gtid` is the position behind number `complete`; the
    log of server `server` had come to `offset` of `file` then. `prepared` are what it had open.
    """

    system_name: ClassVar[str] = "MariaDB"

    incarnation: int
    gtid: str
    server: int
    file: str
    offset: int
    commit: int = 0
    ordinal: int = 0
    complete: int = 0
    kind: str = _KIND
    prepared: tuple[PreparedXa, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a position that is none; what is decoded says so as a wrong type would."""
        self.gtids()

    def gtids(self) -> Gtids:
        """Return what `gtid` says. Raises `ValueError`."""
        return Domains.parse(self.gtid)

    def covers(self, other: Self) -> bool:
        """Tell whether everything up to `other` lies at or before this position."""
        if self.incarnation != other.incarnation:
            return self.incarnation > other.incarnation
        further = (self.commit, self.ordinal) >= (other.commit, other.ordinal)
        return further and self.complete >= other.complete

    def moved(self, server: int | str) -> Self:
        """Return this on another server of the same topology: files and offsets are its own.

        Raises `errors.GapError` inside a transaction, whose events are cut differently there.
        """
        if self.commit != self.complete:
            raise GapError(
                f"this is server {server}, and the position lies inside a transaction of server "
                f"{self.server}",
                hint=AGAIN,
            )
        return msgspec.structs.replace(self, server=server, file="", offset=0)

    @property
    def place(self) -> Place:
        """Where the log stood."""
        return Place(self.file, self.offset)

    @property
    def boundary(self) -> Stamp:
        """The newest stamp at or before which every transaction is complete (R12).

        Rows of a snapshot follow their transaction, so all its ordinals lie before it.
        """
        return Stamp(self.incarnation, self.complete)
