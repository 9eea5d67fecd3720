"""The sink worker: stages 6 to 9 as one loop.

    fill ─▶ decode ─▶ cut (R12) ─▶ map, collapse ─▶ target transaction (rows + cursors)
      6        6          6              7, 8                     9

Why nothing is lost or applied twice: reading begins at the cursors the target holds, each target
transaction moves them from there, and nothing is remembered beside. Every error that may pass
ends the session; the next one asks the target where it stands. While one cut is merged in the
apply thread, the next is read and decoded here.

Several workers can come to hold rows that wait for one another, through unique values and foreign
keys: each is right to wait, and none ever goes on. Then one of them holds the others off, applies
the partitions of all up to one boundary, which the source's own constraints make possible, and
hands them back. There, too, a row that is refused is poison: nothing is left to wait for (R4).
"""

from __future__ import annotations

import time

import msgspec
import structlog

from cdc.errors import Fenced, Unavailable
from sinks.applier import Entangled
from sinks.job import SinkJob, SinkReporter, SinkStatus
from sinks.session import Session
from sinks.target import CursorMoved

__all__ = ["SinkJob", "SinkReporter", "SinkStatus", "run_sink"]

_BEAT_S = 1.0
_PAUSE_POLL_S = 0.2
_RIVAL_S = 30.0
_KNOT_S = 5.0
_KNOT_OLD_S = 30.0
_ALONE_S = 60.0
_log = structlog.get_logger(__name__)


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
            is_of_others = worker.note(error)
            attempt = 0 if worker.progressed or is_of_others else attempt + 1
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
        self._knot: tuple[float, float] | None = None
        self.progressed = False

    def session(self) -> None:
        """Open, follow, until stopped or an error."""
        job = self._job
        self.progressed = False
        self._wait_while_paused()
        job.reporter.beat(SinkStatus("starting"), None)
        untie = self._must_untie()
        session = Session(msgspec.structs.replace(job, workers=1) if untie else job)
        try:
            session.open(reserve=untie)
            self._knot = None if untie else self._knot
            begun = time.monotonic()
            while not job.stop():
                self._obey()
                session.step()
                self._beat(session)
                if untie and (session.has_caught_up() or time.monotonic() - begun > _ALONE_S):
                    break
            session.drain()
        finally:
            session.close()
            self.progressed = session.progressed

    def note(self, error: Unavailable) -> bool:
        """Remember since when rows wait for other workers; tell whether they do now."""
        if not isinstance(error, Entangled):
            return False
        now = time.monotonic()
        since, last = self._knot or (now, now)
        self._knot = (since if now - last < _KNOT_OLD_S else now, now)
        return True

    def _must_untie(self) -> bool:
        """Tell whether rows have waited for other workers for so long that one has to do all."""
        if self._knot is None or self._knot[1] - self._knot[0] < _KNOT_S:
            return False
        _log.warning("apply the partitions of all workers: rows wait for one another")
        return True

    def _beat(self, session: Session) -> None:
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
