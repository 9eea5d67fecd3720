"""`cdc run`: one child process per source and per sink worker, started again when it fails.

    placement ─▶ seats of this machine ─▶ one child each ─▶ exit code ─▶ again, rest, or leave be
    (consumer group)                      cdc source NAME    0/1/4/signal   back-off
                                          cdc sink NAME      5 fenced       without --take-over
                                                             2/3            until `cdc restart`

A child that stopped because an operator must decide (2, 3) stays down and is shown by `cdc status`;
when all of this machine's are down, the supervisor ends with that code. SIGTERM drains every child
and ends with 0 within 10 s; a child that does not end in time is killed, which loses nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import structlog

from cdc.compacted import CompactedTopic, ensure_internal
from cdc.config import Pipeline
from cdc.endpoint import Health, listening_socket, merge_pages
from cdc.errors import CdcError, Unavailable
from cdc.metrics import SupervisorMetrics
from cdc.placement import Placement
from cdc.process import METRICS_FD, SUPERVISOR_PID
from cdc.retry import back_off, until_it_answers

__all__ = ["DRAIN_S", "Seat", "Supervisor", "seats_of"]

DRAIN_S = 8.0
"""What children get to end by themselves; with leaving the group it stays under 10 s."""

_STEADY_S = 60.0
_TICK_S = 0.2
_FENCED = 5
_FOR_OPERATOR = frozenset({2, 3})
_log = structlog.get_logger(__name__)


class Seat(msgspec.Struct, frozen=True):
    """One worker to be run: its unit's address and what follows `cdc` on its command line."""

    name: str
    unit: str
    arguments: tuple[str, ...]


def seats_of(pipeline: Pipeline) -> list[Seat]:
    """Return the workers of a pipeline: one per source, `workers` per sink."""
    seats = [
        Seat(unit.address, unit.address, ("source", name))
        for name, unit in pipeline.sources.items()
    ]
    for name, unit in pipeline.sinks.items():
        workers = int(getattr(unit.config, "workers", 1))
        if workers == 1:
            seats.append(Seat(unit.address, unit.address, ("sink", name)))
            continue
        for number in range(workers):
            arguments = ("sink", name, "--worker", str(number))
            seats.append(Seat(f"{unit.address}/{number}", unit.address, arguments))
    return seats


class _Child:
    """One seat's process and its history."""

    def __init__(self, seat: Seat, host: str) -> None:
        self.seat = seat
        self.listener = listening_socket(host, 0)
        self.process: subprocess.Popen[bytes] | None = None
        self.code: int | None = None
        self.started = 0.0
        self.due = 0.0
        self.failures = 0
        self.may_take_over = True

    @property
    def is_down(self) -> bool:
        """Whether an operator must decide."""
        return self.process is None and self.code in _FOR_OPERATOR

    def start(self, base: Sequence[str]) -> None:
        """Start the worker; it inherits our output and its metrics socket."""
        arguments = [*base, *self.seat.arguments]
        if self.may_take_over and self.seat.arguments[0] == "source":
            arguments.append("--take-over")
        fd = self.listener.fileno()
        environment = {**os.environ, SUPERVISOR_PID: str(os.getpid()), METRICS_FD: str(fd)}
        self.process = subprocess.Popen(
            arguments, env=environment, pass_fds=[fd], start_new_session=True
        )
        self.started, self.code = time.monotonic(), None
        _log.info("started", seat=self.seat.name, pid=self.process.pid)

    def reap(self) -> int | None:
        """Return the exit code when the process has just ended, and plan what comes next."""
        if self.process is None or self.process.poll() is None:
            return None
        self.code, self.process = self.process.returncode, None
        steady = time.monotonic() - self.started > _STEADY_S
        self.failures = 0 if steady else self.failures + 1
        self.due = time.monotonic() + back_off(max(0, self.failures - 1))
        self.may_take_over = self.code != _FENCED
        return self.code

    def signal(self, number: int) -> None:
        """Send a signal when there is a process."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def ask(self, path: str) -> tuple[int, bytes]:
        """Return status and body of the worker's endpoint; status 0 when it does not answer."""
        return (0, b"") if self.process is None else _get(self.listener.getsockname()[:2], path)


class Supervisor:
    """Runs the seats that fall to this machine until `stop`."""

    def __init__(self, pipeline: Pipeline, config: Path, stop: Callable[[], bool]) -> None:
        self._pipeline = pipeline
        self._stop = stop
        self._base = [sys.executable, "-m", "cdc", "-c", str(config)]
        self._children = {seat.name: _Child(seat, "127.0.0.1") for seat in seats_of(pipeline)}
        self._placement = Placement(pipeline.kafka, pipeline.name, self._give_up)
        self._control = CompactedTopic(pipeline.kafka, f"{pipeline.name}.control")
        self.health = Health(others=self._unready)
        self._metrics = SupervisorMetrics(pipeline.name)

    def run(self) -> int:
        """Work until asked to stop; return the exit code."""
        try:
            until_it_answers(self._join, self._stop, self._waiting)
            while not self._stop():
                code = self._turn()
                if code is not None:
                    return code
            return 0
        finally:
            self._end(list(self._children.values()))
            self._placement.leave()
            self._control.close()

    def page(self) -> bytes:
        """Return the metrics of every child, and our own, as one page."""
        pages = [child.ask("/metrics")[1] for child in self._children.values()]
        return merge_pages([self._metrics.page(), *pages])

    def _unready(self) -> list[str]:
        """Return which of the workers here do not do their work, and why."""
        out = []
        for name, child in self._children.items():
            if child.process is not None:
                status, reason = child.ask("/readyz")
                if status != 200:
                    out.append(f"{name}: {reason.decode().strip() or 'does not answer yet'}")
        return out

    def _join(self) -> None:
        ensure_internal(self._pipeline.kafka, self._pipeline.name)
        self._control.catch_up()
        self._placement.join()

    def _waiting(self, error: CdcError) -> None:
        self.health.beat(ready=False, reason=f"waiting: {error}")
        _log.warning("waiting", error=str(error), hint=error.hint)

    def _turn(self) -> int | None:
        try:
            self._placement.poll(_TICK_S)
            self._obey()
        except Unavailable as error:
            self._waiting(error)
        wanted = self._placement.seats(list(self._children))
        if wanted is None:
            self.health.beat(ready=False, reason="waiting for seats")
            return None
        self._settle(wanted)
        return self._given_up(wanted)

    def _settle(self, wanted: Sequence[str]) -> None:
        """Bring the children in line with what is wanted."""
        surplus = [c for n, c in self._children.items() if n not in wanted and c.process]
        self._end(surplus)
        for name in wanted:
            child = self._children[name]
            code = child.reap()
            if code is not None:
                self._say_ended(child, code)
            if child.process is None and not child.is_down and time.monotonic() >= child.due:
                if child.started:
                    self._metrics.restarted(child.seat.name)
                child.start(self._base)
        running = [n for n in wanted if self._children[n].process is not None]
        reason = f"{len(running)} of {len(wanted)} workers run"
        self.health.beat(ready=len(running) == len(wanted), reason=reason)

    def _say_ended(self, child: _Child, code: int) -> None:
        meaning = "for an operator to decide" if child.is_down else "will be started again"
        _log.warning("worker ended", seat=child.seat.name, exit_code=code, next=meaning)

    def _given_up(self, wanted: Sequence[str]) -> int | None:
        """Return an exit code when no worker here can go on without an operator."""
        children = [self._children[name] for name in wanted]
        if not children or not all(child.is_down for child in children):
            return None
        return max(child.code or 0 for child in children)

    def _obey(self) -> None:
        for entry in self._control.poll():
            unit, _, command = entry.key.rpartition("/")
            if command == "restart" and entry.value is not None:
                self._restart(unit)

    def _restart(self, unit: str) -> None:
        """Start again what is down; a worker that runs sees the request itself."""
        for child in self._children.values():
            if child.seat.unit == unit and child.process is None:
                child.code, child.due, child.failures = None, 0.0, 0

    def _give_up(self, partitions: Sequence[int]) -> None:
        """Other supervisors take over these partitions: end their workers first."""
        names = [n for n in self._children if self._placement.holds(n, partitions)]
        self._end([self._children[name] for name in names])

    def _end(self, children: Sequence[_Child]) -> None:
        """Ask the children to end and wait; kill what is still there after `DRAIN_S`."""
        for child in children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + DRAIN_S
        while any(_is_running(child) for child in children) and time.monotonic() < deadline:
            time.sleep(0.02)
        for child in children:
            if _is_running(child):
                _log.warning("killed: it did not end in time", seat=child.seat.name)
                child.signal(signal.SIGKILL)
            if child.process is not None:
                child.process.wait()
            child.process, child.code, child.due, child.started = None, None, 0.0, 0.0
            child.may_take_over = True


def _is_running(child: _Child) -> bool:
    return child.process is not None and child.process.poll() is None


def _get(address: tuple[str, int], path: str) -> tuple[int, bytes]:
    """Return status and body of a GET; status 0 when the worker is not there yet."""
    try:
        with socket.create_connection(address, 1.0) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    except OSError as error:
        _log.debug("no answer", address=address, path=path, reason=str(error))
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    return (int(status[0]) if status and status[0].isdigit() else 0), body
