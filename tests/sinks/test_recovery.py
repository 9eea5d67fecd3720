"""Whatever happens between Kafka and the target, each change is applied once."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import psycopg
import pytest
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient

from cdc.brokers import TopicSettings, ensure_topics, topic_ids
from cdc.errors import StateError, TargetUnavailable, TopicChanged
from cdc.publish import Publisher
from fix_pipeline import Pipeline, item_batch, wait_until
from fix_sink import AUDIT, Sink, changes, commit, insert, piece
from sinks.target import TopicPartition
from sinks.targets import postgres

MakeSink = Callable[..., Sink]
MakePublisher = Callable[..., Publisher]
COUNT = "SELECT count(*) FROM items"
POINTS = ["sink.before_stage", "sink.before_cursor", "sink.before_commit", "sink.after_commit"]


@pytest.mark.parametrize("point", POINTS)
def test_an_error_anywhere_in_the_transaction_applies_nothing_twice(
    publisher: Publisher, make_sink: MakeSink, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    sink = make_sink()
    with psycopg.connect(sink.url, autocommit=True) as connection:
        connection.execute(AUDIT)
    passed: list[str] = []

    def fail_once(name: str) -> None:
        passed.append(name)
        if name == point and passed.count(name) in (2, 3):
            raise TargetUnavailable("the reply is lost")

    monkeypatch.setattr(postgres, "failpoint", fail_once)
    commit(publisher, item_batch(1, [0]))
    sink.start()
    sink.wait_for(COUNT, [(1,)])
    for number in range(2, 8):
        commit(publisher, item_batch(number, [number * 10, number * 10 + 1]))
    sink.wait_for(COUNT, [(13,)])
    assert sink.query("SELECT op, count(*) FROM audit GROUP BY op") == [("INSERT", 13)]
    assert passed.count(point) >= 2
    assert "retrying" in sink.told.states


def test_the_rest_before_the_next_attempt_grows_until_something_is_applied(
    publisher: Publisher, make_sink: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make_sink()
    refusing = threading.Event()

    def refuse(name: str) -> None:
        if name == "sink.before_commit" and refusing.is_set():
            raise TargetUnavailable("the disk is full")

    def rests(times: int) -> list[int]:
        """Return the first attempts that the sink rested before."""
        wait_until(lambda: len(sink.told.attempts) >= times, "the sink rests so often")
        return sink.told.attempts[:times]

    monkeypatch.setattr(postgres, "failpoint", refuse)
    commit(publisher, item_batch(1, [1]))
    refusing.set()
    sink.start()
    assert rests(4) == [1, 2, 3, 4]
    refusing.clear()
    sink.wait_for(COUNT, [(1,)])
    sink.told.attempts.clear()
    refusing.set()
    commit(publisher, item_batch(2, [2]))
    assert rests(3) == [0, 1, 2]


def test_a_sink_whose_connection_is_ended_goes_on(
    publisher: Publisher, make_sink: MakeSink
) -> None:
    commit(publisher, item_batch(1, [1]))
    sink = make_sink().start()
    sink.wait_for(COUNT, [(1,)])
    sink.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name LIKE 'tailrace/%'"
    )
    commit(publisher, item_batch(2, [2]))
    sink.wait_for(COUNT, [(2,)])


def test_a_frozen_worker_that_holds_the_cursors_is_ended(
    publisher: Publisher, make_sink: MakeSink
) -> None:
    commit(publisher, item_batch(1, [1]))
    sink = make_sink().start()
    sink.wait_for(COUNT, [(1,)])
    name = f"tailrace/{sink.context.pipeline}/sink/mirror"
    with psycopg.connect(sink.url, application_name=name) as frozen:
        frozen.execute("SELECT * FROM tailrace.cursors FOR UPDATE")
        commit(publisher, item_batch(2, [2]))
        sink.wait_for(COUNT, [(2,)])
        with pytest.raises(psycopg.OperationalError):
            frozen.execute("SELECT 1")


def test_a_repeated_kafka_transaction_is_dropped_and_counted(
    publisher: Publisher, make_sink: MakeSink
) -> None:
    again = piece(1, changes(1, insert(b"1", b"first"), insert(b"2", b"first")))
    commit(publisher, again)
    sink = make_sink().start()
    sink.wait_for(COUNT, [(2,)])
    sink.query("WITH gone AS (DELETE FROM items RETURNING 1) SELECT count(*) FROM gone")
    commit(publisher, again)
    commit(publisher, item_batch(2, [3]))
    sink.wait_for("SELECT id FROM items", [(3,)])
    wait_until(lambda: sum(b.dropped for b in sink.told.batches) == 2, "drops are counted")


def test_an_earlier_incarnation_stops_the_sink(publisher: Publisher, make_sink: MakeSink) -> None:
    commit(publisher, piece(1, changes(1, insert(b"1", b"new"), incarnation=5)))
    sink = make_sink().start()
    sink.wait_for(COUNT, [(1,)])
    commit(publisher, piece(1, changes(9, insert(b"2", b"old life"), incarnation=4)))
    failed = sink.wait_to_fail()
    assert isinstance(failed, StateError)
    assert "cdc position adopt" in failed.hint


def test_a_later_incarnation_is_followed(publisher: Publisher, make_sink: MakeSink) -> None:
    commit(publisher, piece(9, changes(9, insert(b"1", b"old"))))
    sink = make_sink().start()
    sink.wait_for(COUNT, [(1,)])
    commit(publisher, piece(1, changes(1, insert(b"2", b"new life"), incarnation=2)))
    sink.wait_for(COUNT, [(2,)])


def test_a_recreated_topic_stops_the_sink(
    pipeline: Pipeline, make_publisher: MakePublisher, make_sink: MakeSink
) -> None:
    commit(make_publisher(), item_batch(1, [1]))
    sink = make_sink().start()
    sink.wait_for(COUNT, [(1,)])
    sink.stop()
    admin = AdminClient({"bootstrap.servers": pipeline.kafka.bootstrap})
    topic = pipeline.topic()
    admin.delete_topics([topic])[topic].result(10)
    wait_until(lambda: topic not in admin.list_topics(timeout=5).topics, "the topic is gone")
    ensure_topics(pipeline.kafka, {topic: TopicSettings(1)})
    again = make_sink().start()
    failed = again.wait_to_fail()
    assert isinstance(failed, TopicChanged)
    assert "recreated" in str(failed)


def test_a_dropped_table_stops_the_sink_and_a_rewind_fills_it_again(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    commit(publisher, item_batch(1, [1]))
    sink = make_sink().start()
    sink.wait_for(COUNT, [(1,)])
    sink.stop()
    with psycopg.connect(sink.url, autocommit=True) as connection:
        connection.execute("DROP TABLE items")
    commit(publisher, item_batch(2, [2]))
    again = make_sink().start()
    failed = again.wait_to_fail()
    assert isinstance(failed, StateError)
    assert "cdc sink rewind" in failed.hint
    target = postgres.create(again.context, again.config)
    target.open()
    [(identity, partitions)] = topic_ids(pipeline.kafka, [pipeline.topic()]).values()
    assert partitions == 1
    target.place({TopicPartition(pipeline.topic(), identity, 0): None})
    target.close()
    make_sink().start().wait_for(COUNT, [(2,)])


def test_a_cursor_below_the_start_of_the_log_stops_the_sink(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    commit(publisher, item_batch(1, [1]))
    sink = make_sink().start()
    sink.wait_for(COUNT, [(1,)])
    sink.stop()
    commit(publisher, item_batch(2, [2, 3, 4]))
    admin = AdminClient({"bootstrap.servers": pipeline.kafka.bootstrap})
    place = Place(pipeline.topic(), 0, 4)
    admin.delete_records([place])[place].result(10)
    again = make_sink().start()
    failed = again.wait_to_fail()
    assert isinstance(failed, TopicChanged)
    assert re.search(r"rewind", failed.hint)


def test_two_workers_on_one_sink_end_with_the_second_fenced_and_nothing_twice(
    publisher: Publisher, make_sink: MakeSink
) -> None:
    one = make_sink()
    with psycopg.connect(one.url, autocommit=True) as connection:
        connection.execute(AUDIT)
    other = make_sink()
    commit(publisher, item_batch(1, [0]))
    one.start()
    other.start()
    for number in range(2, 60):
        commit(publisher, item_batch(number, [number]))
        if one.failed is not None or other.failed is not None:
            break
    last = number
    alive = other if one.failed is not None else one
    alive.wait_for(COUNT, [(last,)])
    assert one.query("SELECT op, count(*) FROM audit GROUP BY op") == [("INSERT", last)]
