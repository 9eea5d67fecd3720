"""The HTTP endpoint of a worker or supervisor: /metrics, /healthz, /readyz.

One of the three helper threads a worker may have. /healthz is 200 while the worker's loop still
turns; /readyz only while it does its work, so 503 with the reason while it starts, retries or is
paused.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from cdc.errors import ConfigError

__all__ = ["Endpoint", "Health", "listening_socket", "merge_pages"]

_STUCK_S = 120.0
"""No single wait of a worker is longer than 30 s (R10): beyond this its loop does not turn."""

_CONTENT = "text/plain; version=0.0.4; charset=utf-8"


class Health(msgspec.Struct):
    """What the probes answer from. `ready` and `reason` are the worker's; `beat` says it lives.

    `others` names who else is not ready, asked for with each probe.
    """

    ready: bool = False
    reason: str = "starting"
    beaten: float = msgspec.field(default_factory=time.monotonic)
    others: Callable[[], list[str]] = list

    def beat(self, *, ready: bool, reason: str) -> None:
        """Note that the loop turned and how it stands."""
        self.ready, self.reason, self.beaten = ready, reason, time.monotonic()

    def readiness(self) -> tuple[bool, str]:
        """Tell whether the work is being done, and how it stands."""
        troubles = self.others() if self.ready else []
        if troubles:
            return False, "; ".join(troubles)
        return self.ready and self.is_alive(), self.reason

    def is_alive(self) -> bool:
        """Tell whether the loop turned of late."""
        return time.monotonic() - self.beaten < _STUCK_S


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens at `host`:`port`; port 0 takes a free one.

    Raises `errors.ConfigError` when the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(16)
    except OSError as error:
        made.close()
        raise ConfigError(
            f"metrics cannot be served at {host}:{port}: {error.strerror}",
            hint="Choose another `metrics.port`, 0 for any free one, or null for none.",
        ) from error
    return made


class Endpoint:
    """Serves until closed; `page` gives the metrics when they are asked for.

    `tick` is called about five times a second.
    """

    def __init__(
        self,
        listener: socket.socket,
        page: Callable[[], bytes],
        health: Health,
        tick: Callable[[], None] | None = None,
    ) -> None:
        host, port = listener.getsockname()[:2]
        self.address = f"{host}:{port}"
        self._server = _server(listener, page, health)
        if tick is not None:
            self._server.service_actions = tick  # type: ignore[method-assign]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving and join the thread."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _server(
    listener: socket.socket, page: Callable[[], bytes], health: Health
) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = _answer(self.path.partition("?")[0], page, health)
            self.send_response(status)
            self.send_header("Content-Type", _CONTENT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Stay silent: probes come every few seconds."""

    server = ThreadingHTTPServer(listener.getsockname()[:2], Handler, bind_and_activate=False)
    server.daemon_threads = True
    server.socket.close()
    server.socket = listener
    return server


def _answer(path: str, page: Callable[[], bytes], health: Health) -> tuple[int, bytes]:
    if path == "/metrics":
        return 200, page()
    if path == "/healthz":
        return (200, b"alive\n") if health.is_alive() else (503, b"the loop does not turn\n")
    if path == "/readyz":
        ready, reason = health.readiness()
        return (200 if ready else 503), f"{reason}\n".encode()
    return 404, b"/metrics, /healthz or /readyz\n"


def merge_pages(pages: Sequence[bytes]) -> bytes:
    """Return several pages of metrics as one: each metric's help and type once, then its samples.

    The samples differ in their labels (`unit`), so one page of a supervisor stands for all its
    workers.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for page in pages:
        name = ""
        for line in page.decode().splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
            if not line.startswith("#"):
                samples.setdefault(name, []).append(line)
            elif line not in heads.setdefault(name, []):
                heads[name].append(line)
    lines = [line for name in heads for line in (*heads[name], *samples.get(name, []))]
    return ("\n".join(lines) + "\n").encode()
