"""A TCP proxy of our own between workers and a server: it cuts, stalls, slows, or answers 500.

Workers know only the proxy's port; writers, samplers and the checker go around it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

CHUNK = 1 << 17
REFUSAL = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Forwards 127.0.0.1:`port` to the port that `target` gives, until `close`."""

    def __init__(self, target: Callable[[], int], port: int = 0) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._gate = threading.Event()
        self._gate.set()
        self._rate = 0
        self._refuses = False
        self._answers_500 = False
        self._closed = False
        threading.Thread(target=self._accept, name=f"proxy-{self.port}", daemon=True).start()

    def cut(self) -> None:
        """End every connection at once, and each new one, until `heal`."""
        self._refuses = True
        self._end_all()

    def stall(self) -> None:
        """Keep the connections and carry nothing, until `heal`."""
        self._gate.clear()

    def slow(self, bytes_per_s: int) -> None:
        """Carry so much per connection and direction, until `heal`."""
        self._rate = bytes_per_s

    def answer_500(self) -> None:
        """Answer each new request by HTTP with 500, until `heal`."""
        self._answers_500 = True
        self._end_all()

    def heal(self) -> None:
        """Forward as before."""
        self._refuses = self._answers_500 = False
        self._rate = 0
        self._gate.set()

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._gate.set()
        self._end_all()

    def _end_all(self) -> None:
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            if self._refuses:
                return
            if self._answers_500:
                _refuse(client)
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target()), timeout=5)
            except OSError:
                return
            with server:
                server.settimeout(None)
                self._carry_both(client, server)

    def _carry_both(self, client: socket.socket, server: socket.socket) -> None:
        with self._lock:
            self._open |= {client, server}
        back = threading.Thread(target=self._carry, args=[server, client], daemon=True)
        back.start()
        self._carry(client, server)
        back.join()
        with self._lock:
            self._open -= {client, server}

    def _carry(self, giver: socket.socket, taker: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a cut connection is what this proxy is for
            while data := giver.recv(min(CHUNK, self._rate or CHUNK)):
                self._gate.wait()
                if self._rate:
                    time.sleep(len(data) / self._rate)
                taker.sendall(data)
        for one in (giver, taker):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _refuse(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.settimeout(2)
        client.recv(CHUNK)
        client.sendall(REFUSAL)
