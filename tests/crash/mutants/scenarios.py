"""What is done to a pipeline so that a bug cannot hide: the right load, the right fault.

Each scenario starts the workers itself and ends with a row that comes after all others. What it
leaves behind is judged by the checker alone; of the workers' own state only what an outside
observer sees is used (the slot, exit codes, rows).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg

from crash.mutants.ground import Ground, Worker

__all__ = ["SCENARIOS", "Scenario"]

Scenario = Callable[[Ground], None]
BIG = "(select string_agg(md5(n::text), '') from generate_series(1, 200) n)"

GATE = """
create function journal.gate() returns boolean language plpgsql as
$$ begin perform pg_advisory_xact_lock_shared(1); return true; end $$
"""
"""A condition of a backfill that holds once whoever keeps the gate lets it pass."""


def begin(ground: Ground, source: dict[str, Any] | None = None, **sink: Any) -> list[Worker]:
    """Start both workers and wait until the first snapshot is over and applied."""
    # What is there before is not what is looked for.
    ground.source.execute("truncate toasted, bulk")
    ground.configure(source, **sink)
    number = sink.get("workers", 1)
    workers = [ground.start_source(), *(ground.start_sink(number=n) for n in range(number))]
    ground.told()
    ground.found_ground()
    ground.sentinel()
    return workers


def statements(ground: Ground) -> None:
    """Every awkward change once, one statement after another, and nothing goes wrong."""
    begin(ground)
    run = ground.source.execute
    _prepared(ground)
    ground.insert(1, 2, 3)
    ground.sentinel()
    for word in ("second", "third"):  # in cuts of their own
        run(f"update plain set note = '{word}', version = nextval('versions') where id = 2")
        ground.sentinel()
    with ground.source.transaction():
        run("insert into reborn (id, round) values (500, 1)")
        run("delete from reborn where id = 500")
        run("insert into reborn (id, round) values (501, 1)")
        run("delete from reborn where id = 501")
        run("insert into reborn (id, round) values (501, 2)")
    run(
        f"insert into toasted (id, big, small) select i, {BIG} || i, 0 from generate_series(1, 3) i"
    )
    run("update toasted set small = 1, version = nextval('versions') where id = 1")
    run("update toasted set id = 12, version = nextval('versions') where id = 2")
    ground.sentinel()


def _prepared(ground: Ground) -> None:
    """Two prepared transactions, of which one is rolled back once others have passed it."""
    for gid, number in (("kept", 900), ("dropped", 901)):
        with psycopg.connect(ground.source_url, autocommit=True) as other:
            other.execute("begin")
            other.execute("insert into plain (id, note) values (%s, 'prepared')", (number,))
            other.execute(f"prepare transaction '{ground.name} {gid}'")
    ground.sentinel()
    ground.source.execute(f"rollback prepared '{ground.name} dropped'")
    ground.source.execute(f"commit prepared '{ground.name} kept'")


def killed_before_commit(ground: Ground) -> None:
    """The source is killed when it has written records and not yet committed them."""
    source, _ = begin(ground)
    source.stop()
    doomed = ground.start_source("publish.before_commit=kill:5")
    ground.load_until_dead(doomed, 1)
    ground.linger(lambda: False, 0.5)  # the sampler looks at what a dead worker left
    ground.start_source()
    ground.sentinel()


def killed_before_storing(ground: Ground) -> None:
    """The source is killed when its place in the log, and no row, is about to be committed."""
    source, _ = begin(ground)
    source.stop()
    ground.source.execute("create table journal.noise as select 1 as id")
    doomed = ground.start_source("publish.before_commit=kill:4")
    write = "insert into journal.noise select generate_series(1, 1000)"

    def dead() -> bool:
        ground.source.execute(write)
        return ground.has_died(doomed)

    ground.wait(dead, "the source to meet its failpoint")
    ground.linger(lambda: False, 2.5)  # the sampler looks at what a dead worker left
    ground.start_source()
    ground.sentinel()


def interleaved(ground: Ground) -> None:
    """A transaction that wrote before another's commit commits after the source was killed."""
    source, _ = begin(ground)
    with psycopg.connect(ground.source_url) as other:
        other.execute("insert into plain (id, note) select i, 'early' from generate_series(1, 9) i")
        written = other.execute("select (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
        assert written is not None
        ground.insert(10)
        ground.sentinel()
        ground.wait(lambda: ground.slot_at() > written[0], "the slot to pass the open transaction")
        source.kill()
        ground.start_source()
        ground.insert(11)
        ground.arrive("id = 11")
        other.commit()
    ground.sentinel()


def sink_killed_after_commit(ground: Ground) -> None:
    """The sink is killed when the target has committed."""
    _, sink = begin(ground)
    sink.stop()
    doomed = ground.start_sink("sink.after_commit=kill:2")
    ground.load_until_dead(doomed, 1)
    ground.start_sink()
    ground.sentinel()


def changed_while_read(ground: Ground) -> None:
    """Rows are changed after a chunk's snapshot was taken and before its mark is written."""
    begin(ground)
    ground.insert(*range(1, 41))
    ground.sentinel()
    ground.source.execute(GATE)
    with psycopg.connect(ground.source_url, autocommit=True) as keeper:
        keeper.execute("select pg_advisory_lock(1)")
        ground.run("backfill", ground.name, "public.plain", "--where", "journal.gate()")
        waiting = "select from pg_locks where locktype = 'advisory' and not granted"
        ground.wait(lambda: ground.source.execute(waiting).rowcount, "the chunk to be read")
        ground.source.execute(
            "update plain set note = 'new', version = nextval('versions') where id % 4 = 0;"
            "delete from plain where id in (2, 6)"
        )
        keeper.execute("select pg_advisory_unlock(1)")
    ground.wait(lambda: not ground.source.execute(waiting).rowcount, "the chunk to be whole")
    ground.sentinel()
    ground.sentinel()  # behind the mark, for the loop has gone on since


def half_committed(ground: Ground) -> None:
    """A table is read while a transaction is delivered, but visible to nobody yet."""
    begin(ground)
    ground.insert(*range(1, 11))
    ground.sentinel()
    other = psycopg.connect(ground.source_url, autocommit=True)
    other.execute("set synchronous_commit = on")
    with ground.absent_standby():
        update = "update plain set note = 'new', version = nextval('versions') where id < 6"
        waiting = threading.Thread(target=other.execute, args=(update,))
        waiting.start()
        ground.arrive("note = 'new'", wanted=5)
        before = len(ground.records("plain"))
        ground.run("backfill", ground.name, "public.plain")
        ground.linger(lambda: ground.source_waits() or len(ground.records("plain")) > before, 20.0)
    waiting.join()
    other.close()
    ground.sentinel()
    ground.sentinel()


def two_sinks(ground: Ground) -> None:
    """Two workers are told to run the same sink of one worker."""
    _, first = begin(ground)
    second = ground.start_sink()
    ground.wait(lambda: ground.sinks_connected() >= 2, "both sinks to be connected")
    for number in range(1, 31):
        ground.insert(number)
        ground.arrive(f"id = {number}")
        if not (first.running or second.running):
            first = ground.start_sink()
    ground.sentinel()


def answer_lost(ground: Ground) -> None:
    """The broker commits a transaction, and its answer does not arrive in half a minute."""
    proxy = ground.through_kafka_proxy()
    begin(ground)
    proxy.hold_end_of_transaction()
    ground.insert(1, 2, 3)
    ground.wait(proxy.holding.is_set, "an answer to be held back")
    ground.told("retrying")
    proxy.cut()
    ground.sentinel()


def strange_message(ground: Ground) -> None:
    """The server sends a message of a kind that nobody knows, and a later version is started."""
    proxy = ground.through_postgres_proxy()
    source, _ = begin(ground)
    proxy.strange = b"strange-row"
    ground.insert(1)
    ground.insert(2, note="strange-row")
    ground.insert(3)
    ground.wait(lambda: not source.running or ground.rows("id = 3"), "the source to stop")
    proxy.strange = b""
    if not source.running:
        ground.start_source()
    ground.sentinel()


def hidden_positions(ground: Ground) -> None:
    """A stranger's open transaction hides the newest position, and the source is killed."""
    proxy = ground.through_postgres_proxy()
    source, _ = begin(ground)
    ground.insert(1)
    ground.sentinel()
    with ground.open_transaction_in_positions() as end:
        proxy.mute = True
        ground.insert(*range(2, 20))
        ground.wait(lambda: len(ground.records("plain")) >= 19, "the rows to be in the topic")
        source.kill()
        proxy.mute = False
        ground.start_source()
        ground.wait(ground.beat, "the source to begin")
        ground.linger(lambda: len(ground.records("plain")) > 19, 8.0)
        end()
    ground.sentinel()


def streamed_savepoint(ground: Ground) -> None:
    """The source is killed inside a streamed transaction that rolled back to a savepoint.

    The next one is sent the transaction whole, at its commit.
    """
    memory = f"alter database {ground.name}_source set logical_decoding_work_mem = "
    ground.source.execute(f"{memory}'64kB'")
    source, _ = begin(ground, {"publish": {"max_rows": 200}})
    source.stop()
    doomed = ground.start_source("publish.after_commit=kill:7")
    ground.told()
    with ground.source.transaction():
        ground.source.execute("savepoint a")
        ground.source.execute("insert into bulk (id) select generate_series(100001, 106000)")
        ground.source.execute("rollback to a")
        ground.source.execute("insert into bulk (id) select generate_series(200001, 250000)")
    ground.wait(lambda: ground.has_died(doomed), "the source to meet its failpoint")
    ground.source.execute(f"{memory}'256MB'")
    ground.start_source()
    ground.sentinel()


def truncated_in_four(ground: Ground) -> None:
    """Of two workers on four partitions one is late when a table is truncated and filled anew."""
    ground.partitions, ground.alone = 4, False
    _, *sinks = begin(ground, {"publish": {"partitions": {"public.bulk": 4}}}, workers=2)
    ground.source.execute("insert into bulk (id) select generate_series(1, 200)")
    ground.arrive("true", "bulk", 200)
    ground.wait(lambda: ground.sharers("bulk") == 2, "two workers to share the partitions")
    sinks[0].freeze()
    ground.source.execute("truncate bulk")
    ground.source.execute("insert into bulk (id) select generate_series(1001, 1200)")
    ground.linger(lambda: ground.rows("id > 1000", "bulk"), 3.0)
    sinks[0].thaw()
    for last in range(10_000, 20_000, 1000):  # a late truncation may take these with it, too
        fill = "insert into bulk (id) select generate_series(%s::int, %s::int)"
        ground.source.execute(fill, (last, last + 39))
        arrived = partial(ground.rows, f"id >= {last}", "bulk")
        ground.linger(lambda arrived=arrived: arrived() == 40, 5.0)  # type: ignore[misc]
        if arrived() == 40:
            break
    ground.sentinel()


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__.replace("_", "-"): scenario
    for scenario in (
        statements,
        killed_before_commit,
        killed_before_storing,
        interleaved,
        sink_killed_after_commit,
        changed_while_read,
        half_committed,
        two_sinks,
        answer_lost,
        strange_message,
        hidden_positions,
        streamed_savepoint,
        truncated_in_four,
    )
}
