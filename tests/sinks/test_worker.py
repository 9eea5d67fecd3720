"""From committed records to rows of the target: the worker on the real Kafka and Postgres."""

from __future__ import annotations

from collections.abc import Callable

from cdc.publish import Publisher
from cdc.worker import Command
from fix_pipeline import item_batch, wait_until
from fix_sink import Sink, changes, commit, delete, piece, update
from schemas.change import Change, Op

MakeSink = Callable[..., Sink]
ALL = "SELECT id, name FROM public.items ORDER BY id"


def test_inserts_updates_and_deletes_arrive(publisher: Publisher, make_sink: MakeSink) -> None:
    commit(publisher, item_batch(10, [1, 2, 3]))
    sink = make_sink().start()
    sink.wait_for(ALL, [(1, "item 1"), (2, "item 2"), (3, "item 3")])
    moved = Change(Op.UPDATE, (b"3", b"item 3"), (b"33", b"moved"))
    rows = changes(20, update(b"1", b"changed"), delete(b"2", None), moved)
    commit(publisher, piece(20, rows))
    sink.wait_for(ALL, [(1, "changed"), (33, "moved")])


def test_a_truncate_empties_the_table(publisher: Publisher, make_sink: MakeSink) -> None:
    commit(publisher, item_batch(10, [1, 2, 3]))
    sink = make_sink().start()
    sink.wait_for(ALL, [(1, "item 1"), (2, "item 2"), (3, "item 3")])
    commit(publisher, piece(20, changes(20, Change(Op.TRUNCATE))), item_batch(30, [9]))
    sink.wait_for(ALL, [(9, "item 9")])


def test_a_restarted_sink_applies_nothing_twice(publisher: Publisher, make_sink: MakeSink) -> None:
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


def test_a_table_made_later_is_found(
    make_publisher: Callable[..., Publisher], make_sink: MakeSink
) -> None:
    sink = make_sink().start()
    wait_until(lambda: sink.told.last.waiting, "the sink waits for a topic")
    commit(make_publisher(), item_batch(10, [1]))
    sink.wait_for(ALL, [(1, "item 1")])


def test_a_mapping_renames_selects_and_casts(publisher: Publisher, make_sink: MakeSink) -> None:
    commit(publisher, item_batch(10, [1]))
    topic = publisher_topic(make_sink)
    fields = {"item_id": "id", "label": {"from": "name"}, "origin": {"value": "shop"}}
    sink = make_sink(tables={topic: {"to": "crm.things", "fields": fields}}).start()
    sink.wait_for("SELECT * FROM crm.things", [(1, "item 1", "shop")])


def publisher_topic(make_sink: MakeSink) -> str:
    return make_sink().pipeline.topic()


def test_a_paused_sink_applies_nothing_until_it_resumes(
    publisher: Publisher, make_sink: MakeSink
) -> None:
    commit(publisher, item_batch(10, [1]))
    sink = make_sink().start()
    sink.wait_for(ALL, [(1, "item 1")])
    sink.asked.commands = [Command("pause")]
    wait_until(lambda: sink.told.last.state == "paused", "the sink pauses")
    commit(publisher, item_batch(20, [2]))
    sink.asked.commands = [Command("resume")]
    sink.wait_for(ALL, [(1, "item 1"), (2, "item 2")])
