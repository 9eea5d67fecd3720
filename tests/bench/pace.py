"""What is not a rate: how long a commit takes to be seen, and what workers cost that wait."""

from __future__ import annotations

import statistics
import threading
import time

import psycopg

from bench.measure import Measured, TableProgress, TopicProgress, cpu_s, peak_mb
from bench.paths import Bench
from bench.scene import INSERT, NOTE, fill
from fix_pipeline import wait_until

PER_SECOND = 500
SETTLE_S = 2.0  # not counted: the first target transaction makes the table
IDLE_S = 10.0
ORDER = (
    INSERT.replace("{note}", NOTE)
    .replace("{first}", "%(id)s::int")
    .replace("{last}", "%(id)s::int")
    .replace("i % ", "i %% ")
)


class Watch(threading.Thread):
    """Notes when each order becomes visible in a target, to two milliseconds."""

    def __init__(self, url: str, last: int) -> None:
        super().__init__(daemon=True)
        self._connection = psycopg.connect(url, autocommit=True)
        self._last = last
        self.seen: dict[int, float] = {}

    def run(self) -> None:
        """Ask for news until the last order is there; the deadline is the joiner's."""
        newest = 0
        while newest < self._last:
            query = "select id from orders where id > %s order by id"
            rows = self._connection.execute(query, (newest,), prepare=True).fetchall()
            now = time.monotonic()
            self.seen.update((identity, now) for (identity,) in rows)
            newest = rows[-1][0] if rows else newest
            time.sleep(0.002)
        self._connection.close()


def _write(url: str, first: int, last: int) -> dict[int, float]:
    """Commit one order at a time at a steady pace; when each commit had returned."""
    committed: dict[int, float] = {}
    with psycopg.connect(url, autocommit=True) as connection:
        began = time.monotonic()
        for identity in range(first, last + 1):
            due = began + (identity - first) / PER_SECOND
            if (early := due - time.monotonic()) > 0:
                time.sleep(early)
            connection.execute(ORDER, {"id": identity}, prepare=True)
            committed[identity] = time.monotonic()
    return committed


def latency(bench: Bench, _connect: object, number: int) -> tuple[list[Measured], str]:
    """From the commit in the source to a reader of the target, one order per transaction."""
    scene, source, target = bench.scene, bench.scene.source(), bench.scene.database()
    pipeline = scene.pipeline(source, target)
    last = min(bench.rows, 20 * PER_SECOND)
    with (
        scene.worker(pipeline, "source", pipeline.name) as reader,
        scene.worker(pipeline, "sink", "copy") as writer,
        psycopg.connect(source, autocommit=True) as connection,
        TableProgress(target) as progress,
    ):
        slot = "select 1 from pg_replication_slots where active and database = current_database()"
        wait_until(lambda: connection.execute(slot).fetchall(), "our slot", 60)
        fill(source, 1, 10)
        wait_until(lambda: progress().durable >= 10, "the first orders", 60)
        watch = Watch(target, last)
        watch.start()
        committed = _write(source, 11, last)
        watch.join(60)
        assert not watch.is_alive(), f"{len(watch.seen)} of {last} orders are visible"
        peaks = {"source MB": peak_mb(reader), "sink MB": peak_mb(writer)}
    taken = [1000 * (watch.seen[one] - at) for one, at in committed.items()]
    values = _percentiles(taken[min(int(SETTLE_S * PER_SECOND), len(taken) // 2) :])
    moments = list(committed.values())
    values["tx/s"] = (len(moments) - 1) / (moments[-1] - moments[0])
    scene.drop(source)
    scene.drop(target)
    found = Measured("latency", "tailrace", values={**values, **peaks})
    bench.tell(f"run {number + 1}: {found}")
    return [found], ""


def _percentiles(milliseconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(milliseconds, n=100)
    return {"p50 ms": cuts[49], "p99 ms": cuts[98], "max ms": max(milliseconds)}


def idle(bench: Bench, _connect: object, number: int) -> tuple[list[Measured], str]:
    """What a source and a sink cost that have nothing to do, as a share of one core."""
    scene, source, target = bench.scene, bench.scene.source(), bench.scene.database()
    fill(source, 1, 1000)
    pipeline = scene.pipeline(source, target, snapshot="initial")
    with (
        scene.worker(pipeline, "source", pipeline.name) as reader,
        scene.worker(pipeline, "sink", "copy") as writer,
        TopicProgress(scene.kafka, pipeline.topic) as published,
        TableProgress(target) as applied,
    ):
        wait_until(lambda: published().durable >= 1000, "the snapshot", 60)
        wait_until(lambda: applied().durable >= 1000, "the snapshot in the target", 60)
        time.sleep(5.0)  # let both come to rest
        before = [cpu_s([process]) for process in (reader, writer)]
        time.sleep(IDLE_S)
        found = [
            Measured("idle", side, peak_mb=peak_mb(process), values={"% of a core": share})
            for side, process, used in zip(
                ("source", "sink"), (reader, writer), before, strict=True
            )
            for share in [100 * (cpu_s([process]) - used) / IDLE_S]
        ]
    scene.drop(source)
    scene.drop(target)
    for one in found:
        bench.tell(f"run {number + 1}: {one}")
    return found, ""
