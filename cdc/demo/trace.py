"""One change at a time, followed through every stage and timed by somebody outside the workers.

The tracer changes a customer of its own, then watches for that very change: as a committed record
in the topic, and as a row a reader of the target can see. Times are milliseconds after the
source's COMMIT returned.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import msgspec
from confluent_kafka import Consumer, TopicPartition

from cdc.demo.engines import Session
from cdc.demo.stage import Stage
from cdc.kafka import KafkaConfig, arrived, consumer_client

__all__ = ["Trace", "Tracer", "percentile"]

_EMAIL = "tracer@example.com"
_KEPT = 400
_PAUSE_S = 0.1
_GIVE_UP_S = 10.0


class Trace(msgspec.Struct, frozen=True):
    """One followed change: its text, and when it was seen where, ms after COMMIT."""

    text: str
    in_topic_ms: float
    in_target_ms: float


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of `values` lie; 0 for none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


class Tracer(threading.Thread):
    """Runs until `end`; `traces` holds the newest measurements."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(name="tracer", daemon=True)
        self._stage = stage
        self._over = threading.Event()
        self.traces: deque[Trace] = deque(maxlen=_KEPT)
        self.changes = 0
        self.failure: Exception | None = None

    def end(self) -> None:
        """Ask the thread to finish and wait for it."""
        self._over.set()
        self.join(_GIVE_UP_S + 5)

    def run(self) -> None:
        """Change, watch, note, rest."""
        stage = self._stage
        places = {"bootstrap": stage.urls.kafka, "registry": stage.urls.registry}
        consumer = consumer_client(
            KafkaConfig.model_validate(places), group_id="tailrace-demo-tracer"
        )
        try:
            with (
                stage.pair.source.session(stage.urls.source, autocommit=True) as source,
                stage.pair.target.session(stage.urls.mirror, autocommit=True) as target,
            ):
                self._follow_all(source, target, consumer)
        except Exception as error:  # noqa: BLE001 - shown by the view, which owns the screen
            self.failure = error
        finally:
            consumer.close()

    def _follow_all(
        self,
        source: Session,
        target: Session,
        consumer: Consumer,
    ) -> None:
        source.execute(
            "insert into customers (full_name, email, address) values ('trace 0', %s, '{}')",
            (_EMAIL,),
        )
        self.changes += 1
        if not self._seen_in_target(target, "trace 0", 60.0):
            return
        place = TopicPartition(f"shopdb.{self._stage.pair.source.schema}.customers", 0)
        place.offset = consumer.get_watermark_offsets(place, timeout=10.0, cached=False)[1]
        consumer.assign([place])
        number = 0
        while not self._over.wait(_PAUSE_S):
            number += 1
            self._follow(source, target, consumer, f"trace {number}")

    def _follow(
        self,
        source: Session,
        target: Session,
        consumer: Consumer,
        text: str,
    ) -> None:
        source.execute("update customers set full_name = %s where email = %s", (text, _EMAIL))
        committed = time.monotonic()
        self.changes += 1
        if not self._seen_in_topic(consumer, text.encode()):
            return
        in_topic = (time.monotonic() - committed) * 1000
        if self._seen_in_target(target, text, _GIVE_UP_S):
            in_target = (time.monotonic() - committed) * 1000
            self.traces.append(Trace(text, in_topic, in_target))

    def _seen_in_topic(self, consumer: Consumer, token: bytes) -> bool:
        deadline = time.monotonic() + _GIVE_UP_S
        while time.monotonic() < deadline and not self._over.is_set():
            for message in arrived(consumer, 500, 0.05):
                if message.error() is None and token in (message.value() or b""):
                    return True
        return False

    def _seen_in_target(self, target: Session, text: str, deadline_s: float) -> bool:
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline and not self._over.is_set():
            if target.finds("customers", "full_name = %s", text):
                return True
            time.sleep(0.001)
        return False
