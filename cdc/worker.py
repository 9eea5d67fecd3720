"""The source worker: stages 1 to 5 as one loop.

    read ─▶ encode ─▶ Kafka transaction (records + position) ─▶ confirm upstream
     1         2, 3                      4                            5

Why nothing is lost or repeated: a change is confirmed upstream only after the transaction that
holds both the record and the position behind it has committed; whoever starts next first fences
the transactional id, then reads the position, then opens the source behind it. Every error that
may pass ends the session and begins a new one from what Kafka holds; nothing is carried over in
memory but the claim, by which a worker that was replaced meanwhile knows it. A batch commits as
soon as the source has nothing more to say, so an idle pipeline adds no delay and a busy one fills
its transactions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from cdc.errors import CdcError, Unavailable
from cdc.failpoints import failpoint
from cdc.publish import Claim, Committed, Publisher
from cdc.source import Source, SourceStatus, Watchful

__all__ = ["Command", "Control", "Reporter", "SourceJob", "run_source"]

_IDLE_S = 0.5
_BEAT_S = 1.0
_PAUSE_POLL_S = 0.2
_WATCH_S = 3.0


class Command(msgspec.Struct, frozen=True):
    """One request from the control topic: pause, resume, restart, or one of the source's own."""

    name: str
    arguments: dict[str, Any] = {}


class Control(Protocol):
    """Where requests come from."""

    def poll(self) -> Sequence[Command]:
        """Return what came since the last call, without waiting."""
        ...

    def rewind(self) -> None:
        """Deliver again what was delivered but not acknowledged: the session ended."""
        ...

    def acknowledge(self) -> None:
        """The effect of every delivered command is durable."""
        ...


class Reporter(Protocol):
    """Where a worker says how it stands; must not raise and must not wait."""

    def published(self, committed: Committed) -> None:
        """Count one committed transaction."""
        ...

    def beat(self, status: SourceStatus, error: CdcError | None) -> None:
        """Tell the present state, about once a second, and at each change of it."""
        ...


class SourceJob(msgspec.Struct):
    """What a worker is made of. `stop` turns true when the process is asked to end.

    `back_off` gives the seconds to rest before attempt number n (cdc/retry.py).
    """

    source: Callable[[], Source]
    publisher: Callable[[], Publisher]
    control: Control
    reporter: Reporter
    stop: Callable[[], bool]
    back_off: Callable[[int], float]


class _Restart(Exception):
    """The session ends on request and a new one begins."""


def run_source(job: SourceJob) -> None:
    """Work until `job.stop`; the last transaction is committed and confirmed before returning.

    Raises `errors.Stop` and `errors.ConfigError`, which only an operator can clear.
    """
    worker = _Worker(job)
    attempt = 0
    while not job.stop():
        try:
            worker.session()
        except Unavailable as error:
            attempt = 0 if worker.progressed else attempt + 1
            seen = worker.watch()
            status = SourceStatus("retrying", str(error), retained_bytes=seen.retained_bytes)
            job.reporter.beat(status, error)
            worker.rest(job.back_off(attempt))
        except _Restart:
            attempt = 0


class _Worker:
    def __init__(self, job: SourceJob) -> None:
        self._job = job
        self._claim = Claim()
        self._paused = False
        self._commanded = False
        self._beaten = 0.0
        self._watched = -_WATCH_S
        self._seen = SourceStatus()
        self.progressed = False

    def session(self) -> None:
        """Acquire, open, stream, until stopped or an error."""
        job = self._job
        self.progressed = self._commanded = False
        job.control.rewind()
        self._wait_while_paused()
        publisher, source = job.publisher(), job.source()
        try:
            job.reporter.beat(SourceStatus(state="acquiring"), None)
            stored = publisher.acquire(self._claim)
            source.open(stored.position, stored.progress_list())
            while not job.stop():
                if not publisher.is_open:
                    self._obey(source)
                self._step(source, publisher)
            self._commit(source, publisher)
        finally:
            source.close()
            publisher.close()

    def _step(self, source: Source, publisher: Publisher) -> None:
        batch = source.read(0.0 if publisher.is_open else _IDLE_S)
        if batch is not None:
            publisher.add(batch)
        if batch is None or publisher.due():
            self._commit(source, publisher)
        if time.monotonic() - self._beaten >= _BEAT_S:
            self._beaten = time.monotonic()
            self._job.reporter.beat(source.status(), None)

    def _commit(self, source: Source, publisher: Publisher) -> None:
        committed = publisher.commit()
        if committed is None:
            return
        source.confirm(committed.position)
        failpoint("source.after_confirm")
        if self._commanded:
            self._commanded = False
            self._job.control.acknowledge()
        self.progressed = True
        self._job.reporter.published(committed)

    def _obey(self, source: Source) -> None:
        for command in self._job.control.poll():
            if command.name == "pause":
                self._paused = True
            elif command.name == "resume":
                self._paused = False
            elif command.name != "restart":
                source.command(command.name, dict(command.arguments))
                self._commanded = True
                continue
            raise _Restart

    def _wait_while_paused(self) -> None:
        """Hold no connection while paused; the source keeps its log, and status says so."""
        while self._paused and not self._job.stop():
            seen = self.watch()
            self._job.reporter.beat(msgspec.structs.replace(seen, state="paused"), None)
            time.sleep(_PAUSE_POLL_S)
            for command in self._job.control.poll():
                self._paused = command.name != "resume" and self._paused

    def watch(self) -> SourceStatus:
        """Let a source that can look after its log while nothing is read, every few seconds."""
        if time.monotonic() - self._watched >= _WATCH_S:
            source = self._job.source()
            self._seen = source.watch() if isinstance(source, Watchful) else SourceStatus()
            self._watched = time.monotonic()
        return self._seen

    def rest(self, seconds: float) -> None:
        """Wait before the next attempt, but not beyond a request to stop."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._job.stop():
            self.watch()
            time.sleep(min(_PAUSE_POLL_S, seconds))
