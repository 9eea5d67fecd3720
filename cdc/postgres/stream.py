"""The slot's log as it arrives: messages out, feedback back, no idea of what they mean.

    walsender ══ CopyBoth ══▶ pull() ─▶ list of CopyData payloads ('w' XLogData, 'k' keepalive)
              ◀═ 'r' status ═ feedback(received, confirmed)

`pull` takes everything that has arrived before it returns: a reader that wakes for each message
is slower than one with work to do (measured). Feedback goes out on request, on a keepalive that
asks, and every few seconds; it never says more than was confirmed (R2).

Source: PostgreSQL 18 manual, "Streaming Replication Protocol", "Logical Streaming Replication".
"""

from __future__ import annotations

import select
import struct
import time

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn

from cdc.connections.postgres import Login, translate
from cdc.decode.lsn import format_lsn
from cdc.errors import CdcError, GapError, PreflightFailed, SourceUnavailable
from cdc.postgres.commands import literal, quote, sqlstate

__all__ = ["HEADER_BYTES", "Stream"]

HEADER_BYTES = 25
"""XLogData: 'w', start of the data, end of the log, server's clock; then the payload."""

_XLOGDATA, _KEEPALIVE = b"wk"
_STATUS = struct.Struct(">cqqqqb")
_KEEPALIVE_FORM = struct.Struct(">cqqb")
_EPOCH_S = 946_684_800
_FEEDBACK_S = 3.0
_PACE_S = 0.1


class Stream:
    """One running START_REPLICATION. `wal_end` is the end of the log, as the server last said."""

    def __init__(self, pgconn: PGconn, login: Login) -> None:
        self._pgconn = pgconn
        self._login = login
        self._received = 0
        self._confirmed = 0
        self._sent = 0
        self._sent_at = 0.0
        self.wal_end = 0

    def start(self, slot: str, publications: list[str], after: int) -> None:
        """Start at `after`, an LSN. Raises `errors.Stop` or `errors.Unavailable`."""
        names = literal(",".join(map(quote, publications)))
        options = f"proto_version '2', publication_names {names}, messages 'true', streaming 'on'"
        command = f"START_REPLICATION SLOT {quote(slot)} LOGICAL {format_lsn(after)} ({options})"
        result = self._pgconn.exec_(command.encode())
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise self._failed(result.get_error_message(), sqlstate(result))
        self._pgconn.nonblocking = 1
        self._received = self._confirmed = self._sent = after
        self._sent_at = time.monotonic()

    def pull(self, limit: int, max_bytes: int) -> list[bytes]:
        """Return the XLogData that has arrived, at most about `limit` messages or `max_bytes`.

        Never waits. Raises `errors.Unavailable` or `errors.Stop` when the stream has ended.
        """
        get = self._pgconn.get_copy_data
        messages: list[bytes] = []
        size, drained = 0, False
        while len(messages) < limit and size < max_bytes:
            length, view = get(1)
            if length > 0:
                data = bytes(view)
                drained = False
                if data[0] == _XLOGDATA:
                    messages.append(data)
                    size += length
                else:
                    self._keepalive(data, messages)
            elif length < 0:
                raise self._ended(length)
            elif drained:
                break
            else:
                self._consume()
                drained = True
        self._note(messages)
        return messages

    def _note(self, messages: list[bytes]) -> None:
        if messages:
            end = int.from_bytes(messages[-1][9:17], "big")
            self.wal_end = max(self.wal_end, end)
        self.feedback()

    def _keepalive(self, data: bytes, messages: list[bytes]) -> None:
        """Hand a keepalive on in its place: what came before it counts for R2."""
        if data[0] != _KEEPALIVE:
            raise SourceUnavailable(f"the walsender sent {data[:1]!r}")
        _, wal_end, _, reply = _KEEPALIVE_FORM.unpack(data)
        self.wal_end = max(self.wal_end, wal_end)
        messages.append(data)
        if reply:
            self.feedback(now=True)

    def wait(self, timeout: float) -> bool:
        """Wait until something arrives, at most `timeout` seconds; tell whether it did."""
        self.feedback()
        pending = self._pgconn.flush()
        poll = select.poll()
        poll.register(self._pgconn.socket, select.POLLIN | (select.POLLOUT if pending else 0))
        return bool(poll.poll(min(timeout, _FEEDBACK_S) * 1000))

    def confirm(self, lsn: int) -> None:
        """Everything before `lsn` is durable: the server may forget it."""
        self._confirmed = max(self._confirmed, lsn)
        self.feedback()

    def feedback(self, *, now: bool = False) -> None:
        """Send the status when it is due: at once on `now`, soon when it moved, else rarely."""
        clock = time.monotonic()
        age = clock - self._sent_at
        moved = self._confirmed > self._sent and age >= _PACE_S
        if not (now or moved or age >= _FEEDBACK_S):
            return
        self._received = max(self._received, self._confirmed)
        micros = int((time.time() - _EPOCH_S) * 1_000_000)
        done = self._confirmed
        status = _STATUS.pack(b"r", self._received, done, done, micros, 0)
        try:
            self._pgconn.put_copy_data(status)
            self._pgconn.flush()
        except psycopg.Error as error:
            raise translate(error, self._login) from error
        self._sent, self._sent_at = done, clock

    def _consume(self) -> None:
        try:
            self._pgconn.consume_input()
        except psycopg.Error as error:
            raise translate(error, self._login) from error

    def _ended(self, length: int) -> CdcError:
        if length == -2:
            return self._failed(self._pgconn.get_error_message(), "")
        result = self._pgconn.get_result()
        if result is None:
            return SourceUnavailable("the server ended the replication stream")
        return self._failed(result.get_error_message(), sqlstate(result))

    def _failed(self, message: str, state: str) -> CdcError:
        """Name what ended the stream; the SQLSTATEs are those of PostgreSQL 14 to 18."""
        text = f"the replication stream ended: {message.strip()} ({state or 'connection lost'})"
        if state in ("58P01", "55000") and "wal_level" not in message:
            return GapError(
                text,
                hint="the log the slot needs is gone: snapshot again with `cdc position reset`",
            )
        if state == "42704":
            return PreflightFailed(text, hint="run `cdc check` for the SQL that makes it")
        if state and state[:2] not in ("08", "53", "55", "57"):
            return PreflightFailed(text, hint="run `cdc check`; the server's log says more")
        return SourceUnavailable(text, hint="the worker tries again")
