"""What a sink has applied behind a dead letter: may the letter's row still be written?

    log   ──L────────n──────────────────┬──────▶      L the letter's record, n a newer one
            from here         to the cursor            of the same row

The order of a row's changes is that of its partition, and everything before the sink's cursor is
in the target (or is a letter itself). So a letter may be applied when no record between it and the
cursor touches its row, other than letters that are applied with it. That is certain only while the
record itself is still in the topic: compaction takes a record when a newer one of its key came,
retention takes the newer ones along, and a topic made anew says nothing of the old one.

Of a record that goes to several tables a letter may be one part: then the others were applied.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Place

from cdc.errors import KafkaUnavailable
from cdc.kafka import DEADLINE_S, KafkaConfig, arrived, consumer_client, kafka_error
from schemas.table import TableId
from sinks.consume import Reader
from sinks.decode import POISON, SKIP, TRUNCATE, Event, Key
from sinks.letters import Record
from sinks.parts import parts_of
from sinks.target import TopicPartition

__all__ = ["History", "rows_of"]

_BATCH = 2000
_PASSING = frozenset({KafkaError._PARTITION_EOF})  # noqa: SLF001 - librdkafka's own code
_GONE = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)

Row = tuple[TableId, Key]


def rows_of(event: Event) -> Iterator[Row]:
    """Yield the rows of the target that `event` touches, by table and key."""
    for part in parts_of(event):
        if part.schema is not None:
            yield part.schema.table, part.key
            if part.old is not None:
                yield part.schema.table, part.old


class History:
    """One partition from the first of `letters` on; they are the records and what each does.

    `rekeyed` says that rows of the target have another key than the records, so that every record
    must be decoded to see whose it is.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        partition: TopicPartition,
        letters: Mapping[Record, Event],
        reader: Reader,
        *,
        rekeyed: bool,
    ) -> None:
        self._partition = partition
        self._letters: defaultdict[int, dict[Record, Event]] = defaultdict(dict)
        for record, event in letters.items():
            self._letters[record.offset][record] = event
        self._reader = reader
        self._keys = None if rekeyed else {e.message.key() for e in letters.values()}
        self._rows: defaultdict[Row, list[Record]] = defaultdict(list)
        self._seen: set[Record] = set()
        self._newer: dict[Record, int] = {}
        self._ahead: deque[Message] = deque()
        self._next = min(self._letters)
        self._lost = False
        self._consumer = consumer_client(kafka)
        self._consumer.assign([Place(partition.topic, partition.partition, self._next)])

    def advance(self, end: int) -> None:
        """Read on to the cursor. Raises `errors.KafkaUnavailable`, and as `kafka_error` maps."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            while self._ahead and (self._ahead[0].offset() or 0) < end:
                self._take(self._ahead.popleft())
            if self._lost or self._next >= end:
                return
            if self._fetch():
                deadline = time.monotonic() + DEADLINE_S
            elif time.monotonic() > deadline:
                raise KafkaUnavailable(f"{self._name}: read to {self._next} of {end} only")

    def objection(self, record: Record) -> str:
        """Say why the letter of `record` must not be applied; empty when it may."""
        if record not in self._seen:
            return (
                f"{self._name} no longer holds its record, so nobody knows what came after it; "
                "`cdc backfill --where …` reads the row anew"
            )
        if record in self._newer:
            return f"a newer change of its row is in {self._name} at offset {self._newer[record]}"
        return ""

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

    @property
    def _name(self) -> str:
        return f"{self._partition.topic}[{self._partition.partition}]"

    def _fetch(self) -> bool:
        try:
            found = arrived(self._consumer, _BATCH, 0.2)
        except KafkaException as error:
            raise kafka_error(error, f"reading {self._name}") from error
        for message in found:
            failed = message.error()
            if failed is None:
                self._ahead.append(message)
                self._next = (message.offset() or 0) + 1
            elif failed.code() in _PASSING:
                self._next = max(self._next, message.offset() or 0)
            elif failed.code() in _GONE:
                self._lost = True
            else:
                raise kafka_error(failed, f"reading {self._name}")
        return bool(found)

    def _take(self, message: Message) -> None:
        offset, value = message.offset() or 0, message.value()
        letters = self._letters.get(offset, {})
        for record, letter in letters.items():
            if letter.message.value() == value and letter.message.key() == message.key():
                self._seen.add(record)
                for row in rows_of(letter):
                    self._rows[row].append(record)
        key = message.key()
        if self._keys is None or key is None or key in self._keys:
            self._meet(message, {table for one in letters.values() for table, _ in rows_of(one)})

    def _meet(self, message: Message, aside: Collection[TableId]) -> None:
        """Take note of what a record did to the target; of tables in `aside` it is a letter."""
        reader, value, offset = self._reader, message.value(), message.offset() or 0
        event = reader.bury(message) if value is None else reader.read(message, value)
        for part in () if event is None else parts_of(event):
            if part.kind in (POISON, SKIP) or part.schema is None or part.schema.table in aside:
                continue
            for row in self._touched(part):
                for older in self._rows.get(row, ()):
                    self._newer.setdefault(older, offset)

    def _touched(self, event: Event) -> list[Row]:
        """Return the rows `event` touches; a truncation touches all of its table."""
        if event.kind != TRUNCATE or event.schema is None:
            return list(rows_of(event))
        return [row for row in self._rows if row[0] == event.schema.table]
