"""The path into a SQLite file: ours, and SQLite alone, which upserts the same rows.

A file has no server of its own: what the writing costs is in the worker's CPU.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path

from bench.measure import Clock, Measured, Seen, timed
from bench.paths import WARM, Bench
from bench.scene import Pipeline
from sinks.sqlite.files import connect

BATCH = 50_000


def sqlite(bench: Bench, _connect: object, _number: int) -> tuple[list[Measured], str]:
    """From a topic into a file; then the file's rows, bound as they are, into another one."""
    assert bench.filled is not None, "the stream fills the topics"
    target = bench.scene.folder / f"{bench.scene.name('file')}.db"
    found = [_our_sink(bench, bench.filled[0], target)]
    found.append(_upserts(target))
    for one in found:
        bench.tell(one)
    return found, ""


def _our_sink(bench: Bench, pipeline: Pipeline, target: Path) -> Measured:
    apply = bench.scene.pipeline("postgresql://127.0.0.1/none", target, name=pipeline.name)
    with bench.scene.worker(apply, "sink", "copy") as process:
        progress, clock = partial(_rows_in, target), Clock([process])
        return timed(("sqlite", "tailrace"), progress, WARM + bench.rows, clock)


def _rows_in(path: Path) -> Seen:
    """Committed rows, whose ids run from 1 and arrive in order."""
    if not path.exists():
        return Seen(0, 0)
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        try:
            [(last,)] = connection.execute("SELECT max(id) FROM orders")
        except sqlite3.OperationalError:  # the table is made by whoever fills it
            return Seen(0, 0)
    return Seen(last or 0, last or 0)


def _upserts(filled: Path) -> Measured:
    """SQLite's own upsert of bound rows, with our settings, 50,000 in a transaction."""
    count, seconds = 0, 0.0
    with (
        closing(sqlite3.connect(filled)) as source,
        closing(connect(filled.with_suffix(".alone"))) as target,
    ):
        [(made,)] = source.execute("SELECT sql FROM sqlite_master WHERE name = 'orders'")
        target.execute(made)
        columns = [row[1] for row in source.execute("PRAGMA table_info(orders)")]
        changes = ", ".join(f"{name} = excluded.{name}" for name in columns[1:])
        places = ", ".join("?" for _ in columns)
        upsert = f"INSERT INTO orders VALUES ({places}) ON CONFLICT (id) DO UPDATE SET {changes}"
        cursor = source.execute("SELECT * FROM orders ORDER BY id")
        while rows := cursor.fetchmany(BATCH):
            began = time.monotonic()
            target.execute("BEGIN IMMEDIATE")
            target.executemany(upsert, rows)
            target.execute("COMMIT")
            seconds += time.monotonic() - began
            count += len(rows)
    return Measured("sqlite", "limit", count, seconds)
