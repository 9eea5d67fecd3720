"""A schema that changes on the way: topics, registry and a sink that follows, or stops."""

from __future__ import annotations

import psycopg

from cdc.errors import SchemaIncompatible
from fix_pipeline import ITEMS, Pipeline, item_rows
from fix_sink import Sink, changes, commit, insert, piece
from schemas.avro import envelope_schema
from schemas.table import Column, TableSchema, Type

ROWS = "SELECT id, at::text FROM items ORDER BY id"
COLUMNS = "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'items'"
WITHOUT = TableSchema(ITEMS.table, (*ITEMS.columns[:1], Column("at", Type("date"))), ("id",))


def two_versions(pipeline: Pipeline) -> None:
    """Publish a row with a name, then one of a version that has none."""
    publisher = pipeline.publisher()
    publisher.acquire()
    commit(publisher, piece(10, item_rows(10, [1])))
    commit(publisher, piece(20, changes(20, insert(b"2", b"2026-01-31"), schema=WITHOUT)))
    publisher.close()


def test_a_mirror_follows_its_source_from_one_version_to_the_next(
    pipeline: Pipeline, pg_database: str
) -> None:
    two_versions(pipeline)
    sink = Sink(pipeline, pg_database, schema_changes="mirror").start()
    try:
        sink.wait_for(COLUMNS, [("id",), ("at",)])
        assert sink.query(ROWS) == [(1, None), (2, "2026-01-31")]
    finally:
        sink.stop()


def test_a_sink_stops_at_a_change_it_is_told_to_stop_at_and_goes_on_once_it_is_made(
    pipeline: Pipeline, pg_database: str
) -> None:
    two_versions(pipeline)
    rules = {"preset": "additive", "drop": "stop"}
    sink = Sink(pipeline, pg_database, schema_changes=rules).start()
    failed = sink.wait_to_fail()
    sink.stop()
    assert isinstance(failed, SchemaIncompatible)
    assert "column name was dropped" in str(failed)
    with psycopg.connect(pg_database, autocommit=True) as connection:
        connection.execute(failed.hint)
    again = Sink(pipeline, pg_database, schema_changes=rules).start()
    try:
        again.wait_for(COLUMNS, [("id",), ("at",)])
        again.wait_for(ROWS, [(1, None), (2, "2026-01-31")])
    finally:
        again.stop()


def test_the_versions_of_a_record_s_schema_are_told_with_their_ids(pipeline: Pipeline) -> None:
    topic, registry = pipeline.topic(), pipeline.registry
    versions = [envelope_schema(schema, topic) for schema in (ITEMS, WITHOUT)]
    found = [(registry.register_for(topic, version), version) for version in versions]
    assert registry.history(topic, found[0][0]) == found
