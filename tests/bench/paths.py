"""The paths that are measured: one function per path and run, every side one after the other.

Sides of a path take turns within one run, in the opposite order in every other run, so that what
else happens on the machine meets all of them. All read the same rows of the same server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import psycopg

from bench import limits
from bench.measure import (
    OLD,
    Clock,
    Measured,
    RewriteProgress,
    TableProgress,
    TopicProgress,
    settled,
    timed,
)
from bench.peers import Connect
from bench.readback import same
from bench.scene import ORDERS, TABLE, Pipeline, Scene, fill, login, make_slot
from cdc.brokers import TopicSettings, ensure_topic
from fix_pipeline import wait_until

WARM = 100  # orders that make topic and schema before the clock runs
PLAIN = {"CDC_EXECUTOR": "plain"}
ARRIVING = {"sink": TableProgress, "rewrite": RewriteProgress}
Side = Callable[[], Measured]
Tell = Callable[[object], None]


class Bench:
    """The scene, the number of rows, the peers when there are any, and what runs leave behind."""

    def __init__(self, scene: Scene, rows: int, tell: Tell, *, peers: bool) -> None:
        self.scene = scene
        self.rows = rows
        self.tell = tell
        self.peers = peers
        self.filled: tuple[Pipeline, str] | None = None  # by the last stream: ours, peer's topic

    @contextmanager
    def connect(self, family: str) -> Iterator[Connect | None]:
        """A peer's JVM for all runs of a path; None without peers, or where none is named."""
        if not self.peers or not family:
            yield None
            return
        folder = self.scene.folder / self.scene.name(f"connect-{family}")
        folder.mkdir()
        stack = self.scene.stack
        registry = stack.registry.url.replace("/apis/ccompat/v7", "/apis/registry/v2")
        with Connect(family, folder, kafka=stack.kafka.bootstrap, registry=registry) as connect:
            yield connect

    def in_turn(self, number: int, sides: Sequence[Side]) -> list[Measured]:
        """Measure all sides, forwards or backwards, and tell each as it comes."""
        found = []
        for side in sides if number % 2 == 0 else reversed(sides):
            found.append(side())
            self.tell(f"run {number + 1}: {found[-1]}")
        return found

    def compare(self, ours: Pipeline, peers: str) -> str:
        """Read both topics back; "" or what differs."""
        if not peers:
            return ""
        ids = range(WARM + 1, WARM + self.rows + 1)
        return same(self.scene.kafka, ours.topic, peers, ids)


def warm_pipelines(bench: Bench, source: str, count: int) -> list[Pipeline]:
    """Pipelines of ours that have seen a few orders: slots, topics and schemas are there."""
    made = [bench.scene.pipeline(source) for _ in range(count)]
    slots = "select 1 from pg_replication_slots where active and database = current_database()"
    with ExitStack() as stack:
        for one in made:
            stack.enter_context(bench.scene.worker(one, "source", one.name))
        connection = stack.enter_context(psycopg.connect(source, autocommit=True))
        wait_until(lambda: len(connection.execute(slots).fetchall()) == count, "our slots", 60)
        fill(source, 1, WARM)
        for one in made:
            progress = stack.enter_context(TopicProgress(bench.scene.kafka, one.topic))
            wait_until(lambda: progress().durable >= WARM, "the first rows", 60)  # noqa: B023
    return made


def published(bench: Bench, pipeline: Pipeline, path: str, side: str) -> Measured:
    """Our source from its start to the last row in its topic."""
    env = PLAIN if side == "plain" else None
    with TopicProgress(bench.scene.kafka, pipeline.topic) as progress:
        progress.forget()
        with bench.scene.worker(pipeline, "source", pipeline.name, env=env) as process:
            found = timed((path, side), progress, bench.rows, Clock([process]))
            settled(progress)
    return found


def _peer(bench: Bench, connect: Connect, path: str, values: dict[str, object]) -> Measured:
    """A connector of Debezium's source from its creation to the last row in its topic."""
    name = str(values["name"])
    topic = f"{name}.{TABLE}"
    ensure_topic(bench.scene.kafka, topic, TopicSettings())
    with TopicProgress(bench.scene.kafka, topic) as progress:
        connect.create(path, values)
        clock = Clock([connect.process], alive=lambda: connect.running(name))
        found = timed((path, "debezium"), progress, bench.rows, clock)
        settled(progress)
    connect.delete(name)
    return found


def _warm(bench: Bench, connect: Connect | None, path: str) -> None:
    """Let a peer's JVM compile its loops on rows that are not counted."""
    if connect is None:
        return
    scene, source = bench.scene, bench.scene.source()
    small = Bench(scene, max(bench.rows // 5, 1000), bench.tell, peers=True)
    values = {"name": scene.name("warm"), **login(source)}
    if path == "stream":
        make_slot(source, str(values["name"]))
    fill(source, 1, small.rows)
    bench.tell(f"warming up: {_peer(small, connect, path, values)}")
    scene.forget(f"{values['name']}.{TABLE}")
    scene.drop(source)


def warm_stream(bench: Bench, connect: Connect | None) -> None:
    """Before the first run of the stream."""
    _warm(bench, connect, "stream")


def warm_snapshot(bench: Bench, connect: Connect | None) -> None:
    """Before the first run of the snapshot."""
    _warm(bench, connect, "snapshot")


def warm_sink(bench: Bench, connect: Connect | None) -> None:
    """Before the first run of the sink: the first fifth of the topic, into a table of its own."""
    if connect is None or bench.filled is None:
        return
    target = bench.scene.database()
    small = Bench(bench.scene, max(bench.rows // 5, 1000), bench.tell, peers=True)
    bench.tell(f"warming up: {_peer_sink(small, connect, bench.filled[1], target)}")
    bench.scene.drop(target)


def fill_topics(bench: Bench) -> None:
    """What the sinks read, where no stream was measured before."""
    scene, source = bench.scene, bench.scene.source()
    [ours] = warm_pipelines(bench, source, 1)
    values, topic = {"name": scene.name("dbz"), **login(source)}, ""
    with bench.connect("source") as connect:
        if connect is not None:
            topic = f"{values['name']}.{TABLE}"
            make_slot(source, str(values["name"]))
        fill(source, WARM + 1, WARM + bench.rows)
        bench.tell(f"filling: {published(bench, ours, 'stream', 'tailrace')}")
        if connect is not None:
            bench.tell(f"filling: {_peer(bench, connect, 'stream', values)}")
    bench.filled = (ours, topic)
    scene.drop(source)


def stream(bench: Bench, connect: Connect | None, number: int) -> tuple[list[Measured], str]:
    """From the log into a topic: ours, ours without the compiled part, Debezium, the walsender."""
    scene, source = bench.scene, bench.scene.source()
    ours, plain = warm_pipelines(bench, source, 2)
    values, raw = {"name": scene.name("dbz"), **login(source)}, scene.name("raw")
    make_slot(source, raw)
    sides: list[Side] = [
        lambda: published(bench, ours, "stream", "tailrace"),
        lambda: published(bench, plain, "stream", "plain"),
        lambda: limits.walsender(source, raw, bench.rows),
    ]
    topic = ""
    if connect is not None:
        topic = f"{values['name']}.{TABLE}"
        make_slot(source, str(values["name"]))
        sides.insert(1, partial(_peer, bench, connect, "stream", values))
    fill(source, WARM + 1, WARM + bench.rows)
    found = bench.in_turn(number, sides)
    differs = bench.compare(ours, topic)
    scene.drop(source)
    old = [] if bench.filled is None else [bench.filled[0].topic, bench.filled[1]]
    scene.forget(plain.topic, *filter(None, old))
    bench.filled = (ours, topic)
    return found, differs


def snapshot(bench: Bench, connect: Connect | None, number: int) -> tuple[list[Measured], str]:
    """From a table into a topic: ours, Debezium's `initial_only`, one COPY."""
    scene, source = bench.scene, bench.scene.source()
    fill(source, WARM + 1, WARM + bench.rows)
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("vacuum analyze orders")  # hint bits: whoever reads first would pay
    ours = scene.pipeline(source, snapshot="initial")
    values = {"name": scene.name("dbs"), **login(source)}
    sides: list[Side] = [
        lambda: published(bench, ours, "snapshot", "tailrace"),
        lambda: limits.copy_out(source),
    ]
    topic = ""
    if connect is not None:
        topic = f"{values['name']}.{TABLE}"
        sides.insert(1, partial(_peer, bench, connect, "snapshot", values))
    found = bench.in_turn(number, sides)
    differs = bench.compare(ours, topic)
    scene.drop(source)
    scene.forget(ours.topic, *filter(None, [topic]))
    return found, differs


def sink(bench: Bench, connect: Connect | None, number: int) -> tuple[list[Measured], str]:
    """From a topic into a table: ours, Debezium's JDBC sink, the server's merge, one consumer."""
    assert bench.filled is not None, "the stream fills the topics"
    ours, topic = bench.filled
    targets = [bench.scene.database() for _ in range(3)]
    with psycopg.connect(targets[2]) as connection:
        connection.execute(ORDERS.read_bytes())
    sides: list[Side] = [
        lambda: _our_sink(bench, ours, targets[0]),
        lambda: limits.merge(targets[2], bench.rows),
        lambda: limits.consume(bench.scene.kafka, ours.topic, bench.rows),
    ]
    if connect is not None:
        sides.insert(1, partial(_peer_sink, bench, connect, topic, targets[1]))
    found = bench.in_turn(number, sides)
    differs = _same_tables(targets[0], targets[1]) if connect is not None else ""
    for target in targets:
        bench.scene.drop(target)
    return found, differs


def rewrite(bench: Bench, connect: Connect | None, number: int) -> tuple[list[Measured], str]:
    """As `sink`, into tables that have each row already, with another note: all are updated."""
    assert bench.filled is not None, "the stream fills the topics"
    ours, topic = bench.filled
    targets = [bench.scene.database() for _ in range(2)]
    for target in targets:
        _make_old(target, WARM + bench.rows)
    sides: list[Side] = [lambda: _our_sink(bench, ours, targets[0], "rewrite")]
    if connect is not None:
        sides.append(partial(_peer_sink, bench, connect, topic, targets[1], "rewrite"))
    found = bench.in_turn(number, sides)
    differs = _same_tables(targets[0], targets[1]) if connect is not None else ""
    for target in targets:
        bench.scene.drop(target)
    return found, differs


def _make_old(target: str, rows: int) -> None:
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute(ORDERS.read_bytes())
        fill(target, 1, rows, f"'{OLD}'")
        connection.execute("VACUUM ANALYZE orders")


def _our_sink(bench: Bench, pipeline: Pipeline, target: str, path: str = "sink") -> Measured:
    apply = bench.scene.pipeline(target, target, name=pipeline.name)
    with (
        ARRIVING[path](target) as progress,
        bench.scene.worker(apply, "sink", "copy") as process,
    ):
        return timed((path, "tailrace"), progress, WARM + bench.rows, Clock([process]))


def _peer_sink(
    bench: Bench, connect: Connect, topic: str, target: str, path: str = "sink"
) -> Measured:
    name = bench.scene.name("jdbc")
    with ARRIVING[path](target) as progress:
        connect.create("sink", {"name": name, "topic": topic, **login(target)})
        clock = Clock([connect.process], alive=lambda: connect.running(name))
        found = timed((path, "debezium"), progress, WARM + bench.rows, clock)
    connect.delete(name)
    return found


def _same_tables(ours: str, peers: str) -> str:
    """Compare what two sinks made of the same orders: "" when it is the same."""
    row = "id, customer_id, status, amount, currency, note, paid, created_at, updated_at"
    query = f"select {row}, attrs::jsonb from orders where id > {WARM}"
    total = f"select count(*), sum(hashtextextended(x::text, 0)) from ({query}) x"
    with psycopg.connect(ours) as left, psycopg.connect(peers) as right:
        found = [one.execute(total).fetchone() for one in (left, right)]
    return "" if found[0] == found[1] else f"rows and hash {found[0]} are not {found[1]}"


def scaling(bench: Bench, _connect: object, number: int) -> tuple[list[Measured], str]:
    """One and two sink workers on the same four partitions."""
    scene, source = bench.scene, bench.scene.source()
    fill(source, WARM + 1, WARM + bench.rows)
    ours = scene.pipeline(source, snapshot="initial", partitions=4)
    with (
        TopicProgress(scene.kafka, ours.topic, 4) as progress,
        scene.worker(ours, "source", ours.name) as process,
    ):
        timed(("scaling", "fill"), progress, bench.rows, Clock([process]))
        settled(progress)
    sides = [partial(_workers, bench, ours, count) for count in (1, 2)]
    found = bench.in_turn(number, sides)
    scene.drop(source)
    scene.forget(ours.topic)
    return found, ""


def _workers(bench: Bench, pipeline: Pipeline, count: int) -> Measured:
    scene, target = bench.scene, bench.scene.database()
    apply = scene.pipeline(target, target, name=pipeline.name, partitions=4, workers=count)
    with ExitStack() as stack:
        progress = stack.enter_context(TableProgress(target, spread=True))
        processes = [
            stack.enter_context(scene.worker(apply, "sink", "copy", "--worker", str(worker)))
            for worker in range(count)
        ]
        clock = Clock(processes, poll_s=0.25)
        found = timed(("scaling", f"{count} workers"), progress, bench.rows, clock)
    scene.drop(target)
    return found
