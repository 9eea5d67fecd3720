"""A sink of recorded topics ends equal to the source; `make interchange` does it live."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import NewTopic

from cdc.kafka import admin_client, producer_client
from fix_pipeline import Pipeline, wait_until
from fix_sink import Sink
from interchange.forms import FORMS, mapping, rows
from interchange.recording import Recording, load, written
from interchange.workload import make_tables, prepare_types

ARRIVING_S = 90.0


def replay(pipeline: Pipeline, recording: Recording) -> None:
    """Write the recorded records into topics of the pipeline's source."""
    admin = admin_client(pipeline.kafka)
    topics = [NewTopic(pipeline.topic(f"public.{table}"), 1, 1) for table in recording.topics]
    for future in admin.create_topics(topics).values():
        future.result(30)
    producer = producer_client(pipeline.kafka)
    for table, records in recording.topics.items():
        for one in records:
            producer.produce(
                pipeline.topic(f"public.{table}"), one.value, one.key, headers=one.headers
            )
    assert producer.flush(30) == 0
    for table, records in recording.topics.items():
        assert [written(m) for m in pipeline.read(pipeline.topic(f"public.{table}"))] == records


@pytest.mark.parametrize("form", FORMS)
def test_a_sink_of_recorded_topics_ends_equal_to_the_source(
    form: str,
    pipeline: Pipeline,
    make_sink: Any,
    pg_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recording = load(form)
    with psycopg.connect(pg_database, autocommit=True) as db:
        prepare_types(db)
        if form == "avro":
            make_tables(db)
    replay(pipeline, recording)
    monkeypatch.setattr(pipeline, "registry", recording)
    sink: Sink = make_sink(tables=mapping(form, pipeline.source))
    sink.start()

    def equal(table: str) -> bool:
        if sink.failed is not None:
            raise AssertionError("the sink failed") from sink.failed
        try:
            return rows(pg_database, table) == recording.rows[table]
        except psycopg.errors.UndefinedTable:
            return False

    for table in FORMS[form]:
        wait_until(lambda table=table: equal(table), f"{form} {table}", ARRIVING_S)
    assert sum(batch.dead for batch in sink.told.batches) == 0
