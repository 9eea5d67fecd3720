"""One worker's process: signals, logs, its endpoint, and the supervisor it belongs to.

SIGTERM and SIGINT ask it to end; the loop sees that between two batches, commits and returns. When
it cannot, because a broker does not answer, the endpoint's thread ends the process within 10 s:
what was not committed is not lost, whoever starts next reads it again. A worker of `cdc run` also
ends when its supervisor is gone, so that nothing works unattended, and takes its metrics socket
from it, so that the address outlives a restart.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import structlog

from cdc import logs
from cdc.config import LogConfig, MetricsConfig
from cdc.endpoint import Endpoint, Health, listening_socket
from cdc.errors import ConfigError

__all__ = [
    "METRICS_FD",
    "SUPERVISOR_PID",
    "configure_logs",
    "listener",
    "served",
    "stop_on_signals",
    "tune",
]

SUPERVISOR_PID = "CDC_SUPERVISOR_PID"
METRICS_FD = "CDC_METRICS_FD"
"""What `cdc run` tells its workers through the environment."""

_PATIENCE_S = 8.5
_AWAY = 4
"""Exit code of a process that could not drain, as for `errors.Unavailable`."""

_log = structlog.get_logger(__name__)


def tune() -> None:
    """Set Python up for a worker that holds records by the ten thousand, in two threads.

    Nothing of a record is in a cycle, but with Python's own settings a third of a sink's time goes
    into looking for cycles among them: new things are walked after 20,000 of them, and those of
    the start never. A thread that comes back from the target waits 5 ms for the one that decodes,
    at each statement: half a millisecond will do (measured: a third more rows/s).
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    sys.setswitchinterval(0.0005)


def stop_on_signals(*, watched: bool = True) -> Callable[[], bool]:
    """Return what turns true once this process is asked to end. A second signal ends it at once.

    `watched` ends a process that does not end by itself (see above); `cdc run` keeps its own time.
    """
    asked: list[int] = []
    if watched:
        _watch.listen()

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    parent = int(os.environ.get(SUPERVISOR_PID, "0"))
    if not parent:
        return lambda: bool(asked)
    return lambda: bool(asked) or os.getppid() != parent


def configure_logs(config: LogConfig, pipeline: str, unit: str = "") -> None:
    """Set logging up for this process."""
    fields = {"pipeline": pipeline, **({"unit": unit} if unit else {})}
    logs.configure(config.format, config.level, **fields)


def listener(config: MetricsConfig) -> socket.socket | None:
    """Return the socket the endpoint serves on, None when it is switched off.

    The default port may be taken by another pipeline on this machine: then any free one will do.
    Raises `errors.ConfigError` when a port was asked for and is taken.
    """
    inherited = os.environ.get(METRICS_FD)
    if inherited:
        return socket.socket(fileno=int(inherited))
    if config.port is None:
        return None
    try:
        return listening_socket(config.host, config.port)
    except ConfigError:
        if "port" in config.model_fields_set:
            raise
        return listening_socket(config.host, 0)


class _Watch:
    """Ends a process that was asked to and does not.

    While the main thread waits inside a client's C code, no Python signal handler runs; the
    interpreter still writes the signal's number to the wakeup fd at once.
    """

    def __init__(self) -> None:
        self._reader: socket.socket | None = None
        self._deadline = 0.0

    def listen(self) -> None:
        """Begin to hear of signals."""
        self._reader, writer = socket.socketpair()
        self._reader.settimeout(0)
        writer.settimeout(0)
        signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)

    def tick(self) -> None:
        """Look whether a signal came, and whether its time is over; several times a second."""
        if self._reader is None:
            return
        if self._deadline:
            if time.monotonic() > self._deadline:
                _log.warning("ended without draining: something does not answer; nothing is lost")
                os._exit(_AWAY)
            return
        try:
            heard = self._reader.recv(64)
        except BlockingIOError:
            return
        if {signal.SIGTERM, signal.SIGINT} & set(heard):
            self._deadline = time.monotonic() + _PATIENCE_S


_watch = _Watch()


@contextmanager
def served(
    config: MetricsConfig, page: Callable[[], bytes], health: Health
) -> Iterator[Endpoint | None]:
    """Serve `page` and `health` while the block runs."""
    opened = listener(config)
    if opened is None:
        yield None
        return
    endpoint = Endpoint(opened, page, health, _watch.tick)
    _log.info("serving", metrics=f"http://{endpoint.address}/metrics")
    try:
        yield endpoint
    finally:
        endpoint.close()
