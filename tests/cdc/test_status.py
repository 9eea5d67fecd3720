"""Heartbeats on the real broker: anyone can see how every worker stands."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cdc.compacted import ensure_internal
from cdc.kafka import KafkaConfig
from cdc.metrics import Metrics
from cdc.report import Report
from cdc.status import Heartbeat, StatusReader, StatusWriter


@pytest.fixture
def config(kafka: Any) -> KafkaConfig:
    return KafkaConfig(bootstrap=kafka.bootstrap, registry="http://unused")


@pytest.fixture
def pipeline(config: KafkaConfig) -> str:
    name = f"status-{secrets.token_hex(4)}"
    ensure_internal(config, name)
    return name


@pytest.fixture
def reader(config: KafkaConfig, pipeline: str) -> Iterator[StatusReader]:
    made = StatusReader(config, pipeline)
    yield made
    made.close()


def seen(reader: StatusReader, condition: Callable[[dict[str, Heartbeat]], bool]) -> Any:
    deadline = time.monotonic() + 15
    while not condition(found := reader.read()):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def test_the_latest_heartbeat_of_each_worker_is_seen(
    config: KafkaConfig, pipeline: str, reader: StatusReader
) -> None:
    source = StatusWriter(config, pipeline, "source/shopdb")
    second = StatusWriter(config, pipeline, "sink/crm", "2")
    source.beat(Heartbeat("", "starting"))
    source.beat(Heartbeat("", "streaming", rows=7, snapshots={"public.orders": (3, 10)}))
    second.close(Heartbeat("", "stopped"))
    found = seen(reader, lambda all_: len(all_) == 2)
    assert found["source/shopdb"].rows == 7
    assert found["source/shopdb"].snapshots == {"public.orders": (3, 10)}
    assert found["source/shopdb"].is_live()
    assert not found["sink/crm/2"].is_live()
    source.close(Heartbeat("", "stopped"))
    seen(reader, lambda all_: all_["source/shopdb"].state == "stopped")


def test_an_owner_is_live_only_while_its_heart_beats(
    config: KafkaConfig, pipeline: str, reader: StatusReader
) -> None:
    writer = StatusWriter(config, pipeline, "source/shopdb")
    assert reader.live_owner("source/shopdb") is None
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.2):
            writer.beat(Heartbeat("", "streaming"))

    heart = threading.Thread(target=beat)
    heart.start()
    seen(reader, bool)
    owner = reader.live_owner("source/shopdb")
    ended.set()
    heart.join()
    assert owner is not None
    assert owner.state == "streaming"
    assert reader.live_owner("source/shopdb", 1.0) is None


def test_a_worker_reports_its_totals_its_rate_and_its_error(
    config: KafkaConfig, pipeline: str, reader: StatusReader
) -> None:
    from cdc.errors import KafkaUnavailable

    report = Report(Metrics(pipeline, "source/a"), StatusWriter(config, pipeline, "source/a"))
    report.committed(100, 2000, 0.01)
    report.stand("streaming", facts={"lag_bytes": 5})
    assert report.health.ready
    report.stand("retrying", KafkaUnavailable("broker away", hint="start it"))
    assert (report.health.ready, report.health.reason) == (False, "retrying: broker away")
    report.end("stopped")
    last = seen(reader, lambda all_: all_ and all_["source/a"].state == "stopped")["source/a"]
    assert (last.rows, last.bytes, last.retries) == (100, 2000, 1)
    assert last.rows_per_second > 0


def test_a_broker_that_is_away_holds_no_worker_up() -> None:
    config = KafkaConfig(bootstrap="127.0.0.1:1", registry="http://unused")
    writer = StatusWriter(config, "nowhere", "source/a")
    started = time.monotonic()
    for _ in range(200):
        writer.beat(Heartbeat("", "streaming"))
    assert time.monotonic() - started < 2
    assert writer.dropped > 0
    writer.close(Heartbeat("", "stopped"))
    assert time.monotonic() - started < 5


def test_a_heartbeat_of_another_version_is_shown_as_unreadable(
    config: KafkaConfig, pipeline: str, reader: StatusReader
) -> None:
    from cdc.kafka import producer_client

    producer = producer_client(config)
    producer.produce(f"{pipeline}.status", b"[1]", "source/odd")
    producer.flush(10)
    assert seen(reader, bool)["source/odd"].state == "unreadable"
