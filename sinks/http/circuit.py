"""When the endpoint is left alone: after failures, and for as long as it asks for.

    closed ─ a failure ─▶ open until then ─▶ the next request is the trial ─ ok ─▶ closed
                              ▲                    └ failure: open, for longer
                              └────────────────────┘

It outlives the worker's sessions, each of which ends with a failure: the worker's own retry then
finds it open, says so in `cdc status`, and touches neither Kafka nor the endpoint.
"""

from __future__ import annotations

import time

from cdc.errors import TargetUnavailable
from cdc.retry import back_off

__all__ = ["Circuit"]

_LONGEST_S = 3600.0


class Circuit:
    """Counts failures in a row. `until` is a time of `time.monotonic`."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0
        self._reason = ""

    def succeeded(self) -> None:
        """Close: the endpoint works."""
        self._failures = 0

    def failed(self, reason: str, wanted_s: float = 0.0) -> TargetUnavailable:
        """Open, and return the error that says so; `wanted_s` is how long the endpoint asks for."""
        self._reason = reason
        pause = max(back_off(self._failures), min(wanted_s, _LONGEST_S))
        self._failures += 1
        self._until = time.monotonic() + pause
        return self._error(pause)

    def check(self) -> None:
        """Raise `errors.TargetUnavailable` while it is open."""
        left = self._until - time.monotonic()
        if left > 0:
            raise self._error(left)

    def _error(self, seconds: float) -> TargetUnavailable:
        times = "" if self._failures == 1 else f" ({self._failures} times in a row)"
        return TargetUnavailable(
            f"{self._reason}{times}",
            hint=f"Nothing is sent for {seconds:.0f} s; then the same request again.",
        )
