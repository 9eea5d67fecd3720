"""Lookups in a topic: what a table says after each record, and what rows find while it grows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from confluent_kafka import Message
from pydantic import ValidationError

from cdc.errors import ConfigError, KafkaUnavailable, Stop
from fix_pipeline import Pipeline, wait_until
from fix_sink import Sink, changes, commit, insert, piece, update
from mapped import payloads
from schemas.avro import envelope_schema
from schemas.change import ABSENT, Change, Op
from schemas.table import Column, TableId, TableSchema, Type
from sinks.fields import FieldMap
from sinks.lookup import Lookup, finder
from sinks.topic_lookup import Lookups, TopicTable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fix_cli import Cdc

CODES = TableSchema(
    TableId("public", "codes"),
    (
        Column("id", Type("int64")),
        Column("code", Type("string")),
        Column("label", Type("string")),
    ),
    ("id",),
)


class Schemas:
    """The one schema that the records of `CODES` are written with."""

    def get(self, _schema_id: int) -> dict[str, Any]:
        return envelope_schema(CODES, "shop.public.codes")


def table(*records: tuple[Any, Any], **lookup: Any) -> TopicTable:
    """A table that has taken records of JSON, or of bytes."""
    made = TopicTable(Lookup(topic="codes", **lookup), Schemas())
    for offset, (key, value) in enumerate(records):
        made.take(
            Message(topic="codes", partition=0, offset=offset, key=raw(key), value=raw(value))
        )
    return made


def raw(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else json.dumps(value).encode()


def test_a_topic_of_keys_and_values_needs_no_names() -> None:
    found = table((b"DE", b"Germany"), (b"AT", b"Austria"), (b"DE", b"Deutschland"), (b"AT", None))
    assert found.find(b"DE") == (b"Deutschland",)
    assert found.find(b"AT") is None


def test_a_row_whose_looked_up_value_changes_leaves_the_old_one() -> None:
    rows = (
        ({"id": 1}, {"id": 1, "code": "DE", "n": 49}),
        ({"id": 1}, {"id": 1, "code": "D", "n": 4}),
    )
    found = table(*rows, key="code", value="n")
    assert (found.find(b"D"), found.find(b"DE")) == ((b"4",), None)


def test_envelopes_are_read_whole_partly_deleted_and_truncated() -> None:
    names = {"key": "code", "value": "label"}
    made = table(**names)
    steps = (
        Change(Op.CREATE, None, (b"1", b"DE", b"Germany")),
        Change(Op.UPDATE, None, (b"1", b"D", ABSENT)),
        Change(Op.CREATE, None, (b"2", b"AT", None)),
        Change(Op.DELETE, (b"1", b"D", b"Germany"), None),
        Change(Op.TRUNCATE, None, None),
    )
    seen = []
    for step in steps:
        row = step.after or step.before or (b"",)
        for value in payloads(CODES, step):
            made.take(Message(topic="codes", partition=0, offset=0, key=row[0], value=value))
        seen.append([made.find(code) for code in (b"DE", b"D", b"AT")])
    assert seen == [
        [(b"Germany",), None, None],
        [None, (b"Germany",), None],
        [None, (b"Germany",), (None,)],
        [None, None, (None,)],
        [None, None, None],
    ]
    assert made.bytes == 0


def test_a_table_that_takes_too_much_memory_names_its_limit() -> None:
    with pytest.raises(
        Stop, match=r"more than the 2000 bytes of `max_bytes`, with \d entries"
    ) as no:
        table(*((b"%d" % n, b"x" * 100) for n in range(9)), max_bytes=2000)
    assert "max_bytes" in no.value.hint
    table(*((b"1", b"x" * 100) for _ in range(9)), max_bytes=2000)


@pytest.mark.parametrize(
    ("key", "value", "names", "says"),
    [
        (None, b"x", {}, "it has no key"),
        ({"id": 1}, {"id": 1}, {}, "the lookup says no `value`"),
        ({"a": 1, "b": 2}, {"a": 1}, {"value": "a"}, "several columns"),
        ({"id": 1}, {"id": 1}, {"key": "gone", "value": "id"}, "there is no column 'gone'"),
    ],
)
def test_a_record_that_is_no_entry_stops_by_its_place(
    key: Any, value: Any, names: dict[str, str], says: str
) -> None:
    with pytest.raises(Stop, match=rf"codes\[0\] at offset 0 is no entry of a table: .*{says}"):
        table((key, value), **names)


def test_a_lookup_is_a_file_or_a_topic() -> None:
    for given in ({}, {"file": "a.csv", "topic": "b"}):
        with pytest.raises(ValidationError, match="exactly one of `file` and `topic`"):
            FieldMap.model_validate({"from": "a", "lookup": given})


def test_who_does_not_follow_the_topic_cannot_say_what_a_row_found() -> None:
    with pytest.raises(ConfigError, match="lookup topic codes is not read here"):
        finder(Lookup(topic="codes"))(b"DE")


def test_a_row_finds_what_was_committed_with_it_and_later_rows_what_came_since(
    pipeline: Pipeline, make_sink: Callable[..., Sink], tmp_path: Path, cdc: Cdc
) -> None:
    codes, items = pipeline.topic("public.codes"), pipeline.topic()
    name = {"from": "name", "lookup": {"topic": codes, "key": "code", "value": "label"}}
    tables = {items: {"to": "public.items", "fields": {"id": "id", "name": name}}}
    sink = make_sink(tables=tables)
    with pytest.raises(KafkaUnavailable, match="there is no such topic"):
        Lookups(sink.config.tables, pipeline.kafka, pipeline.registry).open()
    publisher = pipeline.publisher()
    publisher.acquire()
    first = changes(1, insert(b"1", b"DE", b"Germany"), schema=CODES)
    commit(publisher, piece(1, first, changes(1, insert(b"1", b"DE"), first=1)))
    sink.start().wait_for("SELECT id, name FROM items ORDER BY id", [(1, "Germany")])
    renamed = changes(2, update(b"1", b"DE", b"Deutschland"), schema=CODES)
    made = changes(2, insert(b"2", b"AT", b"Austria"), schema=CODES, first=1)
    rows = changes(2, insert(b"2", b"DE"), insert(b"3", b"AT"), insert(b"4", b"XX"), first=2)
    commit(publisher, piece(2, renamed, made, rows))
    publisher.close()
    sink.wait_for(
        "SELECT id, name FROM items ORDER BY id",
        [(1, "Germany"), (2, "Deutschland"), (3, "Austria")],
    )
    wait_until(lambda: sum(batch.dead for batch in sink.told.batches) == 1, "XX is refused")
    file = tmp_path / "tailrace.yaml"
    kafka = {"bootstrap": pipeline.kafka.bootstrap, "registry": pipeline.kafka.registry.url}
    target = {"type": "postgres", "url": sink.url, "tables": tables}
    written = {"pipeline": pipeline.name, "kafka": kafka, "sinks": {"mirror": target}}
    file.write_text(yaml.safe_dump(written))
    tried = cdc("map", "try", "--table", items, "--json", "-c", str(file)).json()["records"]
    assert [one.get("after", {}).get("name") for one in tried] == [
        "Deutschland",
        "Deutschland",
        "Austria",
        None,
    ]
    assert f"'XX' is not in topic {codes}" in tried[-1]["reason"]
