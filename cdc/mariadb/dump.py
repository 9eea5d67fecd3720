"""The binary log as it arrives: events out, no idea of what they mean.

    server ══ COM_BINLOG_DUMP… ══▶ pull() ─▶ list of events, checksums and all

PyMySQL makes the connection and logs in; once the dump has begun the socket is read here, without
waiting, so that one loop serves the log and everything else. The server needs no answer: it sends
what was committed, and a heartbeat when nothing was.

Sources: MariaDB documentation, "COM_BINLOG_DUMP", "COM_REGISTER_SLAVE", "Replication Protocol".
"""

from __future__ import annotations

import secrets
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import Any

from cdc.errors import CdcError, GapError, PreflightFailed, SourceUnavailable
from cdc.mariadb.connection import Login, connect, rows, whole_guard
from cdc.mariadb.dialect import Dialect

__all__ = ["Dump", "passing_id"]

_REGISTER = 0x15
_BLOCK = 1 << 20
_LONGEST = 0xFFFFFF
_OK, _EOF, _ERROR = 0x00, 0xFE, 0xFF
_LOOK_EVENTS, _LOOK_BYTES = 10_000, 16 << 20
_LOOK_BEAT_S, _SILENT_S, _WAIT_S = 1.0, 15.0, 0.25
_FATAL, _DENIED, _SAME_ID = 1236, (1045, 1142, 1227), 4052


def passing_id() -> int:
    """Return a server id for a short look: replicas are numbered below, and so are sources."""
    return (3 << 30) + secrets.randbelow(1 << 30)


class Dump:
    """One running dump of the log. `checksum` is how the first event is sent."""

    def __init__(self, login: Login, dialect: Dialect) -> None:
        self._login = login
        self._dialect = dialect
        self._driver: Any = connect(login)  # its way to send commands and to read is not public
        self._socket: Any = vars(self._driver)["_sock"]
        self._buffer = bytearray()
        self._at = 0
        self._long: list[bytes] = []
        self.checksum = False

    def start(self, gtid: str, server_id: int, heartbeat: float) -> None:
        """Ask for all that follows `gtid`, as the replica `server_id`.

        `heartbeat` is in seconds. Raises `errors.Unavailable`; what the server makes of the
        position it says in the first `pull`.
        """
        with whole_guard(self._login):
            found = rows(self._driver, "SELECT @@GLOBAL.binlog_checksum")
            self.checksum = found[0][0] != b"NONE"
            rows(self._driver, "SET @master_binlog_checksum = @@GLOBAL.binlog_checksum")
            rows(self._driver, f"SET @master_heartbeat_period = {int(heartbeat * 10**9)}")
            request = self._dialect.request(gtid, server_id)
            for statement, arguments in request.statements:
                rows(self._driver, statement, arguments)
            self._register(server_id)
            self._command(request.command, request.arguments)
        self._socket.settimeout(0)

    def _command(self, code: int, arguments: bytes) -> None:
        self._driver._execute_command(code, arguments)  # noqa: SLF001

    def _register(self, server_id: int) -> None:
        """Show in SHOW REPLICA HOSTS who reads; user, password and port are nobody's business."""
        name = b"cdc"
        fields = struct.pack("<IB", server_id, len(name)) + name + struct.pack("<BBHII", *[0] * 5)
        self._command(_REGISTER, fields)
        self._driver._read_ok_packet()  # noqa: SLF001

    def pull(self, limit: int, max_bytes: int) -> list[bytes]:
        """Return the events that have arrived, at most `limit`, at most about `max_bytes`.

        Never waits. Raises `errors.Unavailable` or `errors.Stop` when the dump has ended.
        """
        events: list[bytes] = []
        size = 0
        while len(events) < limit and size < max_bytes:
            event = self._next()
            if event is not None:
                events.append(event)
                size += len(event)
            elif not self._receive():
                break
        return events

    def _next(self) -> bytes | None:
        """Return the next event of the buffer, None when it is not there whole."""
        while True:
            start = self._at + 4
            length = int.from_bytes(self._buffer[self._at : self._at + 3], "little")
            if len(self._buffer) < start + length:
                return None
            packet = bytes(self._buffer[start : start + length])
            self._at = start + length
            if not self._long:
                self._refuse(packet)
            if length == _LONGEST or self._long:
                self._long.append(packet)
            if length == _LONGEST:
                continue
            if self._long:
                packet, self._long = b"".join(self._long), []
            return packet[1:]

    def _receive(self) -> bool:
        """Take what has arrived; tell whether there was anything."""
        del self._buffer[: self._at]
        self._at = 0
        try:
            block = self._socket.recv(_BLOCK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError as error:
            raise SourceUnavailable(f"the binary log broke off: {error}") from error
        if not block:
            raise SourceUnavailable("the server closed the connection of the binary log")
        self._buffer += block
        return True

    def wait(self, timeout: float) -> bool:
        """Wait until something arrives, at most `timeout` seconds; tell whether it did."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def look(self, gtid: str) -> Iterator[bytes]:
        """Begin a passing look, and return the events that follow `gtid`: they do not end.

        What is yet to be written is waited for. Raises as `start` and `pull` do, and
        `errors.SourceUnavailable` when nothing is heard, no heartbeat either.
        """
        self.start(gtid, passing_id(), _LOOK_BEAT_S)
        return self._arriving()

    def _arriving(self) -> Iterator[bytes]:
        heard = time.monotonic()
        while True:
            found = self.pull(_LOOK_EVENTS, _LOOK_BYTES)
            yield from found
            if found:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENT_S:
                raise SourceUnavailable("the log that is there does not arrive")
            else:
                self.wait(_WAIT_S)

    def _refuse(self, packet: bytes) -> None:
        """Raise what a packet says that is no event."""
        first = packet[0] if packet else _EOF
        if first == _OK:
            return
        if first == _ERROR and len(packet) >= 9:
            code = int.from_bytes(packet[1:3], "little")
            raise _ended(code, packet[9:].decode("utf-8", "replace"))
        raise SourceUnavailable("the server ended the binary log")

    def close(self) -> None:
        """Let go of the connection; a server in the middle of a dump hears no farewell."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._socket = None  # it was closed by the other side
            self._driver._force_close()  # noqa: SLF001
            self._socket = None


def _ended(code: int, message: str) -> CdcError:
    """Name what ended the dump; texts as in `sql_repl.cc`, and `rpl_binlog_sender.cc`."""
    text = f"the server ended the binary log: {message} ({code})"
    if code == _SAME_ID or "same server_uuid/server_id" in message:
        return PreflightFailed(
            text, hint="another replica has our server id: set `server_id` of this source"
        )
    if code in _DENIED:
        return PreflightFailed(text, hint="run `cdc check` for the GRANT that repairs it")
    if code == _FATAL:
        return GapError(
            text,
            hint="what follows our position is not in the log: snapshot again with "
            "`cdc position reset`, or say `snapshot: when_needed`, and keep the log longer "
            "(binlog_expire_logs_seconds)",
        )
    return SourceUnavailable(text, hint="the worker tries again")
