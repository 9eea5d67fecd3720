"""Who has a sink for itself: a named lock of the server, which dies with its holder's connection.

    reserve   GET_LOCK ─▶ X on the sink's row: waits until who applies now has ended
    apply     S on the sink's row ─▶ is the named lock somebody else's? then not now

Whoever got its row lock before the reservation is waited for, whoever gets it later sees the name.
"""

from __future__ import annotations

from hashlib import sha256

import structlog

from cdc.connections.mariadb import Connection, fetch
from cdc.connector import Context
from cdc.errors import TargetUnavailable
from sinks.mariadb.cursors import has, table_options
from sinks.mariadb.dialect import LOCK_S, Dialect
from sinks.mariadb.transactions import rolled_back

__all__ = ["Reservation"]

_log = structlog.get_logger(__name__)

_FROZEN_S = 30

_CREATE = """
CREATE TABLE IF NOT EXISTS tailrace_sinks (
    pipeline VARCHAR(200), sink VARCHAR(200), PRIMARY KEY (pipeline, sink))
"""
_ROW = "SELECT 1 FROM tailrace_sinks WHERE pipeline = %s AND sink = %s"
_RESERVED = (
    "another worker applies the partitions of all, since rows of several waited for one another"
)


class Reservation:
    """The lock of one sink, as one worker of it sees it."""

    def __init__(self, context: Context, dialect: Dialect) -> None:
        self._owner = (context.pipeline, context.name)
        self._dialect = dialect
        self._name = ""
        self._held = False

    def create(self, connection: Connection) -> None:
        """Make the table and the sink's row where they are missing."""
        if not has(connection, "tailrace_sinks"):
            connection.query(f"{_CREATE} {table_options(self._dialect)}")
        if not fetch(connection, _ROW, self._owner):
            fetch(connection, "INSERT IGNORE INTO tailrace_sinks VALUES (%s, %s)", self._owner)
        [(database,)] = fetch(connection, "SELECT DATABASE()")
        # A name has 64 characters at most, and is one for all databases of the server.
        whole = "/".join((database, *self._owner)).encode()
        self._name = f"tailrace/{sha256(whole).hexdigest()[:40]}"

    def take(self, connection: Connection) -> None:
        """Have the sink alone. Raises `errors.TargetUnavailable` when another worker has it."""
        if fetch(connection, "SELECT GET_LOCK(%s, %s)", (self._name, LOCK_S)) != [(1,)]:
            raise TargetUnavailable(_RESERVED)
        self._held = True
        with rolled_back(connection, self._dialect):
            fetch(connection, f"{_ROW} FOR UPDATE", self._owner)

    def respect(self, connection: Connection) -> None:
        """Keep the sink from being reserved until the transaction ends; raises as `take`."""
        fetch(connection, f"{_ROW} LOCK IN SHARE MODE", self._owner)
        [(holder,)] = fetch(
            connection, "SELECT NULLIF(IS_USED_LOCK(%s), CONNECTION_ID())", (self._name,)
        )
        if holder is None:
            return
        # One that is frozen does not hold the sink for long.
        if _is_frozen(connection, holder):
            fetch(connection, "KILL %s", (holder,))
            _log.warning("ended a worker that was frozen", connection=holder)
        raise TargetUnavailable(_RESERVED, hint="It goes on by itself.")

    def release(self, connection: Connection) -> None:
        """Let the others apply again, without waiting until the connection has ended."""
        held, self._held = self._held, False
        if held and connection.open:
            fetch(connection, "SELECT RELEASE_LOCK(%s)", (self._name,))

    def forget(self, connection: Connection) -> None:
        """Delete the sink's row."""
        if has(connection, "tailrace_sinks"):
            query = "DELETE FROM tailrace_sinks WHERE pipeline = %s AND sink = %s"
            fetch(connection, query, self._owner)


def _is_frozen(connection: Connection, holder: int) -> bool:
    """Tell whether a connection has asked for nothing for long; ours are seen without a right."""
    return any(
        number == holder and command == "Sleep" and seconds > _FROZEN_S
        for number, _, _, _, command, seconds, *_ in fetch(connection, "SHOW PROCESSLIST")
    )
