"""Requests to the workers of a pipeline, through the compacted topic `<pipeline>.control`.

Every command works from any machine: it is a record, kept until it is carried out.

    key                          value                            gone when
    source/shopdb/pause          {"command": "pause" | "resume"}  never: the last one holds
    source/shopdb/restart        {"command": "restart"}           never: later ones count
    source/shopdb/backfill/<id>  {"command": "backfill", …}       acknowledged

A paused unit stays paused across restarts. A one-time command is delivered again after a crash
until its effect is durable (`acknowledge`): repeating a backfill changes nothing.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaException

from cdc.compacted import CompactedTopic, Entry, ensure_internal
from cdc.errors import CdcError, KafkaUnavailable, StateError
from cdc.kafka import DEADLINE_S, KafkaConfig, kafka_error, producer_client
from cdc.worker import Command

__all__ = ["VERSION", "ControlReader", "ControlWriter", "Request"]

VERSION = 1
_STATES = ("pause", "resume")
_log = structlog.get_logger(__name__)


class Request(msgspec.Struct, frozen=True):
    """The value of a control record; `ts_ms` is ms since 1970, `by` who asked for it."""

    command: str
    arguments: dict[str, Any] = {}
    id: str = ""
    ts_ms: int = 0
    by: str = ""
    version: int = VERSION


def _key(unit: str, request: Request) -> str:
    if request.command in _STATES:
        return f"{unit}/pause"
    if request.command == "restart":
        return f"{unit}/restart"
    return f"{unit}/{request.command}/{request.id}"


def _decode(entry: Entry, topic: str) -> Request:
    try:
        request = msgspec.json.decode(entry.value or b"", type=Request)
    except msgspec.MsgspecError as error:
        raise StateError(
            f"{topic} offset {entry.offset} is not a command: {error}",
            hint=f"Write a tombstone for the key {entry.key}.",
        ) from error
    if request.version > VERSION:
        raise StateError(
            f"{topic} offset {entry.offset} was written by a newer version",
            hint="Upgrade this worker; it must not guess what was asked.",
        )
    return request


class ControlWriter:
    """Sends commands."""

    def __init__(self, kafka: KafkaConfig, pipeline: str) -> None:
        self._kafka = kafka
        self._pipeline = pipeline

    def send(self, unit: str, command: str, arguments: dict[str, Any] | None = None) -> str:
        """Store a command for `unit` ("source/shopdb") and return its id.

        Returns when the broker has it. Raises `errors.CdcError` as `kafka_error` maps it.
        """
        identity = secrets.token_hex(4)
        by = f"{os.environ.get('USER', 'unknown')}@{socket.gethostname()}"
        now = time.time_ns() // 1_000_000
        request = Request(command, arguments or {}, identity, now, by)
        ensure_internal(self._kafka, self._pipeline)
        self.write(_key(unit, request), msgspec.json.encode(request))
        return identity

    def write(self, key: str, value: bytes | None) -> None:
        """Store one record and wait for the broker. Raises as `kafka_error` maps."""
        # One record has no order, and without idempotence a right that lacks is the topic's.
        producer = producer_client(
            self._kafka, acks="all", enable_idempotence=False, message_timeout_ms=10_000
        )
        topic = f"{self._pipeline}.control"
        failed: list[Any] = []
        try:
            producer.produce(topic, value, key, on_delivery=lambda error, _: failed.append(error))
            producer.flush(DEADLINE_S)
        except KafkaException as error:
            raise kafka_error(error, f"writing to {topic}") from error
        if not failed:
            raise KafkaUnavailable(f"writing to {topic}: no answer")
        if failed[0] is not None:
            raise kafka_error(failed[0], f"writing to {topic}")


class ControlReader:
    """What was asked of one unit. Single-threaded; `poll` never waits and never raises for Kafka.

    A broker that is away is the worker's own trouble anyway: it meets it at its next commit.
    """

    def __init__(self, kafka: KafkaConfig, pipeline: str, unit: str) -> None:
        self._topic = CompactedTopic(kafka, f"{pipeline}.control")
        self._writer = ControlWriter(kafka, pipeline)
        self._unit = unit
        self._started_at: int | None = None
        self._pending: dict[str, Command] = {}
        self._given: set[str] = set()

    def open(self) -> None:
        """Read what is there, so that the first `poll` already knows of a pause.

        Raises `errors.KafkaUnavailable`, `errors.StateError`.
        """
        entries = self._topic.catch_up()
        self._started_at = entries[-1].offset if entries else -1
        for entry in entries:
            self._take(entry)

    def poll(self) -> list[Command]:
        """Return what came since the last call, each once."""
        if self._started_at is None:
            self.open()
        try:
            for entry in self._topic.poll():
                self._take(entry)
        except KafkaUnavailable as error:
            _log.debug("control topic is away", reason=str(error))
        fresh = [key for key in self._pending if key not in self._given]
        self._given.update(fresh)
        return [self._pending[key] for key in fresh]

    def rewind(self) -> None:
        """Deliver again what was delivered but not acknowledged: the session that had it died."""
        self._given = {key for key in self._given if self._is_state(key)}

    def acknowledge(self) -> None:
        """The effect of every delivered one-time command is durable; forget these commands."""
        for key in [key for key in self._pending if key in self._given]:
            if self._is_state(key):
                continue
            try:
                self._writer.write(key, None)
            except CdcError as error:
                _log.warning("a command could not be acknowledged", key=key, reason=str(error))
                return
            self._pending.pop(key, None)
            self._given.discard(key)

    def close(self) -> None:
        """Let go of the connection."""
        self._topic.close()

    def _is_state(self, key: str) -> bool:
        return key.endswith(("/pause", "/restart"))

    def _take(self, entry: Entry) -> None:
        if not entry.key.startswith(f"{self._unit}/"):
            return
        self._given.discard(entry.key)
        if entry.value is None:
            self._pending.pop(entry.key, None)
            return
        request = _decode(entry, self._topic.name)
        is_old = self._started_at is not None and entry.offset <= self._started_at
        if request.command in {"restart", "resume"} and is_old:
            self._pending.pop(entry.key, None)
            return
        self._pending[entry.key] = Command(request.command, request.arguments)
