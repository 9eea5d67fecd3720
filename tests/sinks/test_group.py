"""Several workers of one sink share its partitions, and still apply each change once."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import psycopg
import pytest
from fastavro import parse_schema, schemaless_reader

from cdc.errors import ConfigError
from cdc.publish import Publisher
from fix_pipeline import Pipeline, item_batch, wait_until
from fix_sink import AUDIT, Sink, both_apply, changes, commit, insert, piece, update
from schemas.wire import FRAME_BYTES
from sinks import worker
from sinks.targets.postgres import PostgresTarget

MakeSink = Callable[..., Sink]
MakePublisher = Callable[..., Publisher]
COUNT = "SELECT count(*) FROM items"


def test_workers_share_partitions_and_one_takes_over_from_another(
    make_publisher: MakePublisher, make_sink: MakeSink
) -> None:
    publisher = make_publisher(partitions={"public.items": 4})
    commit(publisher, item_batch(1, list(range(100))))
    one, other = make_sink(workers=2), make_sink(workers=2)
    with psycopg.connect(one.url, autocommit=True) as connection:
        connection.execute(AUDIT)
    one.start()
    other.start()
    one.wait_for(COUNT, [(100,)])
    commits = iter(range(2, 10_000))
    applied = [one.told, other.told]
    rows = 100

    def both_work() -> bool:
        nonlocal rows
        number = next(commits)
        commit(publisher, item_batch(number, list(range(rows, rows + 20))))
        rows += 20
        return all(told.rows > 0 for told in applied)

    wait_until(both_work, "both workers apply something")
    other.stop()
    for _ in range(5):
        both_work()
    one.wait_for(COUNT, [(rows,)], deadline_s=60)
    assert one.failed is None
    assert one.query("SELECT op, count(*) FROM audit GROUP BY op") == [("INSERT", rows)]


def test_rows_of_two_workers_that_wait_for_one_another_are_applied_by_one_of_them(
    make_publisher: MakePublisher, make_sink: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved: list[PostgresTarget] = []

    def counted(target: PostgresTarget) -> None:
        reserved.append(target)
        reserve(target)

    reserve = PostgresTarget.reserve
    monkeypatch.setattr(PostgresTarget, "reserve", counted)
    monkeypatch.setattr(worker, "_KNOT_S", 0)
    publisher = make_publisher(partitions={"public.items": 2})
    workers = [make_sink(workers=2) for _ in range(2)]
    with psycopg.connect(workers[0].url, autocommit=True) as connection:
        connection.execute("CREATE TABLE items (id bigint PRIMARY KEY, name text UNIQUE)")
    for sink in workers:
        sink.start()
    last = both_apply(publisher, workers)
    workers[0].wait_for(COUNT, [(last * 10,)])
    one, other = (first_id(workers[0].pipeline, partition) for partition in range(2))
    names = [b"item %d" % one, b"item %d" % other]
    swap = [
        update(b"%d" % one, b"free"),
        update(b"%d" % other, names[0]),
        update(b"%d" % one, names[1]),
    ]
    commit(publisher, piece(last + 1, changes(last + 1, *swap)))
    name = "SELECT name FROM items WHERE id = "
    workers[0].wait_for(name + str(one), [(names[1].decode(),)])
    workers[0].wait_for(name + str(other), [(names[0].decode(),)])
    commit(publisher, piece(last + 2, changes(last + 2, insert(b"-1", b"later"))))
    workers[0].wait_for(name + "-1", [("later",)])
    assert reserved
    assert sum(batch.dead for sink in workers for batch in sink.told.batches) == 0


def first_id(pipeline: Pipeline, partition: int) -> int:
    """Return the smallest id in a partition; keys end with it, as a zigzag Avro long."""
    message = next(m for m in pipeline.read(pipeline.topic()) if m.partition() == partition)
    key = BytesIO(message.key()[FRAME_BYTES:])
    return int(schemaless_reader(key, parse_schema({"type": "long"}), None))


def test_a_key_that_several_workers_would_share_is_refused(
    pipeline: Pipeline, make_publisher: MakePublisher, make_sink: MakeSink
) -> None:
    publisher = make_publisher(partitions={"public.items": 2})
    commit(publisher, item_batch(1, [1]))
    sink = make_sink(workers=2, tables={pipeline.topic(): {"key": ["name"]}}).start()
    failed = sink.wait_to_fail()
    assert isinstance(failed, ConfigError)
    assert "workers: 1" in failed.hint
