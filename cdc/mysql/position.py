"""Where a MySQL source stands: the set of transactions it has, and the place in the log."""

from __future__ import annotations

from typing import ClassVar

from cdc.decode.gtid import Gtids, Intervals
from cdc.mariadb import position

__all__ = ["Position"]

_KIND = "mysql"


class Position(position.Position, frozen=True):
    """As MariaDB's; `gtid` is a set by server uuid and tag, `server` the uuid of the log's server.

    The place is empty where it was not known for sure.
    """

    system_name: ClassVar[str] = "MySQL"

    server: str  # type: ignore[assignment] # a number there, a uuid here
    kind: str = _KIND

    def gtids(self) -> Gtids:
        """Return what `gtid` says. Raises `ValueError`."""
        return Intervals.parse(self.gtid)
