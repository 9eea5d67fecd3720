"""With exactly the ACLs of docker/acls.md a worker works; with one less it names what it lacks."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

import pytest

from cdc.brokers import COMPACTED, TopicSettings, ensure_topics
from cdc.compacted import ensure_internal
from cdc.control import ControlReader, ControlWriter
from cdc.errors import ConfigError
from cdc.kafka import KafkaConfig
from cdc.positions import PositionsTopic
from cdc.source import Batch
from cdc.status import Heartbeat, StatusReader, StatusWriter
from fix_pipeline import ITEMS, At, Pipeline, item_batch, wait_until
from fix_tls import Door, SecureKafka, as_acl, documented
from schemas.change import UNREADABLE, Change, Op, Origin, Rows, Stamp


def names(pipeline: Pipeline) -> dict[str, str]:
    return {"pipeline": pipeline.name, "source": pipeline.source, "sink": "crm"}


def make_topics(plain: KafkaConfig, pipeline: Pipeline) -> None:
    """Make what a careful administrator makes beforehand."""
    internal = ("positions", "control", "status", "dead", "quarantine")
    wanted = {f"{pipeline.name}.{name}": TopicSettings(1, COMPACTED) for name in internal}
    ensure_topics(plain, {**wanted, pipeline.topic(): TopicSettings(1)})


Worker = Callable[..., Pipeline]


@pytest.fixture
def worker(secure_kafka: SecureKafka, door: Door) -> Worker:
    """Make the pipeline of a new user who may do what the page says, but for one line."""

    def made(
        who: str, without: tuple[str, str, str] | None = None, *, creates: bool = False
    ) -> Pipeline:
        user = f"user-{secrets.token_hex(4)}"
        client = secure_kafka.login(user, secure_kafka.add_user(user))
        pipeline = door(secure_kafka.broker.address("SECURE"), client)
        if not creates:
            registry = pipeline.kafka.registry
            open_door = KafkaConfig(bootstrap=secure_kafka.broker.bootstrap, registry=registry)
            make_topics(open_door, pipeline)
        lines = [line for line in documented(who, creates=creates) if line != without]
        secure_kafka.allow(user, [as_acl(line, names(pipeline)) for line in lines])
        return pipeline

    return made


def publishes(pipeline: Pipeline) -> None:
    """Do all that a source's worker asks of Kafka."""
    ensure_internal(pipeline.kafka, pipeline.name)
    publisher = pipeline.publisher(on_undecodable="quarantine")
    try:
        publisher.acquire()
        publisher.add(item_batch(10, [1, 2, 3]))
        bad = Change(Op.CREATE, None, (b"4", UNREADABLE))
        rows = Rows(ITEMS, "changes", Origin(1, 10, 0), [bad], [3])
        publisher.add(Batch([rows], At(10), Stamp(1, 10)))
        publisher.commit()
    finally:
        publisher.close()
    stored = PositionsTopic(pipeline.kafka, pipeline.name).read(pipeline.source)
    assert stored.position == At(10).encode()
    unit = f"source/{pipeline.source}"
    beats(pipeline, unit)
    statuses = StatusReader(pipeline.kafka, pipeline.name)
    wait_until(statuses.read, "a heartbeat can be read back")
    statuses.close()
    hears(pipeline, unit)


def beats(pipeline: Pipeline, unit: str) -> None:
    status = StatusWriter(pipeline.kafka, pipeline.name, unit)
    status.close(Heartbeat(unit, "running"))
    if status.dropped:
        raise ConfigError(f"{pipeline.name}.status: the heartbeat was dropped")


def hears(pipeline: Pipeline, unit: str) -> None:
    """End a request in the control topic, and take those there are."""
    ControlWriter(pipeline.kafka, pipeline.name).write(f"{unit}/backfill/1", None)
    control = ControlReader(pipeline.kafka, pipeline.name, unit)
    control.open()
    control.poll()
    control.close()


def test_a_source_works_with_exactly_the_documented_acls(worker: Worker) -> None:
    publishes(worker("source"))


def test_a_source_makes_its_topics_with_exactly_the_documented_acls(worker: Worker) -> None:
    publishes(worker("source", creates=True))


@pytest.mark.parametrize("line", documented("source", creates=False), ids=" ".join)
def test_a_source_that_lacks_one_acl_names_what_it_lacks(
    worker: Worker, line: tuple[str, str, str]
) -> None:
    pipeline = worker("source", without=line)
    lacking = as_acl(line, names(pipeline)).name
    with pytest.raises(ConfigError) as caught:
        publishes(pipeline)
    assert lacking in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "line",
    [line for line in documented("source", creates=True) if line[2] == "Create"],
    ids=" ".join,
)
def test_a_source_that_may_not_make_a_topic_names_it(
    worker: Worker, line: tuple[str, str, str]
) -> None:
    pipeline = worker("source", without=line, creates=True)
    lacking = as_acl(line, names(pipeline)).name
    with pytest.raises(ConfigError, match=re.escape(f"creating topic {lacking}")):
        publishes(pipeline)
