"""Where a Postgres source stands: the place in the log, and the server and slot it belongs to."""

from __future__ import annotations

from typing import ClassVar, Self

from cdc.source import StoredPosition
from schemas.change import Stamp

__all__ = ["Position"]


class Position(StoredPosition, frozen=True):
    """Everything up to (incarnation, commit, ordinal) was delivered.

    `complete` is the commit LSN of the newest transaction that was delivered whole.

    `confirmed_lsn` is what the slot may be told: every transaction that commits before it was
    delivered whole. It is stored because a commit's end LSN can equal the next transaction's
    commit LSN, so it cannot be computed from `commit` (R1, R2). While `creating` is true the slot
    may or may not exist, and nothing was delivered (R3).
    """

    system_name: ClassVar[str] = "Postgres"

    incarnation: int
    slot: str
    system: str
    timeline: int
    commit: int = 0
    ordinal: int = 0
    complete: int = 0
    confirmed_lsn: int = 0
    creating: bool = False

    def covers(self, other: Self) -> bool:
        """Tell whether everything up to `other` lies at or before this position."""
        mine = (self.incarnation, self.commit, self.ordinal, self.confirmed_lsn)
        return mine >= (other.incarnation, other.commit, other.ordinal, other.confirmed_lsn)

    @property
    def boundary(self) -> Stamp:
        """The newest stamp at or before which every transaction is complete (R12)."""
        return Stamp(self.incarnation, self.complete)
