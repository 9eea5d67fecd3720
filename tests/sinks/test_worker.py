"""From committed records to rows of the target: the worker on the real Kafka and Postgres."""

from __future__ import annotations

from collections.abc import Callable

from cdc.publish import Publisher
from cdc.source import Batch
from fix_pipeline import ITEMS, At, Pipeline, item_batch
from fix_sink import Sink
from schemas.change import Change, Op, Origin, Rows, Stamp

MakeSink = Callable[..., Sink]
ALL = "SELECT id, name FROM public.items ORDER BY id"


def commit(publisher: Publisher, *batches: Batch) -> None:
    for batch in batches:
        publisher.add(batch)
    publisher.commit()


def changes(commit: int, *items: Change) -> Batch:
    origin = Origin(1, commit, 1_700_000_000_000_000 + commit, str(commit))
    rows = Rows(ITEMS, "changes", origin, list(items), range(len(items)))
    return Batch([rows], At(commit), Stamp(1, commit))


def test_inserts_updates_and_deletes_arrive(pipeline: Pipeline, make_sink: MakeSink) -> None:
    publisher = pipeline.publisher()
    publisher.acquire()
    commit(publisher, item_batch(10, [1, 2, 3]))
    sink = make_sink().start()
    sink.wait_for(ALL, [(1, "item 1"), (2, "item 2"), (3, "item 3")])
    commit(
        publisher,
        changes(
            20,
            Change(Op.UPDATE, None, (b"1", b"changed")),
            Change(Op.DELETE, (b"2", None), None),
            Change(Op.UPDATE, (b"3", b"item 3"), (b"33", b"moved")),
        ),
    )
    sink.wait_for(ALL, [(1, "changed"), (33, "moved")])
    publisher.close()


def test_a_restarted_sink_applies_nothing_twice(pipeline: Pipeline, make_sink: MakeSink) -> None:
    publisher = pipeline.publisher()
    publisher.acquire()
    commit(publisher, item_batch(10, [1, 2]))
    first = make_sink().start()
    first.wait_for(ALL, [(1, "item 1"), (2, "item 2")])
    first.stop()
    commit(publisher, item_batch(20, [3]))
    second = make_sink().start()
    second.wait_for(ALL, [(1, "item 1"), (2, "item 2"), (3, "item 3")])
    second.stop()
    assert first.told.rows == 2
    assert second.told.rows == 1
    publisher.close()


def test_a_table_made_later_is_found(pipeline: Pipeline, make_sink: MakeSink) -> None:
    sink = make_sink().start()
    publisher = pipeline.publisher()
    publisher.acquire()
    commit(publisher, item_batch(10, [1]))
    sink.wait_for(ALL, [(1, "item 1")])
    publisher.close()
