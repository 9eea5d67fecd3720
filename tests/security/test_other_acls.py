"""With exactly the ACLs of docker/acls.md a supervisor places workers, an operator rules them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cdc.brokers import COMPACTED, TopicSettings, ensure_topics
from cdc.control import ControlReader, ControlWriter
from cdc.errors import ConfigError
from cdc.placement import Placement
from cdc.positions import PositionsTopic
from cdc.status import Heartbeat, StatusReader, StatusWriter
from fix_pipeline import Pipeline, wait_until
from fix_tls import Door, SecureKafka, as_acl, documented

Line = tuple[str, str, str]
Allowed = Callable[..., Pipeline]


@pytest.fixture
def allowed(secure_kafka: SecureKafka, door: Door, registry: Any) -> Iterator[Allowed]:
    """Make a pipeline with its internal topics, for a user of whom the page says `who`."""
    opened = Pipeline(secure_kafka.broker.bootstrap, registry.url)

    def make(who: str, without: Line | None = None) -> Pipeline:
        internal = [f"{opened.name}.{name}" for name in ("positions", "control", "status")]
        ensure_topics(opened.kafka, {name: TopicSettings(1, COMPACTED) for name in internal})
        StatusWriter(opened.kafka, opened.name, "sink/crm").close(Heartbeat("", "running"))
        client = secure_kafka.login(opened.name, secure_kafka.add_user(opened.name))
        names = {"pipeline": opened.name, "source": opened.source}
        lines = [line for line in documented(who, creates=False) if line != without]
        secure_kafka.allow(opened.name, [as_acl(line, names) for line in lines])
        guarded = door(secure_kafka.broker.address("SECURE"), client)
        guarded.name, guarded.source, guarded.context = opened.name, opened.source, opened.context
        return guarded

    yield make
    opened.registry.close()


def places(pipeline: Pipeline) -> None:
    """Join the group of supervisors until every worker has its place here."""
    placement = Placement(pipeline.kafka, pipeline.name, lambda _gone: None)
    placement.join()

    def placed() -> list[str] | None:
        placement.poll(0.1)
        return placement.seats(["sink/crm"])

    try:
        wait_until(placed, "a place")
    finally:
        placement.leave()


def rules(pipeline: Pipeline) -> None:
    """Look at the workers, ask one to pause, look where a source stands."""
    status = StatusReader(pipeline.kafka, pipeline.name)
    assert set(status.read()) == {"sink/crm"}
    status.close()
    ControlWriter(pipeline.kafka, pipeline.name).send("sink/crm", "pause")
    control = ControlReader(pipeline.kafka, pipeline.name, "sink/crm")
    control.open()
    assert [command.name for command in control.poll()] == ["pause"]
    control.close()
    assert PositionsTopic(pipeline.kafka, pipeline.name).read(pipeline.source).position is None


ROLES = {"supervisor": places, "operator": rules}


@pytest.mark.parametrize("who", ROLES)
def test_the_documented_acls_are_enough(allowed: Allowed, who: str) -> None:
    ROLES[who](allowed(who))


@pytest.mark.parametrize("line", documented("supervisor", creates=False), ids=" ".join)
def test_a_supervisor_that_lacks_one_acl_names_what_it_lacks(allowed: Allowed, line: Line) -> None:
    with pytest.raises(ConfigError, match="AUTHORIZATION_FAILED") as caught:
        places(allowed("supervisor", without=line))
    assert line[1].rpartition(".")[2] in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("line", documented("operator", creates=False), ids=" ".join)
def test_an_operator_who_lacks_one_acl_is_told(allowed: Allowed, line: Line) -> None:
    pipeline = allowed("operator", without=line)
    with pytest.raises(ConfigError, match="AUTHORIZATION_FAILED"):
        rules(pipeline)
