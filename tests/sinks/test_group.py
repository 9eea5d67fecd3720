"""Several workers of one sink share its partitions, and still apply each change once."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from cdc.errors import ConfigError
from cdc.publish import Publisher
from fix_pipeline import Pipeline, item_batch, wait_until
from fix_sink import AUDIT, Sink, commit

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


def test_a_key_that_several_workers_would_share_is_refused(
    pipeline: Pipeline, make_publisher: MakePublisher, make_sink: MakeSink
) -> None:
    publisher = make_publisher(partitions={"public.items": 2})
    commit(publisher, item_batch(1, [1]))
    sink = make_sink(workers=2, tables={pipeline.topic(): {"key": ["name"]}}).start()
    failed = sink.wait_to_fail()
    assert isinstance(failed, ConfigError)
    assert "workers: 1" in failed.hint
