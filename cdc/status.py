"""How every worker stands, through the compacted topic `<pipeline>.status`.

Each worker writes a heartbeat about once a second under its unit ("source/shopdb"; the workers of
one sink append theirs: "sink/crm/2"), so `cdc status` needs nothing but Kafka. Best effort: a
heartbeat that cannot be written is dropped and counted, it never holds a worker up.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc.compacted import CompactedTopic, Entry
from cdc.kafka import KafkaConfig, producer_client

__all__ = ["BEAT_S", "ENDED", "VERSION", "Heartbeat", "StatusReader", "StatusWriter"]

VERSION = 1
BEAT_S = 1.0
_FRESH_S = 5 * BEAT_S
ENDED = frozenset({"stopped", "failed"})
"""States in which a worker has said that it no longer works."""


class Heartbeat(msgspec.Struct, omit_defaults=True):
    """What a worker says of itself. Times are ms since 1970; rates are per second.

    `worker` is another one with each process. `waiting` names what is waited for (R10).
    `snapshots` maps a table to (rows done, rows estimated). `endpoint` is where its metrics are.
    """

    unit: str
    state: str
    worker: str = ""
    host: str = ""
    pid: int = 0
    version: int = VERSION
    ts_ms: int = 0
    started_ms: int = 0
    position: dict[str, Any] | None = None
    rows: int = 0
    bytes: int = 0
    rows_per_second: float = 0.0
    lag_bytes: int | None = None
    lag_rows: int | None = None
    lag_seconds: float | None = None
    retained_bytes: int | None = None
    dead_letters: int = 0
    retries: int = 0
    waiting: str = ""
    error: str = ""
    hint: str = ""
    snapshots: dict[str, tuple[int, int]] = {}
    endpoint: str = ""

    def age_s(self, now_ms: int | None = None) -> float:
        """Return the seconds since it was written."""
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        return max(0, now - self.ts_ms) / 1000

    def is_live(self, now_ms: int | None = None) -> bool:
        """Tell whether its worker is alive, as far as clocks agree."""
        return self.state not in ENDED and self.age_s(now_ms) < _FRESH_S


class StatusWriter:
    """Writes the heartbeats of one worker. Never raises for a broker that is away."""

    def __init__(self, kafka: KafkaConfig, pipeline: str, unit: str, worker: str = "") -> None:
        self._kafka = kafka
        self.topic = f"{pipeline}.status"
        self.unit = unit
        self._key = f"{unit}/{worker}" if worker else unit
        self._producer: Producer | None = None
        self.worker = secrets.token_hex(4)
        self._started_ms = time.time_ns() // 1_000_000
        self.dropped = 0

    def beat(self, heartbeat: Heartbeat) -> None:
        """Write `heartbeat`, completed by who and when; returns at once."""
        heartbeat.unit, heartbeat.worker = self.unit, self.worker
        heartbeat.host, heartbeat.pid = socket.gethostname(), os.getpid()
        heartbeat.ts_ms = time.time_ns() // 1_000_000
        heartbeat.started_ms = self._started_ms
        if self._producer is None:
            self._producer = producer_client(
                self._kafka,
                acks="1",
                enable_idempotence=False,  # the next one says it all again
                message_timeout_ms=5000,
                queue_buffering_max_messages=100,
            )
        try:
            payload = msgspec.json.encode(heartbeat)
            self._producer.produce(self.topic, payload, self._key, on_delivery=self._delivered)
        except (BufferError, KafkaException):
            self.dropped += 1
        self._producer.poll(0)

    def close(self, heartbeat: Heartbeat) -> None:
        """Write the last heartbeat and wait for it, 2 s at most."""
        self.beat(heartbeat)
        if self._producer is not None:
            self._producer.flush(2.0)
            self._producer = None

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self.dropped += 1


class StatusReader:
    """The latest heartbeat of every worker of a pipeline, by key, from any machine."""

    def __init__(self, kafka: KafkaConfig, pipeline: str, without: str = "") -> None:
        """`without` names a worker not to be seen: the one who asks."""
        self._topic = CompactedTopic(kafka, f"{pipeline}.status")
        self._without = without
        self._known: dict[str, Heartbeat] = {}
        self._caught_up = False

    def read(self) -> dict[str, Heartbeat]:
        """Return the present heartbeats. Raises as `cdc.kafka.kafka_error` maps.

        A heartbeat of a newer version is shown as state "unreadable", not refused: nothing is
        decided by it.
        """
        entries = self._topic.poll() if self._caught_up else self._topic.catch_up()
        self._caught_up = self._caught_up or bool(entries)
        for entry in entries:
            self._take(entry)
        return dict(sorted(self._known.items()))

    def live_owner(self, unit: str, patience_s: float = 2.5 * BEAT_S) -> Heartbeat | None:
        """Return the heartbeat of the worker that owns `unit`, None when there is none.

        Clocks of machines differ, so a heartbeat that does not look ended is watched for
        `patience_s`: only one that is followed by another is alive.
        """
        found = self.read().get(unit)
        if found is None or found.state in ENDED:
            return None
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            for entry in self._topic.poll(0.1):
                self._take(entry)
            newer = self._known.get(unit)
            if newer is not None and newer.ts_ms != found.ts_ms:
                return None if newer.state in ENDED else newer
        return None

    def close(self) -> None:
        """Let go of the connection."""
        self._topic.close()

    def _take(self, entry: Entry) -> None:
        if entry.value is None:
            self._known.pop(entry.key, None)
            return
        try:
            heartbeat = msgspec.json.decode(entry.value, type=Heartbeat)
        except msgspec.MsgspecError as error:
            heartbeat = Heartbeat(entry.key, "unreadable", error=str(error), ts_ms=entry.time_ms)
        if not self._without or heartbeat.worker != self._without:
            self._known[entry.key] = heartbeat
