"""Proxies that read a protocol's frames, to hold one back or to change one.

client ══▶ upward(frame) ══▶ server        a hook returns the frame to pass on, or None to
       ◀══ downward(frame) ◀══             hold it back; `cut` ends the connections of a hold
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

__all__ = ["KafkaProxy", "PostgresProxy"]

END_TXN = 26
"""The API key of EndTxn (Kafka protocol guide, "API Keys")."""

_COPY_DATA = b"d"
_STATUS, _XLOGDATA = b"rw"
_KIND = 25
"""The pgoutput kind lies behind the 25 bytes of XLogData."""


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.held = False

    def close(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _exactly(end: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = end.recv(size - len(data))
        if not piece:
            raise ConnectionError
        data += piece
    return bytes(data)


class _Proxy:
    """Accepts, connects on, and pumps frames both ways, a thread for each direction."""

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self.links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                link = _Link(client, socket.create_connection(self._server))
                self.links.append(link)
                self._begin(self._up, link)
                self._begin(self._down, link)

    def _up(self, link: _Link) -> None:
        with contextlib.suppress(OSError):
            self._pass(link.server, self.upward(link, self.frame(link.client, first=True)))
            while True:
                self._pass(link.server, self.upward(link, self.frame(link.client, first=False)))
        link.close()

    def _down(self, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._pass(link.client, self.downward(link, self.frame(link.server, first=False)))
        link.close()

    def _pass(self, end: socket.socket, frame: bytes | None) -> None:
        if frame is not None:
            end.sendall(frame)

    def frame(self, end: socket.socket, *, first: bool) -> bytes:
        raise NotImplementedError

    def upward(self, _link: _Link, frame: bytes) -> bytes | None:
        return frame

    def downward(self, _link: _Link, frame: bytes) -> bytes | None:
        return frame

    def close(self) -> None:
        self._listener.close()
        with contextlib.suppress(OSError):  # wake the thread that accepts
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        for link in list(self.links):
            link.close()
        for thread in list(self._threads):
            thread.join(10)
        for link in self.links:
            link.client.close()
            link.server.close()


class KafkaProxy(_Proxy):
    """Before a broker. What the broker says of its own address is made to say ours.

    `hold_end_of_transaction` lets the next EndTxn through and keeps its answer, and everything
    behind it, until `cut`.
    """

    def __init__(self, server: str) -> None:
        self._hold = threading.Event()
        self.holding = threading.Event()
        super().__init__(server)
        theirs, mine = (struct.pack(">i", port) for port in (self._server[1], self.port))
        host = self._server[0].encode()
        # A string before version 9 of Metadata and 3 of FindCoordinator, then a compact one.
        spelled = (struct.pack(">h", len(host)) + host, bytes([len(host) + 1]) + host)
        self._places = [(text + theirs, text + mine) for text in spelled]

    def hold_end_of_transaction(self) -> None:
        self._hold.set()

    def cut(self) -> None:
        """End the connections whose answers were kept; later ones are not kept."""
        self._hold.clear()
        for link in list(self.links):
            if link.held:
                link.close()

    def frame(self, end: socket.socket, *, first: bool) -> bytes:  # noqa: ARG002
        head = _exactly(end, 4)
        return head + _exactly(end, int.from_bytes(head, "big"))

    def upward(self, link: _Link, frame: bytes) -> bytes | None:
        if self._hold.is_set() and int.from_bytes(frame[4:6], "big") == END_TXN:
            link.held = True
            self.holding.set()
        return frame

    def downward(self, link: _Link, frame: bytes) -> bytes | None:
        if link.held:
            return None
        for theirs, mine in self._places:
            frame = frame.replace(theirs, mine)
        return frame


class PostgresProxy(_Proxy):
    """Before a PostgreSQL server, for connections without TLS.

    `strange` makes inserts that hold these bytes a message of a kind no server sends today;
    `mute` holds back what a reader of the log says about how far it is.
    """

    def __init__(self, server: str) -> None:
        self.strange = b""
        self.mute = False
        super().__init__(server)

    def frame(self, end: socket.socket, *, first: bool) -> bytes:
        head = _exactly(end, 4 if first else 5)
        return head + _exactly(end, int.from_bytes(head[-4:], "big") - 4)

    def upward(self, link: _Link, frame: bytes) -> bytes | None:
        if self.mute and frame[:1] == _COPY_DATA and frame[5] == _STATUS:
            return None
        return super().upward(link, frame)

    def downward(self, link: _Link, frame: bytes) -> bytes | None:
        at = 5 + _KIND
        logged = frame[:1] == _COPY_DATA and frame[5] == _XLOGDATA
        if self.strange and logged and frame[at : at + 1] == b"I" and self.strange in frame:
            frame = frame[:at] + b"J" + frame[at + 1 :]
        return super().downward(link, frame)
