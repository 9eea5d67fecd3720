"""When the endpoint is left alone: after failures, and for as long as it asks for.

    closed ─ a failure ─▶ open until then ─▶ the next request is the trial ─ ok ─▶ closed
                              ▲                    └ failure: open, for longer
                              └────────────────────┘

It outlives the worker's sessions, each of which ends with a failure: the worker's own retry then
finds it open, says so in `cdc status`, and touches neither Kafka nor the endpoint.

What was sent before it opened, and is answered after, neither opens nor closes it once more.
"""

from __future__ import annotations

import threading
import time

from cdc.errors import TargetUnavailable
from cdc.retry import back_off

__all__ = ["Circuit"]

_LONGEST_S = 3600.0


class Circuit:
    """Counts failures in a row; for any number of threads. `until` is of `time.monotonic`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened = 0
        self._failures = 0
        self._until = 0.0
        self._reason = ""

    @property
    def is_on_trial(self) -> bool:
        """Whether nothing was done since the last failure."""
        return self._failures > 0

    def check(self) -> int:
        """Return how often it was opened, to be told with what comes of the request.

        Raises `errors.TargetUnavailable` while it is open.
        """
        with self._lock:
            left = self._until - time.monotonic()
            if left > 0:
                raise self._error(left)
            return self._opened

    def succeeded(self, opened: int) -> None:
        """Close: the endpoint works. `opened` is what `check` returned."""
        with self._lock:
            if opened == self._opened:
                self._failures = 0

    def failed(self, opened: int, reason: str, wanted_s: float = 0.0) -> TargetUnavailable:
        """Open, and return the error that says so; `wanted_s` is how long the endpoint asks for."""
        with self._lock:
            now, pause = time.monotonic(), min(wanted_s, _LONGEST_S)
            if opened == self._opened:
                pause = max(back_off(self._failures), pause)
                self._failures += 1
                self._opened += 1
            if now + pause >= self._until:
                self._reason, self._until = reason, now + pause
            return self._error(self._until - now)

    def _error(self, seconds: float) -> TargetUnavailable:
        times = "" if self._failures == 1 else f" ({self._failures} times in a row)"
        return TargetUnavailable(
            f"{self._reason}{times}",
            hint=f"Nothing is sent for {seconds:.0f} s; then the same request again.",
        )
