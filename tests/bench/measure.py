"""What a measurement is, and the one rule by which every side is timed.

The clock runs from the moment the first hundred rows are seen behind the path until the last row is
there for good: in a topic below the last stable offset (an open transaction does not count), in a
target visible to another connection. What was already there when the clock started is not counted,
nor is starting up. CPU is user + system of all of the worker's threads in that time; memory is the
process's high-water mark over its whole life (VmHWM, proc(5)).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import msgspec
import psutil
import psycopg
from confluent_kafka import KafkaException, TopicPartition

from cdc.kafka import KafkaConfig, consumer_client

FIRST = 100
DEADLINE_S = 900.0
OLD = "an older note"
POLL_S = 0.01


class Measured(msgspec.Struct, omit_defaults=True):
    """One run of one side of a path; `values` are further figures, by name."""

    path: str
    side: str
    rows: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    values: dict[str, float] = {}

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def cpu_per_million(self) -> float:
        """CPU seconds per million rows."""
        return self.cpu_s / self.rows * 1e6 if self.rows else 0.0

    def __str__(self) -> str:
        parts = [f"{self.path}, {self.side}:"]
        if self.rows:
            parts.append(f"{self.rate:,.0f} rows/s")
        if self.rows and self.cpu_s:
            parts.append(f"{self.cpu_per_million:.1f} CPU-s per 1 M")
        if self.peak_mb:
            parts.append(f"{self.peak_mb:.0f} MB")
        parts += [f"{name} {value:,.2f}" for name, value in self.values.items()]
        return " ".join(parts)


class Seen(NamedTuple):
    """Rows that arrived: seen at all, and there for good."""

    any: int
    durable: int


class Progress(Protocol):
    """Where rows arrive."""

    def __call__(self) -> Seen: ...


class TopicProgress:
    """Rows in the partitions of a topic; one that does not exist yet has none."""

    def __init__(self, kafka: KafkaConfig, topic: str, partitions: int = 1) -> None:
        levels = ("read_uncommitted", "read_committed")
        self._clients = [consumer_client(kafka, isolation_level=level) for level in levels]
        self._places = [TopicPartition(topic, number) for number in range(partitions)]
        self._base = Seen(0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._clients:
            client.close()

    def __call__(self) -> Seen:
        ends = []
        for client in self._clients:
            try:
                marks = [
                    client.get_watermark_offsets(place, timeout=10, cached=False)
                    for place in self._places
                ]
            except KafkaException:  # the topic is made by whoever fills it
                return Seen(0, 0)
            ends.append(sum(high for _low, high in marks))
        return Seen(ends[0] - self._base.any, ends[1] - self._base.durable)

    def forget(self) -> None:
        """Count from here on."""
        now = self()
        self._base = Seen(self._base.any + now.any, self._base.durable + now.durable)


class TableProgress:
    """Rows in a target table, whose ids run from 1 and arrive in order unless `spread`."""

    def __init__(self, url: str, *, spread: bool = False) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._query = "select count(*) from orders" if spread else "select max(id) from orders"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def __call__(self) -> Seen:
        try:
            row = self._connection.execute(self._query).fetchone()
        except psycopg.errors.UndefinedTable:
            return Seen(0, 0)
        count = int(row[0] or 0) if row else 0
        return Seen(count, count)


class RewriteProgress(TableProgress):
    """Rows of a table that had all of them with the note `OLD`, overwritten in the order of ids."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._new = 0
        [(self._all,)] = self._connection.execute("select max(id) from orders").fetchall()

    def __call__(self) -> Seen:
        """Look for the last one that is new by halving: a scan would cost what is measured."""
        high = self._all
        while self._new < high:
            middle = (self._new + high + 1) // 2
            query = "select note <> %s from orders where id = %s"
            [(is_new,)] = self._connection.execute(query, (OLD, middle)).fetchall()
            if is_new:
                self._new = middle
            else:
                high = middle - 1
        return Seen(self._new, self._new)


def peak_mb(process: psutil.Process) -> float:
    """The memory high-water mark in MB."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return float(process.memory_info().rss) / 1e6
    line = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds used so far."""
    times = [process.cpu_times() for process in processes]
    return float(sum(one.user + one.system for one in times))


class Clock(NamedTuple):
    """What is looked at between two glances at the progress."""

    processes: Sequence[psutil.Process]
    poll_s: float = POLL_S
    alive: Callable[[], object] = lambda: None  # raises when there is nothing to wait for
    deadline_s: float = DEADLINE_S


def timed(what: tuple[str, str], progress: Progress, rows: int, clock: Clock) -> Measured:
    """Time one side of a path until `rows` are there for good, by the rule of this module.

    Raises:
        AssertionError: they are not within the clock's deadline, or the worker ended.
    """
    began, cpu, first = 0.0, 0.0, 0
    deadline = time.monotonic() + clock.deadline_s
    checked = time.monotonic()
    while time.monotonic() < deadline:
        now, seen = time.monotonic(), progress()
        if not began and seen.any >= min(FIRST, rows):
            began, cpu, first = now, cpu_s(clock.processes), seen.any
        if seen.durable >= rows:
            spent = cpu_s(clock.processes) - cpu
            seconds = max(time.monotonic() - began, 1e-6)
            peak = max(map(peak_mb, clock.processes))
            return Measured(*what, max(rows - first, 0), seconds, spent, peak)
        if now - checked > 1:
            clock.alive()
            checked = now
            assert all(process.is_running() for process in clock.processes), f"{what}: ended"
        time.sleep(clock.poll_s)
    raise AssertionError(f"{what}: {progress()} of {rows} rows after {clock.deadline_s:.0f} s")


def settled(progress: Progress, quiet_s: float = 0.5) -> None:
    """Wait until nothing more arrives: a transaction's marker is an offset too."""
    last, since = progress(), time.monotonic()
    while time.monotonic() - since < quiet_s:
        time.sleep(0.05)
        if (now := progress()) != last:
            last, since = now, time.monotonic()
