"""Where a Postgres source stands: the place in the log, and the server and slot it belongs to."""

from __future__ import annotations

from typing import Any, Self

import msgspec

from cdc.errors import StateError
from schemas.change import Stamp

__all__ = ["Position"]

_VERSION = 1


class Position(msgspec.Struct, frozen=True):
    """Everything up to (incarnation, commit, ordinal) was delivered.

    `complete` is the commit LSN of the newest transaction that was delivered whole.

    `confirmed_lsn` is what the slot may be told: every transaction that commits before it was
    delivered whole. It is stored because a commit's end LSN can equal the next transaction's
    commit LSN, so it cannot be computed from `commit` (R1, R2). While `creating` is true the slot
    may or may not exist, and nothing was delivered (R3).
    """

    incarnation: int
    slot: str
    system: str
    timeline: int
    commit: int = 0
    ordinal: int = 0
    complete: int = 0
    confirmed_lsn: int = 0
    creating: bool = False

    def encode(self) -> dict[str, Any]:
        """Return a JSON object with `"version": 1`."""
        return {"version": _VERSION, **msgspec.to_builtins(self)}

    @classmethod
    def decode(cls, value: dict[str, Any]) -> Self:
        """Return what `encode` was given. Raises `errors.StateError` for anything else."""
        version = value.get("version")
        if version != _VERSION:
            raise StateError(
                f"the stored position has version {version}, this program reads {_VERSION}",
                hint="upgrade the worker, or look at it with `cdc position show`",
            )
        fields = {name: part for name, part in value.items() if name != "version"}
        try:
            return msgspec.convert(fields, cls)
        except msgspec.ValidationError as error:
            raise StateError(
                f"the stored position is not one of a Postgres source: {error}",
                hint="look at it with `cdc position show`, replace it with `cdc position set`",
            ) from error

    def covers(self, other: Self) -> bool:
        """Tell whether everything up to `other` lies at or before this position."""
        mine = (self.incarnation, self.commit, self.ordinal, self.confirmed_lsn)
        return mine >= (other.incarnation, other.commit, other.ordinal, other.confirmed_lsn)

    @property
    def boundary(self) -> Stamp:
        """The newest stamp at or before which every transaction is complete (R12)."""
        return Stamp(self.incarnation, self.complete)
