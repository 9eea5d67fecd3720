"""Records and position commit together, or not at all."""

from __future__ import annotations

import io
import threading
from typing import Any

import fastavro
import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from cdc.columns import ColumnRule
from cdc.errors import ConfigError, DataError, Fenced, SchemaIncompatible, StateError, TopicChanged
from cdc.kafka import producer_client
from cdc.positions import PositionsTopic, decode_position
from cdc.publish import Claim, PublishConfig, Publisher
from cdc.source import Batch, Progress
from fix_pipeline import ITEMS, At, Pipeline, item_batch
from schemas.avro import raw_schema
from schemas.change import Change, Op, Origin, Rows, Stamp
from schemas.table import Column, Type
from schemas.wire import schema_id


def values(pipeline: Pipeline, topic: str) -> list[dict[str, Any]]:
    out = []
    for message in pipeline.read(topic):
        payload = message.value()
        if payload is not None:
            schema = fastavro.parse_schema(raw_schema(pipeline.registry.get(schema_id(payload))))
            out.append(fastavro.schemaless_reader(io.BytesIO(payload[5:]), schema, None))
    return out


def test_a_commit_makes_records_and_position_visible_together(pipeline: Pipeline) -> None:
    publisher = pipeline.publisher()
    assert publisher.acquire().position is None
    publisher.add(item_batch(10, [1, 2, 3]))
    assert pipeline.read(pipeline.topic(), open_too=False) == []
    committed = publisher.commit()
    publisher.close()
    assert committed is not None
    assert committed.position == At(10)
    assert [v["after"]["id"] for v in values(pipeline, pipeline.topic())] == [1, 2, 3]
    stored = PositionsTopic(pipeline.kafka, pipeline.name).read(pipeline.source)
    assert stored.position == {"version": 1, "number": 10}
    assert stored.boundary == Stamp(1, 10)


def test_who_was_replaced_does_not_take_the_source_back(pipeline: Pipeline) -> None:
    """Its session may end for any other reason, and a new one would fence the successor."""
    claim = Claim()
    first = pipeline.publisher()
    first.acquire(claim)
    first.close()
    again = pipeline.publisher()
    again.acquire(claim)
    again.add(item_batch(10, [1]))
    again.commit()
    again.close()
    second = pipeline.publisher()
    assert second.acquire(Claim()).position == {"version": 1, "number": 10}
    late = pipeline.publisher()
    with pytest.raises(Fenced, match="taken over"):
        late.acquire(claim)
    late.close()
    second.add(item_batch(20, [2]))
    assert second.commit() is not None
    second.close()
    assert [v["after"]["id"] for v in values(pipeline, pipeline.topic())] == [1, 2]


def test_a_claim_is_no_progress_of_the_source(pipeline: Pipeline) -> None:
    for _ in range(2):
        publisher = pipeline.publisher()
        assert publisher.acquire().progress == {}
        publisher.close()


def test_what_was_not_committed_is_never_read(pipeline: Pipeline) -> None:
    first = pipeline.publisher()
    first.acquire()
    first.add(item_batch(10, [1]))
    first.commit()
    first.add(item_batch(20, [2]))
    second = pipeline.publisher()
    assert second.acquire().position == {"version": 1, "number": 10}
    second.add(item_batch(20, [2]))
    second.commit()
    second.close()
    first.close()
    assert [v["after"]["id"] for v in values(pipeline, pipeline.topic())] == [1, 2]


def write_on(publisher: Publisher) -> None:
    """The client learns of its fencing with one of the next few requests."""
    for _ in range(50):
        publisher.add(item_batch(20, [2]))
        publisher.commit()


def test_a_former_owner_is_fenced(pipeline: Pipeline) -> None:
    first = pipeline.publisher()
    first.acquire()
    first.add(item_batch(10, [1]))
    second = pipeline.publisher()
    second.acquire()
    with pytest.raises(Fenced):
        write_on(first)
    first.close()
    second.close()
    assert pipeline.read(pipeline.topic()) == []


def test_a_heartbeat_moves_the_position_alone(pipeline: Pipeline) -> None:
    publisher = pipeline.publisher()
    publisher.acquire()
    publisher.add(Batch([], At(77), Stamp(1, 77)))
    committed = publisher.commit()
    publisher.close()
    assert committed is not None
    assert committed.rows == 0
    stored = PositionsTopic(pipeline.kafka, pipeline.name).read(pipeline.source)
    assert stored.position == {"version": 1, "number": 77}


def test_progress_commits_with_the_position_and_can_be_forgotten(pipeline: Pipeline) -> None:
    publisher = pipeline.publisher()
    publisher.acquire()
    positions = PositionsTopic(pipeline.kafka, pipeline.name)
    publisher.add(Batch([], At(1), Stamp(1, 1), [Progress("chunk/public.items", {"after": 5})]))
    publisher.commit()
    assert positions.read(pipeline.source).progress == {"chunk/public.items": {"after": 5}}
    publisher.add(Batch([], At(2), Stamp(1, 2), [Progress("chunk/public.items", None)]))
    publisher.commit()
    publisher.close()
    assert positions.read(pipeline.source).progress == {}


def test_a_key_change_is_delete_tombstone_create(pipeline: Pipeline) -> None:
    change = Change(Op.UPDATE, (b"1", b"a"), (b"2", b"a"))
    rows = Rows(ITEMS, "changes", Origin(1, 5, 0, "9"), [change], [4])
    publisher = pipeline.publisher()
    publisher.acquire()
    publisher.add(Batch([rows], At(5), Stamp(1, 5)))
    publisher.commit()
    publisher.close()
    found = pipeline.read(pipeline.topic())
    assert [message.value() is None for message in found] == [False, True, False]
    assert found[0].key() == found[1].key() != found[2].key()
    written = values(pipeline, pipeline.topic())
    assert [(v["op"], v["source"]["ordinal"], v["source"]["sub"]) for v in written] == [
        ("d", 4, 0),
        ("c", 4, 2),
    ]


def test_columns_are_dropped_masked_hashed_and_cut_before_kafka(pipeline: Pipeline) -> None:
    columns = tuple(Column(n, Type("string")) for n in ("id", "a", "b", "c", "d"))
    schema = msgspec.structs.replace(ITEMS, columns=columns)
    rules = {
        "public.items.a": ColumnRule(drop=True),
        "public.items.b": ColumnRule(mask="***"),
        "public.items.c": ColumnRule.model_validate({"hash": "pepper"}),
        "public.items.d": ColumnRule(truncate=2),
    }
    change = Change(Op.CREATE, None, (b"1", b"secret a", b"secret b", b"secret c", "äöü".encode()))
    rows = Rows(schema, "changes", Origin(1, 5, 0), [change], [0])
    publisher = pipeline.publisher(columns=rules)
    publisher.acquire()
    publisher.add(Batch([rows], At(5), Stamp(1, 5)))
    publisher.commit()
    publisher.close()
    after = values(pipeline, pipeline.topic())[0]["after"]
    assert set(after) == {"id", "b", "c", "d"}
    assert (after["b"], after["d"]) == ("***", "äö")
    assert len(after["c"]) == 64
    assert b"secret" not in (pipeline.read(pipeline.topic())[0].value() or b"")


def test_a_rule_may_not_take_the_key_away(pipeline: Pipeline) -> None:
    publisher = pipeline.publisher(columns={"public.*.id": ColumnRule(drop=True)})
    publisher.acquire()
    with pytest.raises(ConfigError, match="key column"):
        publisher.add(item_batch(10, [1]))
    publisher.close()


def test_an_incompatible_version_stops_before_its_first_record(pipeline: Pipeline) -> None:
    publisher = pipeline.publisher()
    publisher.acquire()
    publisher.add(item_batch(10, [1]))
    publisher.commit()
    retyped = (Column("id", Type("int64")), Column("name", Type("boolean")))
    with pytest.raises(SchemaIncompatible, match="name"):
        publisher.add(item_batch(20, [2], msgspec.structs.replace(ITEMS, columns=retyped)))
    publisher.close()
    assert len(pipeline.read(pipeline.topic())) == 1


def test_partitions_are_fixed_at_creation(pipeline: Pipeline) -> None:
    options = PublishConfig(partitions={"public.*": 4})
    publisher = pipeline.publisher(options)
    publisher.acquire()
    publisher.add(item_batch(10, list(range(40))))
    publisher.commit()
    publisher.close()
    assert {message.partition() for message in pipeline.read(pipeline.topic())} == {0, 1, 2, 3}
    grow(pipeline, pipeline.topic(), 6)
    again = pipeline.publisher(options)
    again.acquire()
    with pytest.raises(TopicChanged, match="4 partitions"):
        again.add(item_batch(20, [2]))
    again.close()


def grow(pipeline: Pipeline, topic: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": pipeline.kafka.bootstrap})
    admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(20)


def test_a_record_over_the_limit_is_named_and_nothing_of_it_is_committed(
    pipeline: Pipeline,
) -> None:
    pipeline.kafka.max_message_bytes = 2_000
    change = Change(Op.CREATE, None, (b"1", b"x" * 5_000))
    rows = Rows(ITEMS, "changes", Origin(1, 5, 0), [change], [0])
    publisher = pipeline.publisher()
    publisher.acquire()
    with pytest.raises(DataError, match=r"writing a record of 5\d\d\d bytes to") as caught:
        publisher.add(Batch([rows], At(5), Stamp(1, 5)))
    publisher.close()
    assert "max_message_bytes" in caught.value.hint
    assert pipeline.read(pipeline.topic()) == []


def test_a_position_of_a_newer_version_is_refused_by_name(pipeline: Pipeline) -> None:
    positions = PositionsTopic(pipeline.kafka, pipeline.name)
    partition = positions.partition(pipeline.source)
    producer = producer_client(pipeline.kafka)
    value = msgspec.json.encode({"version": 99, "position": {}, "boundary": [1, 1], "ts_ms": 0})
    producer.produce(positions.name, value, pipeline.source.encode(), partition)
    producer.flush(10)
    with pytest.raises(StateError, match="newer version"):
        pipeline.publisher().acquire()


def test_bytes_that_are_no_position_are_refused() -> None:
    with pytest.raises(StateError, match="is not a position"):
        decode_position(b"[]", "here")


def test_a_newer_position_behind_an_open_transaction_is_waited_for(pipeline: Pipeline) -> None:
    """End-of-partition comes before another source's open transaction; our position lies after."""
    first = pipeline.publisher()
    first.acquire()
    positions = PositionsTopic(pipeline.kafka, pipeline.name)
    partition = positions.partition(pipeline.source)
    other = producer_client(pipeline.kafka, transactional_id=f"{pipeline.name}.other")
    other.init_transactions(10)
    other.begin_transaction()
    other.produce(positions.name, b"{}", b"someone-else", partition)
    other.flush(10)
    first.add(item_batch(10, [1]))
    first.commit()
    first.close()
    ending = threading.Timer(1.0, lambda: other.commit_transaction(10))
    ending.start()
    stored = positions.read(pipeline.source)
    ending.join()
    assert stored.position == {"version": 1, "number": 10}
