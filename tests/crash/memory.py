"""Whether a worker grows with what it has carried: memory against events, by regression.

One source and one sink that nobody kills carry millions of changes. The first part, in which caches
and buffers fill, is left out; what is fitted to the rest is megabytes per million events.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import psutil
import psycopg

from crash.scenario import SINGLE, Scenario, Setting
from crash.stage import Stage
from fix_pipeline import wait_until

ROWS = 100_000
BATCH = 20_000
WARM = 0.4
Sample = tuple[float, float]
"""(millions of events, MB of resident memory)"""

FILL = "insert into bulk (id, note) select i, 'first' from generate_series(%s, %s) i"
CHANGE = """
update bulk set note = 'round ' || %s, version = nextval('versions') where id between %s and %s
"""
APPLIED = "select sum(next_offset) from tailrace.cursors where topic = %s"


def slope(samples: Sequence[Sample]) -> float:
    """Return the least-squares slope of the samples behind the warm part, MB per million."""
    last = max((x for x, _ in samples), default=0.0)
    kept = [(x, y) for x, y in samples if x >= WARM * last]
    mean_x = sum(x for x, _ in kept) / len(kept)
    mean_y = sum(y for _, y in kept) / len(kept)
    spread = sum((x - mean_x) ** 2 for x, _ in kept)
    return sum((x - mean_x) * (y - mean_y) for x, y in kept) / spread if spread else 0.0


class MemorySampler(threading.Thread):
    """Looks at both workers' memory and at how much was applied, twice a second."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(name="memory", daemon=True)
        self._scenario = scenario
        self._over = threading.Event()
        self.samples: dict[str, list[Sample]] = {name: [] for name in scenario.crew.workers}

    def run(self) -> None:
        url = self._scenario.targets[SINGLE.sink]
        with psycopg.connect(url, autocommit=True) as connection:
            topic = self._scenario.topic(SINGLE, "bulk")
            while not self._over.wait(0.5):
                row = connection.execute(APPLIED, (topic,)).fetchone()
                events = float((row or (0,))[0] or 0) / 1e6
                for name, worker in self._scenario.crew.workers.items():
                    if worker.process is not None:
                        resident = psutil.Process(worker.process.pid).memory_info().rss / 1e6
                        self.samples[name].append((events, resident))

    def end(self) -> dict[str, list[Sample]]:
        self._over.set()
        self.join()
        return self.samples


def measure_memory(stage: Stage, folder: Path, events: int) -> dict[str, dict[str, float]]:
    """Carry `events` changes; return slope, largest memory and events of each worker."""
    with Scenario(stage, Setting(layouts=(SINGLE,)), folder) as scenario:
        scenario.wait_for_slots()
        for url in (scenario.source, scenario.targets[SINGLE.sink]):
            with psycopg.connect(url) as connection:
                connection.execute("alter table bulk disable trigger user")
        topic = scenario.topic(SINGLE, "bulk")
        with psycopg.connect(scenario.targets[SINGLE.sink], autocommit=True) as target:

            def applied() -> int:
                row = target.execute(APPLIED, (topic,)).fetchone()
                return int((row or (0,))[0] or 0)

            wait_until(applied, "the first snapshot to be applied", 120)
            sampler = MemorySampler(scenario)
            sampler.start()
            _write(scenario.source, events)
            wait_until(lambda: applied() >= events, "everything to be applied", 60 + events / 1000)
            samples = sampler.end()
    return {
        name: {
            "slope": round(slope(found), 2),
            "peak": round(max(y for _, y in found), 1),
            "events": events,
        }
        for name, found in samples.items()
    }


def _write(url: str, events: int) -> None:
    first = 2_000_000
    with psycopg.connect(url, autocommit=True) as connection:
        for low in range(first, first + ROWS, BATCH):
            connection.execute(FILL, (low, low + BATCH - 1))
        for number in range(events // BATCH - ROWS // BATCH):
            low = first + number * BATCH % ROWS
            connection.execute(CHANGE, (number, low, low + BATCH - 1))
