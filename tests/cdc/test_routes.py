"""What becomes of rows that are not plain: outbox, logical messages, transaction boundaries."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cdc.errors import ConfigError
from cdc.outbox import OutboxConfig
from cdc.publish import PublishConfig
from cdc.source import Batch
from fix_pipeline import ITEMS, At, Pipeline, item_batch, item_rows
from schemas.change import Change, Op, Origin, Rows, Stamp
from schemas.messages import MESSAGES
from schemas.table import Column, TableId, TableSchema, Type

OUTBOX = TableSchema(
    TableId("public", "outbox"),
    tuple(
        Column(name, Type("string"))
        for name in ("id", "aggregatetype", "aggregateid", "type", "payload")
    ),
    ("id",),
)


def publish(pipeline: Pipeline, options: PublishConfig, *batches: Batch) -> None:
    publisher = pipeline.publisher(options)
    publisher.acquire()
    for batch in batches:
        publisher.add(batch)
    publisher.commit()
    publisher.close()


def test_an_outbox_row_becomes_a_message_of_its_own(pipeline: Pipeline) -> None:
    row = (b"7", b"order", b"42", b"OrderPlaced", b'{"total": 3}')
    changes = [Change(Op.CREATE, None, row), Change(Op.DELETE, row, None)]
    rows = Rows(OUTBOX, "changes", Origin(1, 5, 0, "9"), changes, [0, 1])
    topic = f"{pipeline.name}.events.{{route}}"
    outbox = OutboxConfig(table="public.outbox", topic=topic)
    publish(pipeline, PublishConfig(outbox=outbox), Batch([rows], At(5), Stamp(1, 5)))
    found = pipeline.read(f"{pipeline.name}.events.order")
    assert [(m.key(), m.value()) for m in found] == [(b"42", b'{"total": 3}')]
    assert found[0].headers() == [("id", b"7"), ("eventType", b"OrderPlaced")]
    assert pipeline.read(pipeline.topic("public.outbox")) == []


def test_an_outbox_column_that_does_not_exist_is_named(pipeline: Pipeline) -> None:
    outbox = OutboxConfig(table="public.items", payload="body")
    with pytest.raises(ConfigError, match=r"no column .*body"):
        publish(pipeline, PublishConfig(outbox=outbox), item_batch(5, [1]))


def test_a_logical_message_is_an_event(pipeline: Pipeline) -> None:
    change = Change(Op.MESSAGE, message=("app", b"\x00deployed"))
    rows = Rows(MESSAGES, "changes", Origin(1, 5, 0, "9"), [change], [0])
    publish(pipeline, PublishConfig(), Batch([rows], At(5), Stamp(1, 5)))
    found = pipeline.read(f"{pipeline.source}.message")
    assert len(found) == 1
    assert b"\x00deployed" in (found[0].value() or b"")


def boundaries(pipeline: Pipeline) -> list[dict[str, Any]]:
    topic = f"{pipeline.source}.transaction"
    return [msgspec.json.decode(m.value() or b"") for m in pipeline.read(topic)]


def test_begin_and_end_of_each_transaction_with_its_counts(pipeline: Pipeline) -> None:
    options = PublishConfig(transactions=True)
    both = Batch([item_rows(10, [1, 2]), item_rows(20, [3])], At(20), Stamp(1, 20))
    publish(pipeline, options, both)
    found = boundaries(pipeline)
    assert [(b["status"], b["id"]) for b in found] == [
        ("BEGIN", "10:10"),
        ("END", "10:10"),
        ("BEGIN", "20:20"),
        ("END", "20:20"),
    ]
    assert found[1]["event_count"] == 2
    assert found[1]["data_collections"] == [{"data_collection": "public.items", "event_count": 2}]


def test_counts_go_on_after_a_restart_inside_a_transaction(pipeline: Pipeline) -> None:
    options = PublishConfig(transactions=True)
    publish(pipeline, options, Batch([item_rows(10, [1, 2])], At(1), Stamp(1, 0)))
    assert [b["status"] for b in boundaries(pipeline)] == ["BEGIN"]
    publish(pipeline, options, Batch([item_rows(10, [3])], At(2), Stamp(1, 10)))
    found = boundaries(pipeline)
    assert [b["status"] for b in found] == ["BEGIN", "END"]
    assert found[1]["event_count"] == 3


def test_a_truncate_reaches_every_partition(pipeline: Pipeline) -> None:
    rows = Rows(ITEMS, "changes", Origin(1, 5, 0), [Change(Op.TRUNCATE)], [0])
    options = PublishConfig(partitions={"public.items": 3})
    publish(pipeline, options, Batch([rows], At(5), Stamp(1, 5)))
    assert sorted(m.partition() for m in pipeline.read(pipeline.topic())) == [0, 1, 2]
