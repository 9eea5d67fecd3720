"""With exactly the ACLs of docker/acls.md a sink keeps its cursors in Kafka; else it names one."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from cdc.brokers import COMPACTED, TopicSettings, ensure_topics
from cdc.connector import Context
from cdc.errors import ConfigError
from cdc.kafka import KafkaConfig
from fix_pipeline import Pipeline
from fix_tls import Door, SecureKafka, as_acl, documented
from sinks.kafka.cursors import CursorTopic
from sinks.target import Cursor, Span, TopicPartition

Line = tuple[str, str, str]
PLACE = TopicPartition("shopdb.public.items", "one", 0)


@pytest.fixture
def keeper(secure_kafka: SecureKafka, door: Door) -> Callable[..., Pipeline]:
    """Make the pipeline of a sink that may do what the page says, but for one line."""

    def made(without: Line | None = None, *, creates: bool = False) -> Pipeline:
        user = f"user-{secrets.token_hex(4)}"
        client = secure_kafka.login(user, secure_kafka.add_user(user))
        pipeline = door(secure_kafka.broker.address("SECURE"), client)
        names = {"pipeline": pipeline.name, "source": pipeline.source, "sink": "crm"}
        if not creates:
            registry = pipeline.kafka.registry
            plain = KafkaConfig(bootstrap=secure_kafka.broker.bootstrap, registry=registry)
            ensure_topics(plain, {f"{pipeline.name}.cursors": TopicSettings(1, COMPACTED)})
        lines = [*documented("sink", creates=creates), *documented("keeper", creates=creates)]
        secure_kafka.allow(user, [as_acl(line, names) for line in lines if line != without])
        return pipeline

    return made


def keeps(pipeline: Pipeline) -> None:
    """Move a cursor, and read it back as another worker would."""
    for start, end in ((None, Cursor(3)), (Cursor(3), Cursor(5))):
        topic = CursorTopic(pipeline.kafka, Context(pipeline.name, "crm", pipeline.kafka))
        try:
            topic.open()
            assert topic.read([PLACE]) == {PLACE: start}
            topic.advance([Span(PLACE, start, end)])
        finally:
            topic.close()


@pytest.mark.parametrize("creates", [False, True])
def test_a_sink_keeps_its_cursors_with_exactly_the_documented_acls(
    keeper: Callable[..., Pipeline], *, creates: bool
) -> None:
    keeps(keeper(creates=creates))


@pytest.mark.parametrize("line", documented("keeper", creates=False), ids=" ".join)
def test_a_sink_that_lacks_one_acl_for_its_cursors_names_it(
    keeper: Callable[..., Pipeline], line: Line
) -> None:
    pipeline = keeper(without=line)
    names = {"pipeline": pipeline.name, "sink": "crm"}
    with pytest.raises(ConfigError) as caught:
        keeps(pipeline)
    assert as_acl(line, names).name in f"{caught.value} {caught.value.hint}"
