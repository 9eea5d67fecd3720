"""Other sessions of the same sink that hold what we need and do nothing: they are ended (R4).

A frozen worker would hold its locks for ever; one that is merely slow learns from the cursors that
it was passed. All sessions of a sink have one application name, and one role.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
import structlog

from cdc.connections.postgres import Login, connect
from cdc.errors import TargetUnavailable

__all__ = ["LOCK_S", "Rivals"]

Connection = psycopg.Connection[Any]

LOCK_S = 5
"""Seconds a lock is waited for, and a session may hold one and say nothing."""

_FROZEN_S = 30
_OPEN: LiteralString = "xact_start < now() - make_interval(secs => %(seconds)s)"
_SILENT: LiteralString = (
    "state = 'idle in transaction' AND state_change < now() - make_interval(secs => %(seconds)s)"
)
_RESERVING: LiteralString = (
    "state <> 'active' AND state_change < now() - make_interval(secs => %(seconds)s) "
    "AND pid IN (SELECT l.pid FROM pg_locks l "
    "WHERE l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted)"
)
_END: LiteralString = (
    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
    "application_name = %(application)s AND usename = current_user AND pid <> %(me)s AND "
)
_log = structlog.get_logger(__name__)


class Rivals:
    """The other sessions that are called as ours are."""

    def __init__(self, login: Login) -> None:
        self._login = login

    @contextmanager
    def patience(self, connection: Connection) -> Iterator[None]:
        """End whoever holds the cursors for too long. Raises `errors.TargetUnavailable` then."""
        try:
            yield
        except psycopg.errors.LockNotAvailable as error:
            with connect(self._login) as other:  # ours has failed with its transaction
                self._end(other, _OPEN, LOCK_S, connection.info.backend_pid)
            raise TargetUnavailable(
                f"another worker of {self._login.application} held the cursors for {LOCK_S} s",
                hint="Its connection was ended, because a frozen worker would hold them for ever.",
            ) from error

    def end_silent(self, connection: Connection) -> None:
        """End those that hold locks and say nothing.

        Nobody waits for those locks at a barrier, so no time-out would find them.
        """
        self._end(connection, _SILENT, LOCK_S, connection.info.backend_pid)

    def end_reserving(self, connection: Connection) -> None:
        """End one that has had the sink for itself and has said nothing for long."""
        self._end(connection, _RESERVING, _FROZEN_S, connection.info.backend_pid)

    def _end(self, connection: Connection, which: LiteralString, seconds: int, me: int) -> None:
        values = {"application": self._login.application, "seconds": seconds, "me": me}
        ended = connection.execute(_END + which, values).fetchall()
        if ended:
            _log.warning("ended a worker that was frozen", pids=[row[0] for row in ended])
