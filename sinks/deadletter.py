"""Dead letters: records the target can never take, kept whole in `<pipeline>.dead`.

Value, key and headers are the original bytes; what we know is added as `cdc.*` headers, so that
a letter can be read, repaired and replayed (`sinks/letters.py` reads them back).

A letter is durable before the cursor passes its record, so it is never lost. A worker killed in
between meets the record again: before its first letter it reads which ones are open, and writes
none of those a second time.

`on_poison` says what else happens: `block_key` sends every later record of a letter's key behind
it, until all letters of that key are replayed or dropped, so that the order per key is kept;
`stop` writes nothing and stops the sink.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from confluent_kafka import Message, Producer

from cdc.brokers import TopicSettings, ensure_topics
from cdc.config import OnPoison
from cdc.connector import Context
from cdc.errors import CdcError, DataError, Stop
from cdc.failpoints import failpoint
from cdc.kafka import KafkaConfig, producer_client
from sinks.collapse import change_of
from sinks.decode import DELETE, POISON, UPSERT, Event
from sinks.letters import (
    Letter,
    LetterTopic,
    Mark,
    Record,
    concerns,
    read_letter,
    record_of,
    store,
)

__all__ = ["SETTINGS", "DeadLetters", "without"]

_log = structlog.get_logger(__name__)

SETTINGS = TopicSettings(1, {"cleanup.policy": "delete", "retention.ms": "-1"})
"""The one internal topic that is not compacted: every letter counts."""

_MOST = 50_000
"""Open letters a worker remembers, some 20 MB."""

_Owner = tuple[str, bytes | None]
"""Whose order counts: topic and key; a record without a key waits for none."""


class _Open:
    """The open letters of one sink, as its worker knows them: which records, and whose."""

    def __init__(self, sink: str) -> None:
        self._sink = sink
        self._owners: dict[Record, _Owner] = {}
        self._at: dict[int, Record] = {}
        self._counts: dict[_Owner, Counter[str]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def __contains__(self, record: Record) -> bool:
        return record in self._owners

    def blocks(self, owner: _Owner, part: str) -> bool:
        """Tell whether a letter of this key, and of this part of its records, is open."""
        return any(concerns(part, other) for other in self._counts.get(owner, ()))

    def take(self, message: Message) -> None:
        """Learn from one record of the topic."""
        found = read_letter(message)
        if found is None or found.owner != self._sink:
            return
        if isinstance(found, Mark):
            record = self._at.pop(found.letter, None)
            if record is not None:
                self._remove(record)
        elif isinstance(found, Letter):
            self.add(found.record, found.key)
            self._at[found.offset] = found.record

    def add(self, record: Record, key: bytes | None) -> None:
        """Remember a letter; the second time nothing changes."""
        if record not in self._owners:
            owner = (record.topic, key)
            self._owners[record] = owner
            self._counts.setdefault(owner, Counter())[record.part] += 1

    def forget(self, most: int) -> None:
        """Forget the oldest letters until `most` are left."""
        while len(self._owners) > most:
            self._remove(next(iter(self._owners)))
        if len(self._at) > 2 * most:
            self._at = {at: record for at, record in self._at.items() if record in self._owners}

    def _remove(self, record: Record) -> None:
        owner = self._owners.pop(record, None)
        if owner is None:
            return
        counts = self._counts[owner]
        counts[record.part] -= 1
        if not counts[record.part]:
            del counts[record.part]
        if not counts:
            del self._counts[owner]


class DeadLetters:
    """Writes the letters of one sink; connects at the first. For one thread at a time."""

    def __init__(
        self, kafka: KafkaConfig, context: Context, on_poison: OnPoison = "dead_letter"
    ) -> None:
        self._kafka = kafka
        self._context = context
        self._policy = on_poison
        self._letters = LetterTopic(kafka, context.pipeline)
        self._open = _Open(context.name)
        self._producer: Producer | None = None
        self.topic = self._letters.name

    def open(self) -> None:
        """Learn which keys are blocked, where that is asked for; again when partitions come.

        Raises as `write`.
        """
        if self._policy == "block_key":
            ensure_topics(self._kafka, {self.topic: SETTINGS})
            self._learn(self._letters.read())

    def sift(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return the events that may be applied; the others are letters when this returns."""
        if self._policy == "block_key":
            self._learn(self._letters.news())
        aside = self.aside(events, [event for event in events if event.kind == POISON])
        if not aside:
            return events
        self.write(aside)
        return without(events, aside)

    def aside(self, events: Sequence[Event], bad: Sequence[Event]) -> Sequence[Event]:
        """Return `bad` and, with `block_key`, those of `events` that must wait behind a letter.

        A key change is put aside as a whole: what follows its delete is its create. Those that
        wait get an error that says so.
        """
        if self._policy != "block_key" or not (bad or len(self._open)):
            return bad
        known, out = {id(event) for event in bad}, list[Event]()
        behind: defaultdict[_Owner, set[str]] = defaultdict(set)
        moving = None
        for event in events:
            owner, change = _owner(event.message), (change_of(event), event.part)
            if id(event) not in known:
                waits = owner[1] is not None and (
                    any(concerns(event.part, other) for other in behind.get(owner, ()))
                    or self._open.blocks(owner, event.part)
                )
                if not waits and not (event.kind == UPSERT and moving == change):
                    continue
                event.error = _behind()
            moving = change if event.kind == DELETE else None
            behind[owner].add(event.part)
            out.append(event)
        return out

    def write(self, events: Sequence[Event]) -> None:
        """Store `events` with their errors and wait until the broker has them.

        Raises as `cdc.kafka.kafka_error` maps, and `errors.Stop` where the policy is to stop or
        more is blocked than can be remembered; nothing may be applied then.
        """
        if self._policy == "stop":
            raise _stopped(events[0])
        producer = self._connected()
        fresh = [event for event in events if _record(event) not in self._open]
        self._refuse_too_many(len(fresh))
        failpoint("sink.before_letters")
        store(producer, self.topic, [_letter(event, self._facts(event)) for event in fresh])
        failpoint("sink.after_letters")
        for event in fresh:
            self._open.add(_record(event), _owner(event.message)[1])
        self._open.forget(_MOST)
        self._tell(events)

    def _tell(self, events: Sequence[Event]) -> None:
        """Say it in the log as well: a letter nobody hears of is a loss."""
        for first in events[:1]:
            _log.warning(
                "dead letters",
                topic=self.topic,
                records=len(events),
                first_topic=first.message.topic(),
                first_offset=first.message.offset(),
                first_reason=str(first.error),
            )

    def _connected(self) -> Producer:
        if self._producer is None:
            producer = producer_client(self._kafka)  # it asks for its id while we read
            if self._policy != "block_key":
                ensure_topics(self._kafka, {self.topic: SETTINGS})
                self._learn(self._letters.read())
                self._letters.close()
            self._producer = producer
        return self._producer

    def _learn(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._open.take(message)
            if self._policy != "block_key":
                # The newest are those a crash may repeat; who reads the topic sees through older.
                self._open.forget(_MOST)
        self._refuse_too_many(0)

    def _refuse_too_many(self, more: int) -> None:
        if self._policy == "block_key" and len(self._open) + more > _MOST:
            raise Stop(
                f"{len(self._open) + more} dead letters of sink {self._context.name} are open, "
                f"and `on_poison: block_key` remembers {_MOST}",
                hint=f"Look with `cdc dead list {self._context.name}`, then `cdc dead replay` or "
                "`drop` what is there.",
            )

    def _facts(self, event: Event) -> list[tuple[str, bytes]]:
        message, error = event.message, event.error or CdcError("refused")
        facts: dict[str, Any] = {
            "pipeline": self._context.pipeline,
            "sink": self._context.name,
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp": message.timestamp()[1],
            "table": event.schema.table if event.schema else "",
            "error": type(error).__name__,
            "reason": error,
            "hint": error.hint,
            "at": time.time_ns() // 1_000_000,
            **({"part": event.part} if event.part else {}),
        }
        return [(f"cdc.{name}", str(value).encode()) for name, value in facts.items()]

    def close(self) -> None:
        """Let go of the producer."""
        self._letters.close()
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(0)
            self._producer = None


def without(events: Sequence[Event], aside: Iterable[Event]) -> list[Event]:
    """Return `events` but for those that were put aside."""
    gone = {id(event) for event in aside}
    return [event for event in events if id(event) not in gone]


def _letter(event: Event, facts: list[tuple[str, bytes]]) -> tuple[Any, Any, list[Any]]:
    message = event.message
    return message.value(), message.key(), [*(message.headers() or []), *facts]


def _record(event: Event) -> Record:
    return record_of(event.message, event.part)


def _owner(message: Message) -> _Owner:
    return (message.topic() or "", message.key())


def _behind() -> DataError:
    return DataError(
        "it waits behind a dead letter of its key (`on_poison: block_key`)",
        hint="`cdc dead replay` applies the letters of a key in order; `cdc dead drop` gives up.",
    )


def _stopped(event: Event) -> Stop:
    message, error = event.message, event.error or CdcError("refused")
    return Stop(
        f"{message.topic()}[{message.partition()}] at offset {message.offset()} cannot be applied: "
        f"{error}",
        hint=f"{error.hint} Nothing of its cut was applied. Repair the target and restart the "
        "sink, or set `on_poison: dead_letter` to put such records aside.".lstrip(),
    )
