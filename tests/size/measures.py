"""Three sizes that break pipelines, each measured from outside on a worker of its own.

large_transaction   one transaction larger than memory, with rolled back savepoints, and a
                    SIGKILL while its rows are leaving
foreign_log         log written by tables that are not captured
many_tables         a publication of thousands of tables
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psycopg

from fix_pipeline import wait_until
from size.worker import Place, SourceWorker

PIECE = 5_000
PULL_ROWS = 5_000  # what a Postgres source hands over at once, at most
MIB = 1 << 20
FAR_S = 900.0

Db = psycopg.Connection[Any]


@dataclass(frozen=True)
class Transaction:
    """What was seen of one large transaction. `wrong` is empty when every row came once."""

    rows: int
    mib: float
    seconds: float
    peak_mb: float
    spilled_before_commit: int
    written_before_commit: int
    written_at_kill: int
    wrong: str


def large_transaction(place: Place, rows: int, width: int, options: str = "") -> Transaction:
    """Commit `rows` rows of `width` bytes at once; the worker dies when most have left.

    They leave in a commit of Kafka for each pull, and the worker dies at two thirds of that
    number: commits of positions alone, before, make it somewhat earlier, never later. Each fifth
    piece is followed by one of as many rows that a savepoint rolls back.
    """
    options = f"snapshot: never, publish: {{max_rows: 1}}{options}"
    last = 2 * rows // PULL_ROWS // 3
    dying = SourceWorker(place, options, f"publish.after_commit=kill:{last}")
    with psycopg.connect(place.url, autocommit=True) as db, dying:
        db.execute("create table item (id int primary key, name text)")
        db.execute("alter table item alter name set storage plain")
        dying.until_streaming(db)
        with db.transaction():
            _fill(db, rows, width)
            dying.until(lambda: dying.spilled > rows * width // 2, "half to be spilled", FAR_S)
            spilled, early = dying.spilled, place.written("item")
            peak = dying.peak_mb
        committed = time.monotonic()
        wait_until(lambda: not dying.server.running, "the worker's death", FAR_S)
        at_kill = place.written("item")
        with SourceWorker(place, options) as worker:
            wrong = _wrong(worker, rows)
            seconds = time.monotonic() - committed
            peak = max(peak, worker.peak_mb)
    return Transaction(
        rows, rows * width / MIB, seconds, peak, spilled, early, min(at_kill, rows), wrong
    )


def _fill(db: Db, rows: int, width: int) -> None:
    insert = "insert into item select i, repeat('x', {}) from generate_series({}, {}) i"
    for number, first in enumerate(range(0, rows, PIECE)):
        last = min(first + PIECE, rows) - 1
        db.execute(insert.format(width, first, last))
        if number % 5 == 0:
            with db.transaction() as inner:
                db.execute(insert.format(width, rows + first, rows + last))
                raise psycopg.Rollback(inner)


def _wrong(worker: SourceWorker, rows: int) -> str:
    """Say where the topic is not 0, 1, 2 … once each and nothing more; "" when it is."""
    for expected, key in enumerate(worker.keys("item", rows)):
        if key != zigzag(expected):
            return f"record {expected} has key {key.hex()}, not {zigzag(expected).hex()}"
    with psycopg.connect(worker.place.url, autocommit=True) as db:
        db.execute("insert into item values (-1, 'the end')")
    last = list(worker.keys("item", rows + 1))[-1]
    return "" if last == zigzag(-1) else f"{last.hex()} follows the last row"


def zigzag(number: int) -> bytes:
    """Return an int as Avro writes it."""
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


@dataclass(frozen=True)
class Log:
    """MiB of log ahead of what was confirmed: the most ever, and when kept log was little again."""

    mib: float
    rate: float
    samples: int
    most_unconfirmed: float
    most_kept: float
    settled_s: float
    peak_mb: float


_GAPS = """
select (pg_current_wal_lsn() - confirmed_flush_lsn)::float8 / 1048576,
       (pg_current_wal_lsn() - restart_lsn)::float8 / 1048576
from pg_replication_slots where database = current_database()
"""


def foreign_log(place: Place, mib: int, rate: float, kept: float) -> Log:
    """Write `mib` MiB of log at `rate` MiB/s into a table that is not captured.

    `settled_s` is how long after the end the slot keeps more than `kept` MiB.
    """
    worker = SourceWorker(place, 'tables: ["public.item"]')
    with psycopg.connect(place.url, autocommit=True) as db, worker:
        db.execute("create table item (id int primary key); insert into item values (1)")
        db.execute("create table noise (id int, payload text storage external)")
        worker.until_streaming(db)
        worker.until(lambda: place.written("item"), "the snapshot")
        begun, start = time.monotonic(), _lsn(db)
        unconfirmed, retained, written = [0.0], [0.0], 0.0
        while written < mib:
            db.execute("insert into noise select 1, repeat('x', 8000) from generate_series(1, 128)")
            if len(unconfirmed) % 256 == 0:
                db.execute("truncate noise")
            written = (_lsn(db) - start) / MIB
            _sample(db, unconfirmed, retained)
            time.sleep(max(0.0, begun + written / rate - time.monotonic()))
        ended = time.monotonic()

        def settled() -> bool:
            _sample(db, unconfirmed, retained)
            return retained[-1] <= kept

        worker.until(settled, f"less than {kept} MiB to be kept", 120)
        settled_s, peak = time.monotonic() - ended, worker.peak_mb
    speed = written / (ended - begun)
    most = (max(unconfirmed), max(retained))
    return Log(written, speed, len(unconfirmed), *most, settled_s, peak)


def _sample(db: Db, unconfirmed: list[float], retained: list[float]) -> None:
    row = db.execute(_GAPS).fetchone()
    assert row is not None
    unconfirmed.append(row[0])
    retained.append(row[1])


def _lsn(db: Db) -> int:
    row = db.execute("select (pg_current_wal_lsn() - '0/0')::bigint").fetchone()
    assert row is not None
    return int(row[0])


@dataclass(frozen=True)
class Tables:
    """From the start of the process to the first change of one of `tables` tables in Kafka."""

    tables: int
    start_s: float
    restart_s: float
    peak_mb: float


def many_tables(place: Place, count: int) -> Tables:
    """Start on `count` tables that are empty, and start again."""
    with psycopg.connect(place.url, autocommit=True) as db:
        for first in range(0, count, 500):
            names = range(first, min(first + 500, count))
            create = "create table t{} (id int primary key, name text, price numeric(10, 2));"
            db.execute("".join(create.format(number) for number in names))
        worker = SourceWorker(place, "heartbeat: 1")
        first_s, peak = _first_change(place, worker, db, 1)
        second_s, second_peak = _first_change(place, worker, db, 2)
    return Tables(count, first_s, second_s, max(peak, second_peak))


def _first_change(place: Place, worker: SourceWorker, db: Db, number: int) -> tuple[float, float]:
    begun = time.monotonic()
    with worker:
        worker.until_streaming(db, 300)
        db.execute(f"insert into t{number} values (1, 'first', 1.5)")
        worker.until(lambda: place.written(f"t{number}"), "the first change", 300)
        return time.monotonic() - begun, worker.peak_mb
