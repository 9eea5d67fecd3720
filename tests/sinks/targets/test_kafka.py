"""A Kafka topic keeps the contract of a transactional target, as far as a topic has rows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader

from cdc.config import parse_pipeline
from cdc.connector import Context
from cdc.errors import ConfigError, DataError, SchemaIncompatible, Stop
from fix_pipeline import Pipeline
from schemas.avro import raw_schema
from schemas.change import ABSENT, Cell
from schemas.table import Column, TableId, TableSchema, Type
from schemas.wire import schema_id
from sinks.kafka.records import avro_form, json_form
from sinks.target import Mapped, Target
from sinks.targets.kafka import Config, KafkaTarget, check, create
from sinks.testing import ITEMS, NOTES, PLACE, TargetContract, TargetSystem, barrier, span, upsert

PAGE = Path("sinks/targets/kafka.md")


class Topics:
    """Topics of a test's own; every target on them is closed after the test."""

    def __init__(self, pipeline: Pipeline, **options: Any) -> None:
        self.pipeline = pipeline
        self.context = Context(pipeline.name, "mirror", pipeline.kafka)
        given = {"tables": ["src.*"], "topic": f"{pipeline.name}-{{schema}}.{{table}}", **options}
        self.config = Config.model_validate(given)
        self.opened: list[KafkaTarget] = []

    def connect(self) -> KafkaTarget:
        self.opened.append(create(self.context, self.config))
        return self.opened[-1]

    def topic(self, table: TableId) -> str:
        return f"{self.pipeline.name}-{table}"

    def records(self, table: TableId) -> list[tuple[bytes | None, bytes | None]]:
        """Keys and values of all committed records."""
        return [(m.key(), m.value()) for m in self.pipeline.read(self.topic(table))]

    def rows(self, table: TableId) -> list[tuple[bytes | None, ...]]:
        """What compaction would leave; without keys, everything."""
        kept: dict[object, bytes | None] = {}
        for place, (key, value) in enumerate(self.records(table)):
            kept[place if key is None else key] = value
        found = [json.loads(value).values() for value in kept.values() if value is not None]
        texts = [tuple(None if v is None else str(v).encode() for v in row) for row in found]
        return sorted(texts, key=repr)

    def close(self) -> None:
        for target in self.opened:
            target.close()


@pytest.fixture
def system(pipeline: Pipeline) -> Iterator[Topics]:
    topics = Topics(pipeline)
    yield topics
    topics.close()


class TestKafka(TargetContract):
    """The suite. Where it says otherwise, a topic has no row to merge with, match or take away."""

    def test_a_column_that_was_not_sent_is_left_alone(
        self, target: Target, system: TargetSystem
    ) -> None:
        """It cannot be: the row is refused, never written with NULL in its place (R6)."""
        target.apply(upsert((b"1", b"pen", b"1.50")), [span(None, 1)])
        with pytest.raises(DataError, match="lacks values"):
            target.apply(upsert((b"1", ABSENT, b"9.00")), [span(1, 2)])
        assert system.rows(ITEMS.table) == [(b"1", b"pen", b"1.50")]

    def test_a_moved_row_takes_what_was_not_sent_from_its_old_one(
        self, target: Target, system: TargetSystem
    ) -> None:
        """It cannot: refused as a whole, its old row stays."""
        target.apply(upsert((b"1", b"pen", b"1.50")), [span(None, 1)])
        move: tuple[Sequence[Cell], Sequence[Cell]] = ((b"1",), (b"3", ABSENT, b"9.00"))
        with pytest.raises(DataError, match="lacks values"):
            target.apply([[Mapped(ITEMS, [], [(b"1",)], moves=[move])]], [span(1, 2)])
        assert system.rows(ITEMS.table) == [(b"1", b"pen", b"1.50")]

    def test_a_row_may_stay_and_another_take_its_values_in_the_same_step(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Only one that is whole, as every row of a history with FULL identity is."""
        move: tuple[Sequence[Cell], Sequence[Cell]] = ((b"1",), (b"3", b"pen", b"9.00"))
        step = [Mapped(ITEMS, [(b"1", b"pen", b"5.00")], [], moves=[move])]
        target.apply([step], [span(None, 1)])
        assert system.rows(ITEMS.table) == [(b"1", b"pen", b"5.00"), (b"3", b"pen", b"9.00")]

    def test_a_truncate_empties_before_the_rows_of_its_step(
        self, target: Target, system: TargetSystem
    ) -> None:
        """No record empties a topic: the step is refused by name, or, by option, passed over."""
        steps = [[Mapped(ITEMS, [(b"3", b"jar", None)], [], truncate=True)]]
        with pytest.raises(DataError, match="truncated"):
            target.apply(steps, [span(None, 1)])
        assert system.rows(ITEMS.table) == []

    def test_a_table_without_a_key_keeps_its_duplicates(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Inserts add up; a delete, which would have to take one back, is refused."""
        target.apply([[Mapped(NOTES, [(b"a",), (b"a",), (None,)], [])]], [span(None, 1)])
        with pytest.raises(DataError, match="no key"):
            target.apply([[Mapped(NOTES, [(b"b",)], [(b"a",)])]], [span(1, 2)])
        assert system.rows(NOTES.table) == [(None,), (b"a",), (b"a",)]

    def test_a_value_the_target_cannot_hold_refuses_the_batch(
        self, target: Target, system: TargetSystem
    ) -> None:
        """One that is none of its type; and the target works on afterwards."""
        with pytest.raises(DataError, match="cannot be written"):
            target.apply(upsert((b"1", b"pen", None), (b"x", b"cup", None)), [span(None, 1)])
        assert target.cursors([PLACE]) == {PLACE: None}
        target.apply(upsert((b"1", b"pen", None)), [span(None, 1)])
        assert system.rows(ITEMS.table) == [(b"1", b"pen", None)]

    def test_a_rehearsal_names_the_refused_steps_and_leaves_nothing(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Each step by itself: none waits for a row of another."""
        steps = [
            *upsert((b"1", b"pen", None)),
            *upsert((b"x", b"bad key", None)),
            *upsert((b"1", ABSENT, b"1.00")),
        ]
        assert sorted(target.rehearse([steps])) == [1, 2]
        assert system.rows(ITEMS.table) == []

    def test_a_truncation_waits_until_every_partition_has_come_to_it(
        self, target: Target, system: TargetSystem
    ) -> None:
        """One worker has every partition: nobody waits, and that is said by name."""
        with pytest.raises(Stop, match="one worker"):
            target.meet(barrier(span(None, 1)))
        assert system.rows(ITEMS.table) == []

    def test_a_partition_that_was_placed_elsewhere_no_longer_stands_at_a_truncation(
        self, target: Target, system: TargetSystem
    ) -> None:
        """Nor did it stand there before."""
        target.place({PLACE: span(None, 3).end})
        with pytest.raises(Stop, match="one worker"):
            target.meet(barrier(span(3, 4)))
        assert target.cursors([PLACE])[PLACE] == span(None, 3).end
        assert system.rows(ITEMS.table) == []

    def test_who_reserves_a_sink_keeps_the_others_from_applying_until_it_is_closed(
        self, target: Target, system: TargetSystem
    ) -> None:
        """There are no others to keep away."""
        with pytest.raises(Stop, match="one worker"):
            target.reserve()
        assert system.rows(ITEMS.table) == []


# Killed

WORKER = """
import sys
from cdc.connector import Context
from cdc.kafka import KafkaConfig
from sinks.targets.kafka import Config, create
from sinks.testing import ITEMS, span, upsert

bootstrap, pipeline = sys.argv[1:]
kafka = KafkaConfig.model_validate({"bootstrap": bootstrap, "registry": "http://127.0.0.1:1"})
config = Config.model_validate({"tables": [], "topic": pipeline + "-{schema}.{table}"})
target = create(Context(pipeline, "mirror", kafka), config)
target.open()
target.prepare(ITEMS)
target.apply(upsert((b"1", b"pen", None)), [span(None, 5)])
target.apply(upsert((b"2", b"cup", None)), [span(5, 9)])
"""
POINTS = {
    "sink.before_stage": 5,
    "sink.before_cursor": 5,
    "sink.before_commit": 5,
    "sink.after_commit": 9,
}


def test_a_worker_killed_anywhere_leaves_records_and_cursor_together(pipeline: Pipeline) -> None:
    names = {point: f"{pipeline.name}-{point.replace('.', '-')}" for point in POINTS}
    with ExitStack() as stack:
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, pipeline.kafka.bootstrap, name],
                env={**os.environ, "CDC_FAILPOINTS": f"{point}=kill:2", "PYTHONPATH": "."},
                stderr=subprocess.PIPE,
                text=True,
            )
            for point, name in names.items()
        ]
        for worker in workers:
            stack.callback(worker.kill)
        for worker in workers:
            _, said = worker.communicate(timeout=60)
            assert worker.returncode == -signal.SIGKILL, said
        for point, offset in POINTS.items():
            pipeline.name = names[point]
            topics = Topics(pipeline)
            stack.callback(topics.close)
            target = topics.connect()
            target.open()
            target.prepare(ITEMS)
            stored = target.cursors([PLACE])[PLACE]
            assert stored is not None
            assert stored.offset == offset
            if offset == 5:
                target.apply(upsert((b"2", b"cup", None)), [span(5, 9)])
            assert [key for key, _ in topics.records(ITEMS.table)] == [b'{"id":1}', b'{"id":2}']


# Forms


def test_a_record_has_its_key_and_its_whole_row_and_a_delete_is_a_tombstone(
    system: Topics,
) -> None:
    target = system.connect()
    target.open()
    target.prepare(ITEMS)
    target.apply(upsert((b"1", b"pen", b"1.50")), [span(None, 1)])
    target.apply([[Mapped(ITEMS, [], [(b"1",)])]], [span(1, 2)])
    assert system.records(ITEMS.table) == [
        (b'{"id":1}', b'{"id":1,"name":"pen","price":"1.50"}'),
        (b'{"id":1}', None),
    ]


def test_avro_records_are_read_back_by_their_registered_schemas(pipeline: Pipeline) -> None:
    form = avro_form(ITEMS, f"{pipeline.name}-shop.items", pipeline.registry)

    def read(payload: bytes) -> Any:
        schema = parse_schema(raw_schema(pipeline.registry.get(schema_id(payload))))
        return schemaless_reader(BytesIO(payload[5:]), schema, None)

    assert read(form.key([b"7"])) == {"id": 7}
    assert read(form.row([b"7", None, b"1.50"])) == {"id": 7, "name": None, "price": b"\x00\x96"}
    with pytest.raises(ValueError, match="price has no Avro form"):
        form.row([b"7", None, b"NaN"])


def test_json_keys_keep_the_order_of_the_key() -> None:
    columns = (Column("a", Type("string")), Column("b", Type("int64")), Column("c", Type("date")))
    form = json_form(TableSchema(TableId("s", "t"), columns, ("b", "a")))
    assert form.key([b"1", b"x"]) == b'{"b":1,"a":"x"}'
    assert form.row([b"x", b"1", None]) == b'{"a":"x","b":1,"c":null}'


# What is refused


def test_a_topic_the_sink_reads_is_not_written(pipeline: Pipeline) -> None:
    topics = Topics(pipeline, tables=["*"])
    with pytest.raises(ConfigError, match="would read topic"):
        topics.connect().prepare(ITEMS)


def test_a_strict_sink_makes_no_topic(pipeline: Pipeline) -> None:
    topics = Topics(pipeline, create=False)
    with pytest.raises(SchemaIncompatible, match="is missing") as caught:
        topics.connect().prepare(ITEMS)
    assert "--create" in caught.value.hint


def test_a_check_asks_the_cluster_and_the_registry(pipeline: Pipeline) -> None:
    found = list(check(Context("p", "s", pipeline.kafka), Config(tables=["x.*"], format="avro")))
    assert [finding.level for finding in found] == ["ok", "ok"]


def test_the_pipeline_on_the_page_is_valid() -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    pipeline = parse_pipeline(found[1], Path("kafka.md"), {})
    assert isinstance(pipeline.sinks["lake"].config, Config)
