"""Dead letters and quarantined rows read back: all there are, and what became of each.

    offset  0 letter   1 letter   2 mark: letter 0 was replayed   3 letter …

A letter is the original record with our facts as `cdc.*` headers; a mark has neither key nor value,
and headers that name a letter and its outcome. Nothing is ever taken out of the topic, so its order
tells everything: a letter is open until a mark behind it names it. A record that is written again
while its letter is open (a worker killed between letter and cursor) is that same letter: who reads
sees each record once. Once resolved, a record that is refused again is a new letter.

A source's quarantine (`cdc/quarantine.py`) has the same form; what is there was never a record, so
each of its letters is one of its own, and has its place in the source's log instead.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from sys import intern
from typing import Any, Literal, NamedTuple

import msgspec
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from cdc.brokers import high_watermark, topic_ids
from cdc.errors import KafkaUnavailable
from cdc.kafka import (
    DEADLINE_S,
    KafkaConfig,
    arrived,
    assign,
    consumer_client,
    producer_client,
)
from cdc.kafka import kafka_error as named
from schemas.change import Stamp

__all__ = [
    "DROPPED",
    "REPLAYED",
    "Headers",
    "Ledger",
    "Letter",
    "LetterTopic",
    "Mark",
    "Outcome",
    "Record",
    "concerns",
    "original",
    "read_letter",
    "record_of",
    "store",
]

Outcome = Literal["replayed", "dropped"]
REPLAYED: Outcome = "replayed"
DROPPED: Outcome = "dropped"
Headers = Sequence[tuple[str, bytes | str | None]]

_OURS = "cdc."
_SAID = ("table", "error", "reason", "hint")
_BATCH = 1000
_WAIT_MS = 50
"""How long the broker waits for a record where there is none: a worker waits for the answer."""
_TOPICS = {"sink": "dead", "source": "quarantine"}


class Record(NamedTuple):
    """Which record a letter is of; `timestamp` tells a topic made anew from the one before.

    `part` is the table it is of, where the record goes to several; empty: all of it.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    part: str = ""


class Letter(msgspec.Struct, frozen=True):
    """What is known of a letter without its payload; `offset` is its own, `key` the record's.

    `owner` is the sink, or the source, that wrote it. `stamp` is the place in the source's log of
    a row in quarantine. `at_ms` is when it was written, ms since 1970.
    """

    offset: int
    owner: str
    record: Record
    key: bytes | None
    table: str = ""
    error: str = ""
    reason: str = ""
    hint: str = ""
    at_ms: int = 0
    stamp: Stamp | None = None


class Mark(msgspec.Struct, frozen=True):
    """What became of the letter at `letter`: the first mark counts."""

    owner: str
    letter: int
    outcome: str


def record_of(message: Message, part: str = "") -> Record:
    """Return which record `message` is, or which part of it."""
    place = (intern(message.topic() or ""), message.partition() or 0, message.offset() or 0)
    return Record(*place, message.timestamp()[1], intern(part))


def concerns(part: str, other: str) -> bool:
    """Tell whether what is said of one part of a record is of another one: the same, or of all."""
    return part == other or not part or not other


def read_letter(message: Message) -> Letter | Mark | None:
    """Return what a record of the topic says; None when it is none of ours."""
    headers: Any = message.headers() or ()
    facts = {name: _text(value) for name, value in headers if name.startswith(_OURS)}
    try:
        owner = intern(facts.get("cdc.sink") or facts["cdc.source"])
        if "cdc.letter" in facts:
            return Mark(owner, int(facts["cdc.letter"]), facts["cdc.outcome"])
        said = {name: intern(facts.get(f"cdc.{name}", "")) for name in _SAID}
        stamp = _stamp(facts)
        return Letter(
            offset=message.offset() or 0,
            owner=owner,
            record=_record(facts) if stamp is None else _unsent(facts, message),
            key=message.key(),
            at_ms=int(facts.get("cdc.at", 0)),
            stamp=stamp,
            **said,
        )
    except (KeyError, ValueError):
        return None


def _record(facts: dict[str, str]) -> Record:
    number, offset, timestamp = (
        int(facts[f"cdc.{n}"]) for n in ("partition", "offset", "timestamp")
    )
    part = intern(facts.get("cdc.part", ""))
    return Record(intern(facts["cdc.topic"]), number, offset, timestamp, part)


def _unsent(facts: dict[str, str], message: Message) -> Record:
    """Return what stands for the record that a row in quarantine never became: itself."""
    return Record(intern(facts["cdc.topic"]), -1, message.offset() or 0, message.timestamp()[1])


def _stamp(facts: dict[str, str]) -> Stamp | None:
    if "cdc.ordinal" not in facts:
        return None
    return Stamp(*(int(facts[f"cdc.{name}"]) for name in ("incarnation", "commit", "ordinal")))


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def original(letter: Message, record: Record) -> Message:
    """Return the record as it was when the sink read it: bytes, key, headers and place."""
    given: Any = letter.headers() or ()
    headers = [(name, value) for name, value in given if not name.startswith(_OURS)]
    return Message(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=letter.key(),
        value=letter.value(),
        headers=headers or None,
        timestamp=(1, record.timestamp),
    )


class Ledger:
    """What became of the letters of one sink or source; fed with the topic's records in order.

    `letters` are all of them by offset, `outcomes` those that are no longer open.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._open: dict[Record, int] = {}
        self.letters: dict[int, Letter] = {}
        self.outcomes: dict[int, str] = {}

    def take(self, message: Message) -> None:
        """Learn from one record of the topic."""
        found = read_letter(message)
        if found is None or found.owner != self.owner:
            return
        if isinstance(found, Letter):
            if found.record not in self._open:
                self._open[found.record] = found.offset
                self.letters[found.offset] = found
        elif found.letter in self.letters and found.letter not in self.outcomes:
            self.outcomes[found.letter] = found.outcome
            del self._open[self.letters[found.letter].record]

    def open(self) -> list[Letter]:
        """Return the letters nothing has become of yet, in order."""
        return [letter for offset, letter in self.letters.items() if offset not in self.outcomes]


class LetterTopic:
    """`<pipeline>.dead`, the letters of sinks, or `<pipeline>.quarantine`, those of sources.

    Of one partition. Single-threaded; does no I/O before a method is called. Every method raises
    as `cdc.kafka.kafka_error` maps.
    """

    def __init__(
        self, kafka: KafkaConfig, pipeline: str, kind: Literal["sink", "source"] = "sink"
    ) -> None:
        self._kafka = kafka
        self.kind = kind
        self.name = f"{pipeline}.{_TOPICS[kind]}"
        self._consumer: Consumer | None = None

    def identity(self) -> str:
        """Return the broker's id of the topic; empty when there is none."""
        return topic_ids(self._kafka, [self.name]).get(self.name, ("", 0))[0]

    def read(self, first: int = OFFSET_BEGINNING) -> Iterator[Message]:
        """Yield what the topic holds from `first` to where it ends when asked."""
        if not self.identity():
            return
        # From -1: an empty topic is asked too, so that a right that lacks is named at once.
        end, reached = high_watermark(self._kafka, self.name, 0), -1
        if self._consumer is None:
            self._consumer = consumer_client(self._kafka, fetch_wait_max_ms=_WAIT_MS)
        try:
            assign(self._consumer, [TopicPartition(self.name, 0, first)])
        except KafkaException as error:
            raise named(error, f"reading {self.name}") from error
        deadline = time.monotonic() + DEADLINE_S
        while reached < end:
            if time.monotonic() > deadline:
                raise KafkaUnavailable(f"{self.name}: read to offset {reached} of {end} only")
            for message in self._some(0.2):
                reached = (message.offset() or 0) + (message.error() is None)
                if message.error() is None:
                    deadline = time.monotonic() + DEADLINE_S
                    yield message

    def news(self) -> Iterator[Message]:
        """Yield, without waiting, what has come since the topic was read."""
        while found := self._some(0):
            yield from (message for message in found if message.error() is None)

    def _some(self, timeout: float) -> list[Message]:
        if self._consumer is None:
            return []
        try:
            found = arrived(self._consumer, _BATCH, timeout)
        except KafkaException as error:
            raise named(error, f"reading {self.name}") from error
        for message in found:
            failed = message.error()
            if failed is not None and failed.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
                raise named(failed, f"reading {self.name}")
        return found

    def ledger(self, owner: str) -> Ledger:
        """Return what became of every letter of one sink or source so far."""
        ledger = Ledger(owner)
        for message in self.read():
            ledger.take(message)
        return ledger

    def messages(self, letters: Iterable[Letter]) -> Iterator[tuple[Letter, Message]]:
        """Yield `letters` with their payload, in the order of the topic."""
        wanted = {letter.offset: letter for letter in letters}
        if not wanted:
            return
        last = max(wanted)
        for message in self.read(min(wanted)):
            offset = message.offset() or 0
            if offset in wanted:
                yield wanted[offset], message
            if offset >= last:
                return

    def mark(self, letters: Sequence[Letter], outcome: Outcome) -> None:
        """Say for good what became of `letters`; returns when the broker has it."""
        by = f"{os.environ.get('USER', 'unknown')}@{socket.gethostname()}"
        now = time.time_ns() // 1_000_000
        producer = producer_client(self._kafka)
        marks = [
            (None, None, _mark({self.kind: one.owner, "letter": one.offset}, outcome, by, now))
            for one in letters
        ]
        store(producer, self.name, marks)

    def close(self) -> None:
        """Let go of the connection."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()


def _mark(of: dict[str, Any], outcome: str, by: str, now_ms: int) -> Headers:
    facts = {**of, "outcome": outcome, "by": by, "at": now_ms}
    return [(f"{_OURS}{name}", str(fact).encode()) for name, fact in facts.items()]


def store(
    producer: Producer,
    topic: str,
    records: Iterable[tuple[bytes | str | None, bytes | str | None, Headers]],
) -> None:
    """Write (value, key, headers) to `topic` and wait until the broker has all of them.

    Raises as `cdc.kafka.kafka_error` maps.
    """
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error)

    try:
        for value, key, headers in records:
            producer.produce(topic, value, key, headers=list(headers), on_delivery=delivered)
        left = producer.flush(DEADLINE_S)
    except KafkaException as error:
        raise named(error, f"writing to {topic}") from error
    except BufferError as error:
        raise KafkaUnavailable(f"writing to {topic}: {error}") from error
    if left:
        raise KafkaUnavailable(f"writing to {topic}: no answer in {DEADLINE_S:.0f} s")
    if failed:
        raise named(failed[0], f"writing to {topic}")
