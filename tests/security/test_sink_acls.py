"""With exactly the ACLs of docker/acls.md a sink works; what it lacks it names, or waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from cdc.brokers import COMPACTED, TopicSettings, ensure_topics
from cdc.errors import ConfigError
from fix_pipeline import Pipeline, item_batch, wait_until
from fix_sink import Sink
from fix_tls import Door, SecureKafka, as_acl, documented

GOOD = "SELECT id FROM public.items ORDER BY id"
LINES = documented("sink", creates=False)
SHARED = ("control", "status", "tailrace")
OWN = [line for line in LINES if not line[1].endswith(SHARED)]
NARROW = "CREATE TABLE public.items (id bigint PRIMARY KEY, name text CHECK (length(name) < 7))"
Allowed = Callable[..., Sink]


@pytest.fixture
def allowed(
    secure_kafka: SecureKafka, door: Door, registry: Any, pg_database: str
) -> Iterator[Allowed]:
    """Make a sink whose user may do what the page says, but for one line; its topics are there.

    Of the three records one does not fit into the target's table.
    """
    made: list[Sink] = []
    opened = Pipeline(secure_kafka.broker.bootstrap, registry.url)

    def make(without: tuple[str, str, str] | None = None) -> Sink:
        publish(opened)
        with psycopg.connect(pg_database, autocommit=True) as connection:
            connection.execute(NARROW)
        names = {"pipeline": opened.name, "source": opened.source, "sink": "mirror"}
        client = secure_kafka.login(opened.name, secure_kafka.add_user(opened.name))
        acls = [as_acl(line, names) for line in LINES if line != without]
        secure_kafka.allow(opened.name, acls)
        guarded = door(secure_kafka.broker.address("SECURE"), client)
        guarded.name, guarded.source, guarded.context = opened.name, opened.source, opened.context
        made.append(Sink(guarded, pg_database).start())
        return made[-1]

    yield make
    for sink in made:
        sink.stop()
    opened.registry.close()


def publish(pipeline: Pipeline) -> None:
    ensure_topics(pipeline.kafka, {f"{pipeline.name}.dead": TopicSettings(1, COMPACTED)})
    publisher = pipeline.publisher()
    publisher.acquire()
    publisher.add(item_batch(10, [1, 2, 1000]))
    publisher.commit()
    publisher.close()


def test_a_sink_applies_and_sets_aside_with_exactly_the_documented_acls(allowed: Allowed) -> None:
    sink = allowed()
    sink.wait_for(GOOD, [(1,), (2,)])
    wait_until(lambda: sum(batch.dead for batch in sink.told.batches) == 1, "one is set aside")


@pytest.mark.parametrize("line", [line for line in OWN if "source" not in line[1]], ids=" ".join)
def test_a_sink_that_lacks_one_acl_names_what_it_lacks(
    allowed: Allowed, line: tuple[str, str, str]
) -> None:
    sink = allowed(without=line)
    error = sink.wait_to_fail()
    assert isinstance(error, ConfigError)
    kind, name, _ = line
    assert f"{kind.upper()}_AUTHORIZATION_FAILED" in str(error)
    assert name.rpartition(".")[2].strip("<>") in f"{error} {error.hint}"


def test_a_topic_a_sink_may_not_read_does_not_exist_for_it(allowed: Allowed) -> None:
    sink = allowed(without=next(line for line in OWN if "source" in line[1]))
    wait_until(lambda: "topic" in sink.told.last.waiting, "the sink waits for a topic")
    assert sink.query(GOOD) == []
    assert sink.failed is None
