"""The real registry behind a door of TLS that asks who comes: a name, a token or a certificate."""

from __future__ import annotations

import base64
import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from fix_tls import Authority

USER, PASSWORD, TOKEN = "worker", "registry-secret", "a.bearer.token"
ALLOWED = {
    "basic": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
    "bearer": f"Bearer {TOKEN}",
}
Guarded = Callable[[str], str]
_OUR_OWN = {"host", "authorization", "accept-encoding"}


class _Door(BaseHTTPRequestHandler):
    """Passes a request on when its sender is known, and the answer back."""

    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        server: Any = self.server
        wanted = ALLOWED.get(server.asks)
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if wanted is not None and self.headers.get("Authorization") != wanted:
            self._answer(401, b'{"error_code": 40101, "message": "who are you?"}')
            return
        kept = {n: v for n, v in self.headers.items() if n.lower() not in _OUR_OWN}
        with closing(http.client.HTTPConnection(server.behind, timeout=60)) as behind:
            behind.request(self.command, self.path, body, kept)
            answer = behind.getresponse()
            self._answer(answer.status, answer.read(), answer.headers.get("Content-Type", ""))

    do_GET = do_POST = do_PUT = do_DELETE = _pass  # noqa: N815 - the base class finds them so

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_where: object) -> None:
        """Say nothing of a client that was refused."""


@pytest.fixture
def guarded_registry(registry: Any, authority: Authority) -> Iterator[Guarded]:
    """Open doors that ask for "basic", "bearer" or "certificate"; give the URL behind each."""
    identity = authority.identity("registry", ("127.0.0.1",))
    real = urlsplit(registry.url)
    running: list[tuple[_Server, threading.Thread]] = []

    def opened(asks: str) -> str:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.ca))
        context.load_cert_chain(identity.cert, identity.key)
        if asks == "certificate":
            context.verify_mode = ssl.CERT_REQUIRED
        server: Any = _Server(("127.0.0.1", 0), _Door)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        server.asks, server.behind = asks, real.netloc
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        running.append((server, thread))
        return f"https://127.0.0.1:{server.server_port}{real.path}"

    yield opened
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()
