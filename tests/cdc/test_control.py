"""The control topic on the real broker: what is asked on one machine is done on another."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cdc.control import ControlReader, ControlWriter
from cdc.errors import StateError
from cdc.kafka import KafkaConfig
from cdc.worker import Command

UNIT = "source/shopdb"


@pytest.fixture
def config(kafka: Any) -> KafkaConfig:
    return KafkaConfig(bootstrap=kafka.bootstrap, registry="http://unused")


@pytest.fixture
def pipeline() -> str:
    return f"control-{secrets.token_hex(4)}"


@pytest.fixture
def reader(config: KafkaConfig, pipeline: str) -> Iterator[Callable[[], ControlReader]]:
    made: list[ControlReader] = []

    def make() -> ControlReader:
        made.append(ControlReader(config, pipeline, UNIT))
        made[-1].open()
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def writer(config: KafkaConfig, pipeline: str) -> ControlWriter:
    return ControlWriter(config, pipeline)


def polled(reader: ControlReader, count: int = 1) -> list[Command]:
    out: list[Command] = []
    deadline = time.monotonic() + 15
    while len(out) < count and time.monotonic() < deadline:
        out += reader.poll()
        time.sleep(0.01)
    return out


def test_a_reader_without_a_topic_has_nothing_to_do(reader: Callable[[], ControlReader]) -> None:
    assert reader().poll() == []


def test_a_command_reaches_its_unit_and_no_other(
    reader: Callable[[], ControlReader], writer: ControlWriter
) -> None:
    writer.send("source/shopdb2", "pause")
    listening = reader()
    writer.send("sink/crm", "pause")
    writer.send(UNIT, "backfill", {"table": "public.orders", "where": "id > 7"})
    expected = Command("backfill", {"table": "public.orders", "where": "id > 7"})
    assert polled(listening) == [expected]
    assert listening.poll() == []


def test_a_pause_holds_across_restarts_until_resumed(
    reader: Callable[[], ControlReader], writer: ControlWriter
) -> None:
    writer.send(UNIT, "pause")
    assert reader().poll() == [Command("pause")]
    second = reader()
    assert second.poll() == [Command("pause")]
    writer.send(UNIT, "resume")
    assert polled(second) == [Command("resume")]
    assert reader().poll() == []


def test_a_restart_is_for_those_who_were_running(
    reader: Callable[[], ControlReader], writer: ControlWriter
) -> None:
    writer.send(UNIT, "pause")
    running = reader()
    running.poll()
    writer.send(UNIT, "restart")
    assert polled(running) == [Command("restart")]
    assert reader().poll() == [Command("pause")]
    writer.send(UNIT, "restart")
    assert polled(running) == [Command("restart")]


def test_a_backfill_is_delivered_again_until_it_is_acknowledged(
    reader: Callable[[], ControlReader], writer: ControlWriter
) -> None:
    writer.send(UNIT, "backfill", {"table": "public.orders"})
    backfill = Command("backfill", {"table": "public.orders"})
    first = reader()
    assert first.poll() == [backfill]
    first.rewind()
    assert first.poll() == [backfill]
    second = reader()
    assert second.poll() == [backfill]
    second.acknowledge()
    assert reader().poll() == []
    second.rewind()
    assert second.poll() == []


def test_a_command_of_a_newer_version_is_refused_by_name(
    reader: Callable[[], ControlReader], writer: ControlWriter
) -> None:
    writer.send(UNIT, "pause")
    writer.write(f"{UNIT}/pause", b'{"command": "pause", "version": 99}')
    with pytest.raises(StateError, match="newer version"):
        reader()
