"""Making a slot: a request that may wait for transactions older than itself, watched meanwhile.

The server answers when every transaction that was running has ended; one forgotten session can
hold it for hours. So the request is sent without waiting, and `waiting` names the pids (R10).

Source: PostgreSQL 18 manual, "Streaming Replication Protocol", CREATE_REPLICATION_SLOT.
"""

from __future__ import annotations

import select
import time

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn

from cdc.connections.postgres import Login, translate
from cdc.decode.lsn import parse_lsn
from cdc.errors import PreflightFailed, SourceUnavailable
from cdc.postgres.catalog import Catalog
from cdc.postgres.commands import quote, sqlstate

__all__ = ["SlotCreation"]

_LOOK_S = 1.0
_BLOCKERS = """
SELECT CASE WHEN b.pid = 0 THEN 'a prepared transaction (pg_prepared_xacts)'
       ELSE format('pid %%s, xid %%s', b.pid, coalesce(a.backend_xid::text, 'unknown')) END
FROM unnest(pg_blocking_pids(%s)) AS b (pid)
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
"""


class SlotCreation:
    """One CREATE_REPLICATION_SLOT under way."""

    def __init__(self, pgconn: PGconn, catalog: Catalog, login: Login) -> None:
        self._pgconn = pgconn
        self._catalog = catalog
        self._login = login
        self._looked = time.monotonic()
        self.waiting = ""

    def start(self, slot: str, *, failover: bool) -> None:
        """Send the request; `failover` asks for a slot that standbys keep (PostgreSQL 17)."""
        version = self._pgconn.server_version
        if version < 150000:
            options = "NOEXPORT_SNAPSHOT"
        elif version < 170000 or not failover:
            options = "(SNAPSHOT 'nothing')"
        else:
            options = "(SNAPSHOT 'nothing', FAILOVER true)"
        command = f"CREATE_REPLICATION_SLOT {quote(slot)} LOGICAL pgoutput {options}"
        self._pgconn.send_query(command.encode())

    def poll(self, timeout: float) -> int | None:
        """Return the slot's consistent point, an LSN, or None when it is not made yet.

        Raises `errors.PreflightFailed` when the server refuses, naming the reason.
        """
        poll = select.poll()
        poll.register(self._pgconn.socket, select.POLLIN)
        deadline = time.monotonic() + timeout
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            poll.poll(min(left, _LOOK_S) * 1000)
            try:
                self._pgconn.consume_input()
            except psycopg.Error as error:
                raise translate(error, self._login) from error
            if not self._pgconn.is_busy():
                return self._result()
            self._look()
            if time.monotonic() >= deadline:
                return None

    def _look(self) -> None:
        if time.monotonic() - self._looked >= _LOOK_S:
            self._looked = time.monotonic()
            rows = self._catalog.rows(_BLOCKERS, (self._pgconn.backend_pid,))
            names = ", ".join(str(row[0]) for row in rows)
            self.waiting = f"waiting for {names} to finish before the slot can be created"

    def _result(self) -> int:
        result = self._pgconn.get_result()
        if result is None:
            raise SourceUnavailable("the server did not answer CREATE_REPLICATION_SLOT")
        while self._pgconn.get_result() is not None:
            continue
        if result.status == pq.ExecStatus.TUPLES_OK:
            return parse_lsn((result.get_value(0, 1) or b"").decode())
        message, state = result.get_error_message(), sqlstate(result)
        if state[:2] in ("08", "57"):
            raise SourceUnavailable(f"the slot was not created: {message}")
        raise PreflightFailed(
            f"the slot cannot be created: {message}", hint="run `cdc check` for what repairs it"
        )
