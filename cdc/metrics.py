"""What a worker counts, for Prometheus, under the names of `NAMES`.

All carry the labels `pipeline` and `unit` ("source/shopdb"). Rates are for Prometheus to derive:
`rate(cdc_rows_total[1m])`.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["NAMES", "Metrics", "SupervisorMetrics", "metrics_table", "resident_bytes"]

NAMES: dict[str, str] = {
    "cdc_rows_total": "Rows published to Kafka, or applied to the target",
    "cdc_bytes_total": "Bytes of their records",
    "cdc_batches_total": "Transactions committed",
    "cdc_batch_rows": "Rows of one transaction, a histogram",
    "cdc_batch_bytes": "Bytes of one transaction, a histogram",
    "cdc_commit_seconds": "Time one commit took: EndTxn, or the target's transaction; a histogram",
    "cdc_latency_seconds": "From the commit in the source to the commit here, a histogram",
    "cdc_lag_bytes": "Source log, or topic, not yet read",
    "cdc_lag_rows": "Records not yet applied",
    "cdc_lag_seconds": "Age of the oldest change not yet handled, 0 when there is none",
    "cdc_slot_retained_bytes": "Log the source system keeps for this worker",
    "cdc_retries_total": "Sessions begun again after an error, by class of `error`",
    "cdc_dead_letters_total": "Dead letters written, or rows put into quarantine",
    "cdc_invalid_rows_total": "Rows that broke a `rule` of the mapping of a `table`",
    "cdc_repeats_dropped_total": "Records already applied that came again and were dropped",
    "cdc_state": "1 for the `state` the worker is in",
    "cdc_snapshot_rows": "Rows of a `table` read by the running snapshot",
    "cdc_snapshot_rows_estimated": "Rows that `table` is thought to have",
    "cdc_heartbeat_timestamp_seconds": "When the worker last said how it stands, Unix time",
    "cdc_resident_bytes": "Memory of the process",
    "cdc_cpu_seconds_total": "Processor time of the process, user and system",
    "cdc_unit_restarts_total": "Times `cdc run` started the worker again",
}
"""Every metric and what it means; the page `config.md` is made from this."""

_ROWS = (1, 10, 100, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000)
_BYTES = tuple(4.0**n for n in range(4, 14))
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

disable_created_metrics()  # type: ignore[no-untyped-call]
_Kind = TypeVar("_Kind", Counter, Gauge)


class Metrics:
    """The metrics of one worker. Its methods only count; none waits or raises."""

    def __init__(self, pipeline: str, unit: str) -> None:
        self.registry = CollectorRegistry()
        self._labels = {"pipeline": pipeline, "unit": unit}
        self.rows = self._counter("cdc_rows_total")
        self.bytes = self._counter("cdc_bytes_total")
        self.batches = self._counter("cdc_batches_total")
        self.batch_rows = self._histogram("cdc_batch_rows", _ROWS)
        self.batch_bytes = self._histogram("cdc_batch_bytes", _BYTES)
        self.commit_seconds = self._histogram("cdc_commit_seconds", _SECONDS)
        self.latency_seconds = self._histogram("cdc_latency_seconds", _SECONDS)
        lags = ("bytes", "rows", "seconds")
        names = (*(f"cdc_lag_{lag}" for lag in lags), "cdc_slot_retained_bytes")
        self._gauges = {name: self._made(Gauge, name) for name in names}
        self.dead_letters = self._counter("cdc_dead_letters_total")
        self.repeats_dropped = self._counter("cdc_repeats_dropped_total")
        self.heartbeat = self._gauge("cdc_heartbeat_timestamp_seconds")
        self._invalid = self._made(Counter, "cdc_invalid_rows_total", "table", "rule")
        self._retries = self._made(Counter, "cdc_retries_total", "error")
        self._state = self._made(Gauge, "cdc_state", "state")
        self._done = self._made(Gauge, "cdc_snapshot_rows", "table")
        self._estimated = self._made(Gauge, "cdc_snapshot_rows_estimated", "table")
        self.registry.register(_Process(self._labels))

    def committed(self, rows: int, size: int, seconds: float) -> None:
        """Count one transaction of `rows` rows and `size` bytes whose commit took `seconds`."""
        self.rows.inc(rows)
        self.bytes.inc(size)
        self.batches.inc()
        self.batch_rows.observe(rows)
        self.batch_bytes.observe(size)
        self.commit_seconds.observe(seconds)

    def retried(self, error: Exception) -> None:
        """Count one session that ended with `error` and begins again."""
        self._retries.labels(**self._labels, error=type(error).__name__).inc()

    def invalid(self, table: str, rule: str, rows: int) -> None:
        """Count rows of a target table that broke a rule."""
        self._invalid.labels(**self._labels, table=table, rule=rule).inc(rows)

    def state(self, state: str) -> None:
        """Show `state` as the only one, and that the worker is alive."""
        self._state.clear()
        self._state.labels(**self._labels, state=state).set(1)
        self.heartbeat.set(time.time())

    def show(self, name: str, value: float | None) -> None:
        """Set the gauge `name`; one that a worker never sets does not appear on its page."""
        if value is not None:
            self._gauges[name].labels(**self._labels).set(value)

    def snapshots(self, progress: dict[str, tuple[int, int]]) -> None:
        """Show the tables being read: (rows done, rows estimated) each."""
        self._done.clear()
        self._estimated.clear()
        for table, (done, estimated) in progress.items():
            self._done.labels(**self._labels, table=table).set(done)
            self._estimated.labels(**self._labels, table=table).set(estimated)

    def page(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str) -> Counter:
        return self._made(Counter, name).labels(**self._labels)

    def _gauge(self, name: str) -> Gauge:
        return self._made(Gauge, name).labels(**self._labels)

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        names = list(self._labels)
        made = Histogram(name, NAMES[name], names, registry=self.registry, buckets=buckets)
        return made.labels(**self._labels)

    def _made(self, kind: type[_Kind], name: str, *labels: str) -> _Kind:
        return kind(name, NAMES[name], [*self._labels, *labels], registry=self.registry)


class SupervisorMetrics:
    """What `cdc run` itself counts."""

    def __init__(self, pipeline: str) -> None:
        self._registry = CollectorRegistry()
        self._pipeline = pipeline
        name = "cdc_unit_restarts_total"
        self._restarts = Counter(name, NAMES[name], ["pipeline", "unit"], registry=self._registry)
        self._registry.register(_Process({"pipeline": pipeline, "unit": "supervisor"}))

    def restarted(self, unit: str) -> None:
        """Count one more start of a worker."""
        self._restarts.labels(pipeline=self._pipeline, unit=unit).inc()

    def page(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _Process(Collector):
    """Memory and processor time, read when asked for."""

    def __init__(self, labels: dict[str, str]) -> None:
        self._labels = labels

    def collect(self) -> Iterable[Metric]:
        names, values = list(self._labels), list(self._labels.values())
        used = resource.getrusage(resource.RUSAGE_SELF)
        memory = GaugeMetricFamily("cdc_resident_bytes", NAMES["cdc_resident_bytes"], labels=names)
        memory.add_metric(values, resident_bytes())
        yield memory
        said = NAMES["cdc_cpu_seconds_total"]
        cpu = CounterMetricFamily("cdc_cpu_seconds", said, labels=names)
        cpu.add_metric(values, used.ru_utime + used.ru_stime)
        yield cpu


def resident_bytes() -> int:
    """Return the resident memory of this process; where there is no /proc, its highest so far."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def metrics_table() -> str:
    """Return the metrics as a Markdown table."""
    lines = ["| metric | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {said} |" for name, said in NAMES.items()]
    return "\n".join(lines) + "\n"
