"""The paths out of a MariaDB table: its log and its rows, ours and Debezium's.

The server is one of its own, started for the run, with its binary log on as is usual. Both sides
have met the table before the rows are written, and read from where they were stopped. Beside them
stand the server alone: its log, as one client receives it, and its own export of the table.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing

from bench.measure import DEADLINE_S, Clock, Measured, TopicProgress, settled, timed
from bench.paths import WARM, Bench, Side, published
from bench.peers import Connect
from bench.scene import BATCH, TABLE, Pipeline, login
from cdc.brokers import TopicSettings, ensure_topic
from cdc.connections.mariadb import Login
from cdc.local import LocalMariaDB
from cdc.mariadb.dump import Dump
from cdc.mariadb.server import MariaDB
from fix_pipeline import wait_until

ORDERS = """
CREATE TABLE public.orders (
    id bigint PRIMARY KEY, customer_id int NOT NULL, status varchar(20) NOT NULL,
    amount decimal(12,2) NOT NULL, currency char(3) NOT NULL, note text, paid tinyint(1),
    created_at timestamp(6) NOT NULL, updated_at datetime(6), attrs json
)
"""
INSERT = """
INSERT INTO public.orders SELECT seq, seq % 10000, ELT(1 + seq % 4, 'new', 'paid', 'shipped',
  'cancelled'), (seq % 100000) / 100, 'EUR', CONCAT('note number ', seq, ' lorem ipsum dolor'),
  seq % 2 = 0, NOW(6), NOW(6), JSON_OBJECT('sku', CONCAT('A', seq), 'qty', seq % 10)
FROM public.seq_{first}_to_{last}
"""
SLOWEST = 2_000  # rows/s; a peer that needs longer is stuck
XID = 16  # type of the event that ends a transaction
READERS = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"


def _orders(server: LocalMariaDB) -> str:
    """A database with an empty table of orders; its URL."""
    url = server.create_database("public")
    server.execute(ORDERS)
    return url


def _fill(server: LocalMariaDB, first: int, last: int) -> None:
    """Insert the orders `first` to `last`, in transactions of `BATCH` rows."""
    for begin in range(first, last + 1, BATCH):
        end = min(begin + BATCH - 1, last)
        server.execute(INSERT.format(first=begin, last=end))


def _asked(bench: Bench, url: str) -> dict[str, object]:
    """What Debezium's settings want to know."""
    kafka = bench.scene.stack.kafka.bootstrap
    return {"name": bench.scene.name("dbm"), "kafka": kafka, **login(url)}


Peer = tuple[Connect, dict[str, object]]
"""The worker, and the settings of a connector in it."""


def _met(bench: Bench, server: LocalMariaDB, ours: Pipeline, peer: Peer | None) -> None:
    """Let both sides read a few orders, and stop them there."""
    scene, topics = bench.scene, [ours.topic]
    with ExitStack() as stack:
        stack.enter_context(scene.worker(ours, "source", ours.name))
        if peer is not None:
            connect, values = peer
            topics.append(f"{values['name']}.{TABLE}")
            ensure_topic(scene.kafka, topics[-1], TopicSettings())
            connect.create("maria-stream", values)
        wait_until(lambda: len(server.execute(READERS)) == len(topics), "readers of the log", 90)
        _fill(server, 1, WARM)
        for topic in topics:
            progress = stack.enter_context(TopicProgress(scene.kafka, topic))
            wait_until(lambda: progress().durable >= WARM, "the first rows", 60)  # noqa: B023
        if peer is not None:
            connect.stop(str(values["name"]))


def _peer(
    bench: Bench, connect: Connect, values: dict[str, object], path: str, *, known: bool
) -> Measured:
    """A connector of Debezium's, new or gone on with, to the last row in its topic."""
    name = str(values["name"])
    topic = f"{name}.{TABLE}"
    ensure_topic(bench.scene.kafka, topic, TopicSettings())
    with TopicProgress(bench.scene.kafka, topic) as progress:
        progress.forget()
        if known:
            connect.resume(name)
        else:
            connect.create(path, values)
        alive, deadline = lambda: connect.running(name), min(60 + bench.rows / SLOWEST, DEADLINE_S)
        clock = Clock([connect.process], alive=alive, deadline_s=deadline)
        found = timed((path, "debezium"), progress, bench.rows, clock)
        settled(progress)
    connect.delete(name)
    return found


def warm(bench: Bench, connect: Connect | None) -> None:
    """Let the peer's JVM compile its loops on rows that are not counted."""
    if connect is not None:
        small = Bench(bench.scene, max(bench.rows // 5, 1000), bench.tell, peers=True)
        with LocalMariaDB() as server:
            values = _asked(bench, _orders(server))
            _fill(server, 1, small.rows)
            found = _peer(small, connect, values, "maria-snapshot", known=False)
        bench.tell(f"warming up: {found}")
        bench.scene.forget(f"{values['name']}.{TABLE}")


def stream(bench: Bench, connect: Connect | None, number: int) -> tuple[list[Measured], str]:
    """From the log into a topic."""
    with LocalMariaDB() as server:
        url = _orders(server)
        ours, values = bench.scene.pipeline(url, snapshot="never"), _asked(bench, url)
        _met(bench, server, ours, None if connect is None else (connect, values))
        [(begin,)] = server.execute("SELECT @@gtid_binlog_pos")
        _fill(server, WARM + 1, WARM + bench.rows)
        sides: list[Side] = [
            lambda: published(bench, ours, "maria-stream", "tailrace"),
            lambda: _log(url, begin, bench.rows),
        ]
        if connect is not None:
            sides.insert(1, lambda: _peer(bench, connect, values, "maria-stream", known=True))
        return _compared(bench, ours, sides, f"{values['name']}.{TABLE}", number)


def snapshot(bench: Bench, connect: Connect | None, number: int) -> tuple[list[Measured], str]:
    """From a table into a topic: ours, Debezium's `initial_only`."""
    with LocalMariaDB() as server:
        url = _orders(server)
        ours, values = bench.scene.pipeline(url, snapshot="initial"), _asked(bench, url)
        _fill(server, WARM + 1, WARM + bench.rows)
        sides: list[Side] = [
            lambda: published(bench, ours, "maria-snapshot", "tailrace"),
            lambda: _export(server, bench.rows),
        ]
        if connect is not None:
            sides.insert(1, lambda: _peer(bench, connect, values, "maria-snapshot", known=False))
        return _compared(bench, ours, sides, f"{values['name']}.{TABLE}", number)


def _compared(
    bench: Bench, ours: Pipeline, sides: Sequence[Side], topic: str, number: int
) -> tuple[list[Measured], str]:
    """Measure the sides in turn and read their topics back."""
    found = bench.in_turn(number, sides)
    peers = topic if len(sides) > 2 else ""
    differs = bench.compare(ours, peers)
    bench.scene.forget(ours.topic, *filter(None, [peers]))
    return found, differs


def _log(url: str, begin: str, rows: int) -> Measured:
    """The binary log behind `begin`, as one client receives it; transactions are counted."""
    count, ends = 0, -(-rows // BATCH)
    with closing(Dump(Login(url, "bench"), MariaDB())) as dump:
        dump.start(begin, 5401, 10.0)
        began = time.monotonic()
        deadline = began + 60 + rows / SLOWEST
        while count < ends:
            assert time.monotonic() < deadline, f"{count} of {ends} transactions of the log"
            if not (events := dump.pull(10_000, 1 << 24)):
                dump.wait(1.0)
                continue
            count += sum(event[4] == XID for event in events)
        return Measured("maria-stream", "limit", rows, time.monotonic() - began)


def _export(server: LocalMariaDB, rows: int) -> Measured:
    """The table into a file of the server's own, as text."""
    began = time.monotonic()
    server.execute("SELECT * FROM public.orders INTO OUTFILE 'orders.txt'")
    return Measured("maria-snapshot", "limit", rows, time.monotonic() - began)
