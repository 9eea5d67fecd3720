"""One worker's process: signals, logs, its endpoint, and the supervisor it belongs to.

SIGTERM and SIGINT ask it to end; the loop sees that between two batches, commits and returns. A
worker of `cdc run` also ends when its supervisor is gone, so that nothing works unattended, and
takes its metrics socket from it, so that the address outlives a restart.
"""

from __future__ import annotations

import os
import signal
import socket
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
]

SUPERVISOR_PID = "CDC_SUPERVISOR_PID"
METRICS_FD = "CDC_METRICS_FD"
"""What `cdc run` tells its workers through the environment."""

_log = structlog.get_logger(__name__)


def stop_on_signals() -> Callable[[], bool]:
    """Return what turns true once this process is asked to end. A second signal ends it at once."""
    asked: list[int] = []

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


@contextmanager
def served(
    config: MetricsConfig, page: Callable[[], bytes], health: Health
) -> Iterator[Endpoint | None]:
    """Serve `page` and `health` while the block runs."""
    opened = listener(config)
    if opened is None:
        yield None
        return
    endpoint = Endpoint(opened, page, health)
    _log.info("serving", metrics=f"http://{endpoint.address}/metrics")
    try:
        yield endpoint
    finally:
        endpoint.close()
