"""Kafka or the registry go away and come back: the sink waits where it can be seen, and goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cdc.publish import Publisher
from fix_pipeline import ITEMS, Pipeline, item_batch, wait_until
from fix_sink import Sink, commit
from fix_stack import a_kafka, a_registry
from schemas.table import TableId, TableSchema

COUNT = "SELECT count(*) FROM items"
OTHERS = TableSchema(TableId("public", "others"), ITEMS.columns, ("id",))


@pytest.fixture
def servers() -> Iterator[tuple[Any, Any]]:
    with a_kafka() as kafka, a_registry() as registry:
        yield kafka, registry


@pytest.fixture
def pipeline(servers: tuple[Any, Any]) -> Iterator[Pipeline]:
    kafka, registry = servers
    made = Pipeline(kafka.bootstrap, registry.url)
    yield made
    made.registry.close()


def test_a_broker_and_a_registry_that_go_away_are_waited_for(
    servers: tuple[Any, Any],
    make_publisher: Callable[..., Publisher],
    make_sink: Callable[..., Sink],
) -> None:
    kafka, registry = servers
    publisher = make_publisher()
    commit(publisher, item_batch(1, [1, 2]))
    sink = make_sink().start()
    sink.wait_for(COUNT, [(2,)])

    kafka.server.pause()
    wait_until(lambda: sink.told.last.state == "retrying", "the sink says that Kafka is away")
    kafka.server.resume()
    commit(publisher, item_batch(2, [3]))
    sink.wait_for(COUNT, [(3,)])

    publisher.add(item_batch(3, [4], OTHERS))
    registry.server.pause()
    publisher.commit()
    wait_until(lambda: "registry" in sink.told.last.waiting, "the sink names the registry")
    registry.server.resume()
    sink.wait_for("SELECT count(*) FROM others", [(1,)])
    wait_until(lambda: sink.told.rows == 4, "every row is counted once")
