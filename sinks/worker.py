"""The sink worker: stages 6 to 9 as one loop.

    fill ─▶ decode ─▶ cut (R12) ─▶ map, collapse ─▶ target transaction (rows + cursors)
      6        6          6              7, 8                     9

Why nothing is lost or applied twice: reading begins at the cursors the target holds, each target
transaction moves them from there, and nothing is remembered beside. Every error that may pass
ends the session; the next one asks the target where it stands. While one cut is merged in the
apply thread, the next is read and decoded here.
"""

from __future__ import annotations

import time

from cdc.errors import Fenced, Unavailable
from sinks.job import SinkJob, SinkReporter, SinkStatus
from sinks.session import Session
from sinks.target import CursorMoved

__all__ = ["SinkJob", "SinkReporter", "SinkStatus", "run_sink"]

_BEAT_S = 1.0
_PAUSE_POLL_S = 0.2
_RIVAL_S = 30.0


class _Restart(Exception):
    """The session ends on request and a new one begins."""


def run_sink(job: SinkJob) -> None:
    """Work until `job.stop`; what was handed to the target is settled before returning.

    Raises `errors.Stop` and `errors.ConfigError`, which only an operator can clear.
    """
    worker = _Worker(job)
    attempt = 0
    while not job.stop():
        try:
            worker.session()
        except Unavailable as error:
            attempt = 0 if worker.progressed else attempt + 1
            job.reporter.beat(SinkStatus("retrying", str(error)), error)
            worker.rest(job.back_off(attempt))
        except CursorMoved as error:
            worker.meet_rival(error)
        except _Restart:
            attempt = 0


class _Worker:
    def __init__(self, job: SinkJob) -> None:
        self._job = job
        self._paused = False
        self._beaten = 0.0
        self._rival_seen = -_RIVAL_S
        self.progressed = False

    def session(self) -> None:
        """Open, follow, until stopped or an error."""
        job = self._job
        self.progressed = False
        self._wait_while_paused()
        job.reporter.beat(SinkStatus("starting"), None)
        session = Session(job)
        try:
            session.open()
            while not job.stop():
                self._obey()
                session.step()
                self._beat(session)
            session.drain()
        finally:
            session.close()

    def _beat(self, session: Session) -> None:
        self.progressed = True
        if time.monotonic() - self._beaten < _BEAT_S:
            return
        self._beaten = time.monotonic()
        waiting = session.waiting()
        state = "waiting" if waiting else "running"
        status = SinkStatus(state, waiting, session.lag_rows(), session.lag_seconds())
        self._job.reporter.beat(status, None)

    def meet_rival(self, error: CursorMoved) -> None:
        """Go on from where the cursors are now; the second time it is another worker (R4).

        The first may have been our own transaction whose reply was lost, or an operator.
        """
        now = time.monotonic()
        if self._job.workers == 1 and now - self._rival_seen < _RIVAL_S:
            raise Fenced(
                f"another worker moves the cursors of {self._job.context.name}: {error}",
                hint="Two workers run the same sink; stop one, or set `workers:` above 1.",
            ) from error
        self._rival_seen = now

    def _obey(self) -> None:
        for command in self._job.control.poll():
            if command.name == "pause":
                self._paused = True
            elif command.name == "resume":
                self._paused = False
            elif command.name != "restart":
                continue
            raise _Restart

    def _wait_while_paused(self) -> None:
        while self._paused and not self._job.stop():
            self._job.reporter.beat(SinkStatus("paused"), None)
            time.sleep(_PAUSE_POLL_S)
            for command in self._job.control.poll():
                self._paused = command.name != "resume" and self._paused

    def rest(self, seconds: float) -> None:
        """Wait before the next attempt, but not beyond a request to stop."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._job.stop():
            time.sleep(min(_PAUSE_POLL_S, seconds))
