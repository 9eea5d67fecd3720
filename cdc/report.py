"""Where a worker says how it stands: one call feeds the metrics, the heartbeat and the probes.

Heartbeats are written once a second and at each change of state, whatever the worker's own pace.
Nothing here raises or waits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import structlog

from cdc.endpoint import Health
from cdc.errors import CdcError
from cdc.metrics import Metrics
from cdc.publish import Committed
from cdc.source import SourceStatus
from cdc.status import BEAT_S, Heartbeat, StatusWriter

__all__ = ["Report", "SourceReport"]

_RATE_S = 10.0
_UNREADY = frozenset(
    {"starting", "acquiring", "retrying", "waiting", "paused", "stopped", "failed"}
)
_log = structlog.get_logger(__name__)


class Report:
    """What sources and sinks have in common. Single-threaded."""

    def __init__(self, metrics: Metrics, status: StatusWriter) -> None:
        self.metrics = metrics
        self.health = Health()
        self._status = status
        self.endpoint = ""
        self.worker = status.worker
        self._last = Heartbeat("", "starting")
        self._written = 0.0
        self._recent: deque[tuple[float, int]] = deque()
        self._totals = {"rows": 0, "bytes": 0, "retries": 0, "dead_letters": 0}
        self._position: dict[str, Any] | None = None

    def committed(self, rows: int, size: int, seconds: float) -> None:
        """Count one transaction of `rows` rows and `size` bytes whose commit took `seconds`."""
        self.metrics.committed(rows, size, seconds)
        self._totals["rows"] += rows
        self._totals["bytes"] += size
        self._recent.append((time.monotonic(), rows))

    def dead_lettered(self, count: int) -> None:
        """Count records that went to the dead-letter topic, or rows to the quarantine."""
        self.metrics.dead_letters.inc(count)
        self._totals["dead_letters"] += count

    def repeats_dropped(self, count: int) -> None:
        """Count records that were applied before and came again (R5)."""
        self.metrics.repeats_dropped.inc(count)

    def stand(
        self, state: str, error: CdcError | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Say how the worker stands; `facts` are further fields of `Heartbeat`."""
        beat = Heartbeat("", state, **(facts or {}))
        beat.endpoint, beat.position = self.endpoint, beat.position or self._position
        if error is not None:
            beat.error, beat.hint = str(error), error.hint
        if error is not None and str(error) != self._last.error:
            self.metrics.retried(error)
            self._totals["retries"] += 1
            _log.warning("trouble", state=state, error=str(error), hint=error.hint)
        reason = f"{state}: {beat.waiting or beat.error}".rstrip(": ")
        self.health.beat(ready=state not in _UNREADY, reason=reason)
        if state != self._last.state and error is None:
            _log.info("state", state=state, waiting=beat.waiting)
        self._show(beat)
        changed = (state, beat.waiting, beat.error) != (
            self._last.state,
            self._last.waiting,
            self._last.error,
        )
        self._last = beat
        if changed or time.monotonic() - self._written >= BEAT_S:
            self._written = time.monotonic()
            self._status.beat(self._with_totals(beat))

    def end(self, state: str, error: CdcError | None = None) -> None:
        """Say the last word: "stopped", or "failed" with the error."""
        last = Heartbeat("", state, position=self._position, endpoint="")
        if error is not None:
            last.error, last.hint = str(error), error.hint
        self.health.beat(ready=False, reason=f"{state}: {last.error}".rstrip(": "))
        self.metrics.state(state)
        self._status.close(self._with_totals(last))

    def _show(self, beat: Heartbeat) -> None:
        self.metrics.state(beat.state)
        self.metrics.show("cdc_lag_bytes", beat.lag_bytes)
        self.metrics.show("cdc_lag_rows", beat.lag_rows)
        self.metrics.show("cdc_lag_seconds", beat.lag_seconds)
        self.metrics.show("cdc_slot_retained_bytes", beat.retained_bytes)
        self.metrics.snapshots(beat.snapshots)

    def _with_totals(self, beat: Heartbeat) -> Heartbeat:
        now = time.monotonic()
        while self._recent and now - self._recent[0][0] > _RATE_S:
            self._recent.popleft()
        beat.rows_per_second = round(sum(rows for _, rows in self._recent) / _RATE_S, 1)
        beat.rows, beat.bytes = self._totals["rows"], self._totals["bytes"]
        beat.retries, beat.dead_letters = self._totals["retries"], self._totals["dead_letters"]
        return beat


class SourceReport(Report):
    """The `cdc.worker.Reporter` of a source."""

    _behind = 0.0

    def published(self, committed: Committed) -> None:
        """Count one committed transaction."""
        self.committed(committed.rows, committed.bytes, committed.seconds)
        self._position = committed.position.encode()
        if committed.quarantined:
            self.dead_lettered(committed.quarantined)
            _log.warning("rows put into quarantine", rows=committed.quarantined)
        if committed.oldest_us:
            self._behind = max(0.0, time.time() - committed.oldest_us / 1_000_000)
            self.metrics.latency_seconds.observe(self._behind)

    def beat(self, status: SourceStatus, error: CdcError | None) -> None:
        """Tell the present state."""
        facts = {
            "waiting": "" if error is not None else status.waiting,
            "lag_bytes": status.lag_bytes,
            "lag_seconds": self._behind if status.lag_bytes else 0.0,
            "retained_bytes": status.retained_bytes,
            "snapshots": status.snapshots,
        }
        self.stand(status.state, error, facts)
