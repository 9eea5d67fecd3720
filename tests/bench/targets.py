"""The paths into the targets beside PostgreSQL, and what poison costs: one sink worker of ours.

What lies in a target is counted by the worker itself, on its page of metrics, when the target has
committed it: not every target lets somebody else look in meanwhile. Each sink has a name of its
own, since some keep their cursors in the pipeline's topics.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import httpx
import psycopg

from bench.measure import Clock, Measured, Seen, TableProgress, timed
from bench.paths import WARM, Bench, published, warm_pipelines
from bench.scene import NOTE, ORDERS, Pipeline, fill
from cdc.local.process import free_port

Place = Mapping[str, object]
"""The options of a sink, as they stand in the pipeline file."""

POLL_S = 0.05
LONG = f"case when i % 100 = 50 then repeat('x', 100) else {NOTE} end"


def duckdb(bench: Bench, _connect: object, _number: int) -> tuple[list[Measured], str]:
    """From a topic into a DuckDB file."""
    file = bench.scene.folder / f"{bench.scene.name('file')}.duckdb"
    return [_our_sink(bench, "duckdb", {"type": "duckdb", "path": str(file)})], ""


def files(bench: Bench, _connect: object, _number: int) -> tuple[list[Measured], str]:
    """From a topic into Parquet files of a folder."""
    folder = bench.scene.folder / bench.scene.name("lake")
    folder.mkdir()
    return [_our_sink(bench, "files", {"type": "files", "path": str(folder)})], ""


def kafka(bench: Bench, _connect: object, _number: int) -> tuple[list[Measured], str]:
    """From a topic into another one, as JSON."""
    topic = bench.scene.name("copy")
    found = _our_sink(bench, "kafka", {"type": "kafka", "topic": topic})
    bench.scene.forget(topic)
    return [found], ""


def http(bench: Bench, _connect: object, _number: int) -> tuple[list[Measured], str]:
    """From a topic to an endpoint on loopback that says yes to everything, 500 to a request."""
    with receiver() as url:
        return [_our_sink(bench, "http", {"type": "http", "url": url, "batch": 500})], ""


def _our_sink(bench: Bench, path: str, place: Place) -> Measured:
    assert bench.filled is not None, "the stream fills the topics"
    name, port, nowhere = bench.scene.name("to"), free_port(), "postgresql://127.0.0.1/none"
    options = {"name": bench.filled[0].name, "sink": name, "metrics": port}
    apply = bench.scene.pipeline(nowhere, place, **options)
    with (
        httpx.Client(trust_env=False) as client,
        bench.scene.worker(apply, "sink", name) as process,
    ):
        progress = partial(applied, client, f"http://127.0.0.1:{port}/metrics")
        found = timed(
            (path, "tailrace"), progress, WARM + bench.rows, Clock([process], poll_s=POLL_S)
        )
    bench.tell(found)
    return found


def applied(client: httpx.Client, url: str) -> Seen:
    """Rows that a sink says are in its target; none while it does not answer."""
    try:
        page = client.get(url).text
    except httpx.TransportError:
        return Seen(0, 0)
    rows = [line.split()[-1] for line in page.splitlines() if line.startswith("cdc_rows_total{")]
    count = sum(int(float(one)) for one in rows)
    return Seen(count, count)


@contextmanager
def receiver() -> Iterator[str]:
    """Give the URL of an endpoint that answers 200 to everything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # closed: the path is over
            return
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    """Read requests whose bodies have a length, and answer each."""
    with connection, connection.makefile("rb") as asked:
        while asked.readline():
            size = 0
            while (line := asked.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            asked.read(size)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def poison(bench: Bench, _connect: object, number: int) -> tuple[list[Measured], str]:
    """From a topic into a PostgreSQL table that takes all rows, and into one that takes 99 of 100.

    The rows that are refused become dead letters. Returns what is wrong with the tables.
    """
    ours = _with_long_notes(bench)
    longest = {"sound": 1_000, "poison": 60}
    targets = {side: bench.scene.database() for side in longest}
    sides = [partial(_into, bench, ours, side, longest[side], targets[side]) for side in longest]
    found = bench.in_turn(number, sides)
    bad = sum(i % 100 == 50 for i in range(WARM + 1, WARM + bench.rows + 1))
    wanted = {"sound": WARM + bench.rows, "poison": WARM + bench.rows - bad}
    counts = {side: _count(targets[side]) for side in longest}
    for target in targets.values():
        bench.scene.drop(target)
    bench.scene.forget(ours.topic, f"{ours.name}.dead")
    return found, "" if counts == wanted else f"{counts} rows, not {wanted}"


def _with_long_notes(bench: Bench) -> Pipeline:
    """A topic of orders, of which one in a hundred has a long note, filled by our stream."""
    source = bench.scene.source()
    [ours] = warm_pipelines(bench, source, 1)
    fill(source, WARM + 1, WARM + bench.rows, LONG)
    bench.tell(f"filling: {published(bench, ours, 'poison', 'fill')}")
    bench.scene.drop(source)
    return ours


def _into(bench: Bench, pipeline: Pipeline, side: str, longest: int, target: str) -> Measured:
    with psycopg.connect(target) as connection:
        connection.execute(ORDERS.read_bytes())
        check = f"alter table orders add check (length(note) <= {longest})"
        connection.execute(check.encode())
    apply = bench.scene.pipeline(target, target, name=pipeline.name)
    with (
        TableProgress(target) as progress,
        bench.scene.worker(apply, "sink", "copy") as process,
    ):
        return timed(("poison", side), progress, WARM + bench.rows, Clock([process]))


def _count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from orders").fetchone()
    return int(row[0]) if row else 0


PATHS: dict[str, Callable[[Bench, object, int], tuple[list[Measured], str]]] = {
    "duckdb": duckdb,
    "files": files,
    "kafka": kafka,
    "http": http,
    "poison": poison,
}
