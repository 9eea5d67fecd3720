"""The path into a MariaDB table: ours, and the server alone, which upserts the same rows.

The server is one of its own, started for the run, with its binary log on as is usual.
"""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from typing import Any

import pymysql

from bench.measure import Clock, Measured, Seen, timed
from bench.paths import WARM, Bench
from bench.scene import Pipeline
from cdc.connections.mariadb import fetch
from cdc.local import LocalMariaDB

BATCH = 50_000


def mariadb(bench: Bench, _connect: object, _number: int) -> tuple[list[Measured], str]:
    """From a topic into a table; then the table's rows, as they are, into another one."""
    assert bench.filled is not None, "the stream fills the topics"
    with LocalMariaDB() as server:
        url = server.create_database("bench")
        with closing(server.connect("bench")) as connection:
            found = [_our_sink(bench, bench.filled[0], url, connection), _upserts(connection)]
    for one in found:
        bench.tell(one)
    return found, ""


def _our_sink(bench: Bench, pipeline: Pipeline, url: str, connection: Any) -> Measured:
    apply = bench.scene.pipeline("postgresql://127.0.0.1/none", url, name=pipeline.name)
    with bench.scene.worker(apply, "sink", "copy") as process:
        progress, clock = partial(_rows_in, connection), Clock([process])
        return timed(("mariadb", "tailrace"), progress, WARM + bench.rows, clock)


def _rows_in(connection: Any) -> Seen:
    """Committed rows, whose ids run from 1 and arrive in order."""
    try:
        [(last,)] = fetch(connection, "SELECT max(id) FROM orders")
    except pymysql.ProgrammingError:  # the table is made by whoever fills it
        return Seen(0, 0)
    return Seen(last or 0, last or 0)


def _upserts(connection: Any) -> Measured:
    """The server's own upsert of rows that it has, 50,000 in a transaction."""
    fetch(connection, "CREATE TABLE alone LIKE orders")
    [(last,)] = fetch(connection, "SELECT max(id) FROM orders")
    names = [row[0] for row in fetch(connection, "SHOW COLUMNS FROM orders")]
    changes = ", ".join(f"{name} = VALUES({name})" for name in names[1:])
    began = time.monotonic()
    for first in range(1, last + 1, BATCH):
        fetch(
            connection,
            "INSERT INTO alone SELECT * FROM orders WHERE id BETWEEN %s AND %s "
            f"ON DUPLICATE KEY UPDATE {changes}",
            (first, first + BATCH - 1),
        )
    return Measured("mariadb", "limit", last, time.monotonic() - began)
