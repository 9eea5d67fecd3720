"""The live terminal view: what goes in, what comes out, how long it takes, what it costs.

Counters come from the workers' heartbeats, latencies from the tracer, memory and CPU from the
operating system: three witnesses, none of which is the code being shown.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import psutil
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cdc.demo.load import Load
from cdc.demo.stage import Stage
from cdc.demo.trace import Tracer, percentile
from cdc.kafka import KafkaConfig
from cdc.status import Heartbeat, StatusReader

__all__ = ["watch"]

_REFRESH_S = 0.5
_PER_SECOND = 400
_KEPT_S = 5.0


class _Busy(threading.Thread):
    """Keeps the shop busy at an even pace until `end`."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(name="shop", daemon=True)
        self._stage = stage
        self._over = threading.Event()
        self.load: Load | None = None
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            engine = self._stage.pair.source
            with engine.session(self._stage.urls.source) as session:
                self.load = Load(engine, session, self._stage.random)
                due = time.monotonic()
                while not self._over.wait(max(0.0, due - time.monotonic())):
                    before = self.load.changes
                    self.load.act()
                    due += (self.load.changes - before) / _PER_SECOND
        except Exception as error:  # noqa: BLE001 - shown by the view, which owns the screen
            self.failure = error

    def end(self) -> None:
        self._over.set()
        self.join(10.0)


class _Rate:
    """Events per second over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, total: int) -> float:
        now = time.monotonic()
        self._seen.append((now, total))
        while now - self._seen[0][0] > _KEPT_S:
            self._seen.popleft()
        first, before = self._seen[0]
        return (total - before) / (now - first) if now > first else 0.0


class _View:
    def __init__(self, stage: Stage, busy: _Busy, tracer: Tracer) -> None:
        self._stage, self._busy, self._tracer = stage, busy, tracer
        kafka = KafkaConfig.model_validate(
            {"bootstrap": stage.urls.kafka, "registry": stage.urls.registry}
        )
        self._status = StatusReader(kafka, "demo")
        self._rates: dict[str, _Rate] = {}
        self._processes: dict[int, psutil.Process] = {}

    def close(self) -> None:
        self._status.close()

    def render(self) -> Panel:
        beats = self._status.read()
        return Panel(
            Group(self._flow(beats), Text(""), self._latency(), self._newest()),
            title=f"Tailrace demo: a shop in {self._stage.pair.source.title}, through Kafka, into "
            f"two databases of {self._stage.pair.target.title}",
            subtitle="Ctrl-C stops everything",
        )

    def _rate(self, name: str, total: int) -> str:
        return f"{self._rates.setdefault(name, _Rate()).of(total):,.0f}/s"

    def _flow(self, beats: dict[str, Heartbeat]) -> Table:
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("stage", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for name in ("rows", "rate", "lag", "memory", "cpu"):
            table.add_column(name, justify="right", no_wrap=True)
        load = self._busy.load
        total = load.changes if load is not None else 0
        table.add_row(
            f"shop ({self._stage.pair.source.title})",
            "busy",
            f"{total:,}",
            self._rate("shop", total),
        )
        for key, beat in sorted(beats.items(), key=lambda item: item[0], reverse=True):
            verb = "captured by" if key.startswith("source/") else "applied by"
            table.add_row(
                f"{verb} {beat.unit}",
                _state(beat),
                f"{beat.rows:,}",
                self._rate(key, beat.rows),
                _lag(beat),
                *self._cost(beat.pid),
            )
        return table

    def _cost(self, pid: int) -> tuple[str, str]:
        try:
            process = self._processes.setdefault(pid, psutil.Process(pid))
            memory, cpu = process.memory_info().rss, process.cpu_percent()
        except psutil.Error:
            return "", ""
        return f"{memory / 1e6:.0f} MB", f"{cpu:.0f} %"

    def _latency(self) -> Text:
        traces = list(self._tracer.traces)
        topic = [trace.in_topic_ms for trace in traces]
        target = [trace.in_target_ms for trace in traces]
        return Text(
            f"commit → topic   p50 {percentile(topic, 0.5):6.1f} ms   "
            f"p99 {percentile(topic, 0.99):6.1f} ms\n"
            f"commit → target  p50 {percentile(target, 0.5):6.1f} ms   "
            f"p99 {percentile(target, 0.99):6.1f} ms   ({len(traces)} changes followed)"
        )

    def _newest(self) -> Text:
        lines = [
            f"\nlast transaction of the shop: {self._busy.load.last if self._busy.load else ''}"
        ]
        if self._tracer.traces:
            trace = self._tracer.traces[-1]
            lines.append(
                f"last followed change “{trace.text}”: committed → in the topic after "
                f"{trace.in_topic_ms:.1f} ms → visible in the mirror after "
                f"{trace.in_target_ms:.1f} ms"
            )
        lines += [
            f"[{thread.name}] {thread.failure}"
            for thread in (self._busy, self._tracer)
            if thread.failure is not None
        ]
        return Text("\n".join(lines))


def _state(beat: Heartbeat) -> str:
    if beat.error or beat.waiting:
        return f"{beat.state}: {beat.error or beat.waiting}"
    running = [f"{table} {done:,}/{total:,}" for table, (done, total) in beat.snapshots.items()]
    return f"{beat.state} {', '.join(running)}".strip()


def _lag(beat: Heartbeat) -> str:
    if beat.lag_seconds is not None:
        return f"{beat.lag_seconds:.1f} s"
    if beat.lag_rows is not None:
        return f"{beat.lag_rows:,} rows"
    return "" if beat.lag_bytes is None else f"{beat.lag_bytes / 1e6:.1f} MB"


def watch(stage: Stage, console: Console) -> None:
    """Show the pipeline live until Ctrl-C, then say how to look further."""
    busy, tracer = _Busy(stage), Tracer(stage)
    view = _View(stage, busy, tracer)
    busy.start()
    tracer.start()
    try:
        with Live(view.render(), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(_REFRESH_S)
                stage.check()
                live.update(view.render(), refresh=True)
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        busy.end()
        tracer.end()
        view.close()
    console.print(
        "Everything is stopped. To look further:\n"
        "  cdc local up               a standing Kafka, registry and PostgreSQL\n"
        "  cdc init --help            a pipeline for a database of yours\n"
        "  make demo ARGS=--once      the same load, compared row by row",
        highlight=False,
    )
