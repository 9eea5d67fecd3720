"""`make bench`: rows per second of each path, side by side with what the servers alone can do.

    python tests/bench/run.py --rows 500000 --runs 3

Each path runs in a worker process of its own, on the same servers and rows, one path after the
other; a rate is rows over the time from the first rows seen behind the path to the last, so that
start-up does not count. CPU is user + system of the worker; memory is its high-water mark.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from cdc.brokers import high_watermark, topic_ids
from cdc.kafka import KafkaConfig, admin_client
from cdc.local import LocalStack
from cdc.local.process import Command, Server, end_of_log
from fix_pipeline import wait_until

HERE = Path(__file__).parent
TOPIC = "shopdb.public.orders"
BAR = 20_000

CONFIG = """
pipeline: {name}
kafka: {{bootstrap: "{kafka}", registry: "{registry}"}}
sources:
  shopdb: {{type: postgres, url: "{source}", tables: ["public.orders"], snapshot: {snapshot}}}
sinks:
  copy: {{type: postgres, url: "{target}", tables: ["shopdb.public.orders"]}}
"""

INSERT = """
insert into orders select i, i % 10000, (array['new','paid','shipped','cancelled'])[1 + i % 4],
  (i % 100000) / 100.0, 'EUR', 'note number ' || i || ' lorem ipsum dolor', i % 2 = 0, now(),
  now()::timestamp, jsonb_build_object('sku', 'A' || i, 'qty', i % 10)
from generate_series({first}, {last}) i
"""


@dataclass
class Measured:
    """One run of one path."""

    path: str
    rows: int
    seconds: float
    cpu_s: float = 0.0
    peak_mb: float = 0.0

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


@contextmanager
def worker(folder: Path, config: Path, *arguments: str) -> Iterator[psutil.Process]:
    """Run one worker process while the block runs."""
    argv = [sys.executable, "-m", "cdc", *arguments, "--config", str(config)]
    env = {k: v for k, v in os.environ.items() if k.startswith(("PYTHON", "CDC_"))}
    server = Server(Command(f"worker-{time.time_ns()}", lambda: argv, folder, env))
    server.start()
    try:
        assert server.pid is not None
        yield psutil.Process(server.pid)
        assert server.running, end_of_log(server.log)
    finally:
        server.stop(20.0)


def cost(process: psutil.Process) -> tuple[float, float]:
    """Return CPU seconds and the memory high-water mark in MB (VmHWM, proc(5))."""
    times = process.cpu_times()
    status = Path(f"/proc/{process.pid}/status")
    peak = process.memory_info().rss / 1e6
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        peak = int(line.split()[1]) / 1e3
    return times.user + times.system, peak


def timed(count: Callable[[], int], target: int, process: psutil.Process) -> tuple[int, float]:
    """Watch a counter; return the rows and seconds between its first sight and `target`."""
    first, began = 0, 0.0
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        now = count()
        if now and not first:
            first, began = now, time.monotonic()
        if now >= target:
            return target - first, max(time.monotonic() - began, 1e-6)
        assert process.is_running(), "the worker ended"
        time.sleep(0.05)
    raise AssertionError(f"{count()} of {target} rows after 900 s")


class Bench:
    """The servers, the rows, and one method per path."""

    def __init__(self, stack: LocalStack, folder: Path, rows: int) -> None:
        self._stack = stack
        self._folder = folder
        self._rows = rows
        self._number = 0
        places = {"bootstrap": stack.kafka.bootstrap, "registry": stack.registry.url}
        self._kafka = KafkaConfig.model_validate(places)

    def _scene(self, snapshot: str) -> tuple[Path, str, str]:
        """Make fresh databases and a pipeline of its own; return config and both URLs."""
        self._number += 1
        self._forget_topic()
        source = self._stack.postgres.create_database(f"source{self._number}")
        target = self._stack.postgres.create_database(f"target{self._number}")
        with psycopg.connect(source) as connection:
            connection.execute((HERE / "orders.sql").read_bytes())
        config = self._folder / f"bench{self._number}.yaml"
        config.write_text(
            CONFIG.format(
                name=f"bench{self._number}",
                kafka=self._stack.kafka.bootstrap,
                registry=self._stack.registry.url,
                source=source,
                target=target,
                snapshot=snapshot,
            )
        )
        return config, source, target

    def _forget_topic(self) -> None:
        if topic_ids(self._kafka, [TOPIC]):
            admin = admin_client(self._kafka)  # lives until its answer is here
            admin.delete_topics([TOPIC])[TOPIC].result(30)
            wait_until(lambda: not topic_ids(self._kafka, [TOPIC]), "the topic to go")

    def _fill(self, url: str, first: int, last: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for begin in range(first, last + 1, 10_000):
                end = min(begin + 9_999, last)
                connection.execute(INSERT.format(first=begin, last=end))

    def _published(self) -> int:
        if not topic_ids(self._kafka, [TOPIC]):
            return 0
        return high_watermark(self._kafka, TOPIC, 0)

    def stream(self) -> list[Measured]:
        """Source → topic from the log, then topic → target with what is there."""
        config, source, target = self._scene("never")
        with worker(self._folder, config, "source", "shopdb"), psycopg.connect(source) as c:
            c.autocommit = True
            wait_until(
                lambda: c.execute("select 1 from pg_replication_slots where active").fetchone(),
                "the slot",
                60,
            )
            c.execute(INSERT.format(first=1, last=100))
            wait_until(self._published, "the first rows", 60)
        self._fill(source, 101, self._rows)
        with worker(self._folder, config, "source", "shopdb") as process:
            base = self._published()
            rows, seconds = timed(
                lambda: max(0, self._published() - base), self._rows - 100, process
            )
            measured = Measured("log → topic", rows, seconds, *cost(process))
        return [measured, self._apply(config, target)]

    def _apply(self, config: Path, target: str) -> Measured:
        with psycopg.connect(target, autocommit=True) as connection:

            def applied() -> int:
                exists = connection.execute("select to_regclass('public.orders')").fetchone()
                if exists is None or exists[0] is None:
                    return 0
                row = connection.execute("select count(*) from public.orders").fetchone()
                return 0 if row is None else int(row[0])

            with worker(self._folder, config, "sink", "copy") as process:
                rows, seconds = timed(applied, self._rows, process)
                return Measured("topic → target", rows, seconds, *cost(process))

    def idle(self) -> list[Measured]:
        """What a source and a sink cost that have nothing to do: CPU seconds in ten."""
        config, source, _ = self._scene("initial")
        self._fill(source, 1, 1000)
        with (
            worker(self._folder, config, "source", "shopdb") as reader,
            worker(self._folder, config, "sink", "copy") as writer,
        ):
            wait_until(lambda: self._published() >= 1000, "the snapshot", 60)
            time.sleep(5.0)
            before = [cost(process)[0] for process in (reader, writer)]
            time.sleep(10.0)
            after = [cost(process) for process in (reader, writer)]
        names = ("idle source, CPU-s in 10 s", "idle sink, CPU-s in 10 s")
        return [
            Measured(name, 0, 10.0, cpu - begun, peak)
            for name, begun, (cpu, peak) in zip(names, before, after, strict=True)
        ]

    def snapshot(self) -> list[Measured]:
        """Source → topic from the table."""
        config, source, _ = self._scene("initial")
        self._fill(source, 1, self._rows)
        with worker(self._folder, config, "source", "shopdb") as process:
            rows, seconds = timed(self._published, self._rows, process)
            measured = Measured("snapshot → topic", rows, seconds, *cost(process))
        return [measured, self._copy_limit(source)]

    def _copy_limit(self, source: str) -> Measured:
        """What one COPY connection of the server delivers to a reader that does nothing."""
        with psycopg.connect(source) as connection, connection.cursor() as cursor:
            began, rows = time.monotonic(), 0
            with cursor.copy("copy orders to stdout") as copy:
                for block in copy:
                    rows += bytes(block).count(b"\n")
            return Measured("limit: COPY to nowhere", rows, time.monotonic() - began)


def report(found: list[Measured], console: Console) -> dict[str, dict[str, float]]:
    """Print medians and return them."""
    table = Table(title=f"rows of 10 columns, medians; bar {BAR:,} rows/s", title_justify="left")
    for name in ("path", "rows/s", "CPU-s per 1 M", "peak MB", "runs"):
        table.add_column(name, justify="left" if name == "path" else "right")
    out: dict[str, dict[str, float]] = {}
    for path in dict.fromkeys(m.path for m in found):
        runs = [m for m in found if m.path == path]
        rate = statistics.median(m.rate for m in runs)
        cpu = statistics.median(m.cpu_s / m.rows * 1e6 if m.rows else m.cpu_s for m in runs)
        peak = max(m.peak_mb for m in runs)
        table.add_row(path, f"{rate:,.0f}", f"{cpu:.1f}", f"{peak:.0f}", str(len(runs)))
        out[path] = {"rows_per_s": rate, "cpu_s_per_million": cpu, "peak_mb": peak}
    console.print(table)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    asked = parser.parse_args()
    console = Console()
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-") as folder, LocalStack() as stack:
        bench = Bench(stack, Path(folder), asked.rows)
        for number in range(asked.runs):
            for path in (bench.stream, bench.snapshot, bench.idle):
                found += path()
                console.print(
                    f"run {number + 1}: "
                    + ", ".join(f"{m.path} {m.rate:,.0f}/s" for m in found[-2:])
                )
    medians = report(found, console)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_bytes(
        orjson.dumps(
            {"medians": medians, "runs": [asdict(m) for m in found]}, option=orjson.OPT_INDENT_2
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
