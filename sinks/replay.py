"""Dead letters → the target, each once, and never an older row over a newer one.

    letter ─▶ decode as the sink does ─▶ newer change of its row? ─▶ one target transaction
                                         (sinks/history.py)          its row
                                                                     its own cursor: None → 1
                                                                     the partition's: as it is

Why a letter is applied once: it has a cursor of its own, which the transaction that holds its row
makes; whoever comes second, after a crash or at the same moment, finds it there and writes nothing.
The mark in the topic follows that transaction; where it is missing, the next replay makes it up.

Why nothing newer is overwritten: the history was read to the partition's cursor, and the same
transaction compares that cursor with what was read and holds it until the end. A sink that applied
anything in between makes the replay look again; what it applies later is newer.

Letters of one row go together, in the order of the source, or not at all. The topic's other readers
see nothing of a replay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
from confluent_kafka import Message

from cdc.connector import Context
from cdc.errors import DataError, TargetUnavailable
from cdc.kafka import KafkaConfig
from cdc.topics import topic_parts
from schemas.table import TableId
from sinks.binding import target_name
from sinks.collapse import in_source_order, source_order
from sinks.decode import DELETE, POISON, UPSERT, Event, poison
from sinks.history import History, rows_of
from sinks.letters import REPLAYED, Letter, LetterTopic, Record, concerns, original
from sinks.mapping import Selection
from sinks.parts import all_parts, parts_of, table_by_table
from sinks.routes import Routes, Schemas
from sinks.target import Cursor, CursorMoved, Span, Target, TopicPartition
from sinks.topics import Topics

__all__ = ["Replay", "Verdict", "batches", "held_back"]

_TRIES = 50
_USUAL = 200
"""Letters of one transaction; those of one key are never parted."""


class Verdict(msgspec.Struct):
    """What became of a letter: `replayed`, or why not (`refused`, `superseded`, `held`)."""

    letter: Letter
    state: str = ""
    reason: str = ""


class _Attempt(msgspec.Struct):
    """A letter on its way: what its record does, and which partition it is from."""

    verdict: Verdict
    event: Event
    partition: TopicPartition

    @property
    def offset(self) -> int:
        return self.verdict.letter.record.offset

    @property
    def ties(self) -> set[object]:
        """What others are applied together with it for: a row, a key, a key change of a table."""
        rows = list(rows_of(self.event))
        letter, stamp = self.verdict.letter, self.event.stamp
        why = [_owner(letter), *([] if stamp is None else [stamp[:3]])]
        return {*rows, *((table, one) for table, _ in rows for one in why)}

    def end(self, state: str, reason: str = "") -> None:
        self.verdict.state, self.verdict.reason = state, reason


def _owner(letter: Letter) -> object:
    """Return whose order a letter keeps: its key's; one without a key keeps none."""
    record = letter.record
    return record if letter.key is None else (record.topic, record.partition, letter.key)


def _meant(letter: Letter, event: Event) -> Event:
    """Return what a record does to the table that `letter` is of; all of it where it is of none."""
    part = letter.record.part
    parts = all_parts(event)
    name = part or (letter.table if len(parts) > 1 else "")
    if not name or parts[0].schema is None:
        return event
    found = next((one for one in parts if one.schema and str(one.schema.table) == name), None)
    if found is not None:
        return found
    if not part:
        return event
    gone = DataError(
        f"{letter.record.topic} goes to no table {part} any more",
        hint="Bring its mapping back, or `cdc dead drop` the letter.",
    )
    return poison(event.message, event.size, gone)


def held_back(known: Iterable[Letter], chosen: Iterable[Letter]) -> list[Verdict]:
    """Return which of `chosen` must wait: an earlier open letter of the key is not among them."""
    wanted = {letter.offset for letter in chosen}
    left: defaultdict[object, list[Letter]] = defaultdict(list)
    out = []
    for letter in sorted(known, key=lambda letter: letter.record):
        ahead = left[_owner(letter)]
        part = letter.record.part
        earlier = next((one for one in ahead if concerns(part, one.record.part)), None)
        if letter.offset not in wanted:
            ahead.append(letter)
        elif earlier is not None:
            reason = f"letter {earlier.offset} of the same key comes first: replay or drop it"
            out.append(Verdict(letter, "held", reason))
    return out


def batches(chosen: Iterable[Letter]) -> Iterator[list[Letter]]:
    """Cut `chosen` into transactions of a bearable size; the letters of a key stay together."""
    groups: defaultdict[object, list[Letter]] = defaultdict(list)
    for letter in chosen:
        groups[_owner(letter)].append(letter)
    batch: list[Letter] = []
    for group in groups.values():
        if batch and len(batch) + len(group) > _USUAL:
            yield batch
            batch = []
        batch += group
    if batch:
        yield batch


class Replay:
    """Applies letters of one sink; `target` is open. Not for two threads.

    `repair` may change the payload of a letter's record before the mapping sees it.
    """

    def __init__(
        self,
        context: Context,
        kafka: KafkaConfig,
        target: Target,
        selection: Selection,
        schemas: Schemas,
        *,
        repair: Callable[[Letter, bytes], bytes] | None = None,
    ) -> None:
        self._context = context
        self._repair = repair
        self._kafka = kafka
        self._target = target
        self._selection = selection
        self._routes = Routes(selection, schemas, self)
        self._topics = Topics(kafka, selection.takes)
        self._letters = LetterTopic(kafka, context.pipeline)
        self._identity = self._letters.identity()
        self._prepared = 0
        self._known: dict[str, list[TopicPartition]] = {}

    def partitions(self, topic: str) -> int:
        """Return how many partitions `topic` has."""
        return len(self._known.get(topic, ()))

    def writers(self, _topic: str) -> int:
        """Return how many write at once: a letter has a cursor of its own, so this one does."""
        return 1

    def close(self) -> None:
        """Let go of the connection to the letters; the target is the caller's."""
        self._letters.close()

    def replay(self, batch: Sequence[Letter]) -> list[Verdict]:
        """Apply what may be applied of `batch`, mark it, and return what became of each.

        Raises `errors.Unavailable` and `errors.Stop` as the target and Kafka do; what was applied
        by then is not applied again.
        """
        attempts = self._read(batch)
        histories = self._histories(attempts)
        try:
            self._judge(attempts, histories)
        finally:
            for history in histories.values():
                history.close()
        done = [a.verdict.letter for a in attempts if a.verdict.state == REPLAYED]
        self._letters.mark(done, REPLAYED)
        return [attempt.verdict for attempt in attempts]

    def _read(self, batch: Sequence[Letter]) -> list[_Attempt]:
        names = sorted({letter.record.topic for letter in batch})
        self._known = self._topics.describe(names)
        places = {(p.topic, p.partition): p for group in self._known.values() for p in group}
        cursors = self._target.cursors(list(places.values()))
        begun = [(p.topic, cursor) for p, cursor in cursors.items() if cursor is not None]
        self._routes.begun |= {topic for topic, _ in begun}
        self._routes.applied |= {topic for topic, cursor in begun if cursor.stamp is not None}
        targets = self._targets()
        out = []
        for letter, message in self._letters.messages(batch):
            topic, number = letter.record[:2]
            partition = places.get((topic, number), TopicPartition(topic, "", number))
            attempt = _Attempt(Verdict(letter), self._event(letter, message), partition)
            self._refuse_unfit(attempt, targets)
            out.append(attempt)
        for schema, known in self._routes.tables[self._prepared :]:
            self._target.prepare(schema, known=known)
        self._prepared = len(self._routes.tables)
        return out

    def _event(self, letter: Letter, message: Message) -> Event:
        record = original(message, letter.record)
        value = record.value()
        if value is None:
            buried = self._routes.bury(record)
            return buried or poison(record, 0, DataError("the record has no value"))
        try:
            payload = value if self._repair is None else self._repair(letter, value)
        except (DataError, ValueError) as error:
            wrong = error if isinstance(error, DataError) else DataError(f"not repaired: {error}")
            return poison(record, len(value), wrong)
        return _meant(letter, self._routes.read(record, payload))

    def _targets(self) -> Mapping[TableId, int]:
        """Return how many topics of the sink each target table takes, as far as names tell."""
        out: defaultdict[TableId, int] = defaultdict(int)
        for topic in self._topics.names():
            parts = topic_parts(topic)
            for mapping in self._selection.mappings(topic) if len(parts) > 1 else ():
                out[target_name(TableId(parts[-2], parts[-1]), topic, mapping)] += 1
        return out

    def _refuse_unfit(self, attempt: _Attempt, targets: Mapping[TableId, int]) -> None:
        parts = list(parts_of(attempt.event))
        torn = next((part for part in parts if part.kind == POISON), None)
        tables = [p.schema.table for p in parts if p.schema and p.kind in (UPSERT, DELETE)]
        shared = next((table for table in tables if targets.get(table, 0) > 1), None)
        if torn is not None:
            attempt.end("refused", str(torn.error))
        elif not tables or len(tables) < len(parts):
            attempt.end("refused", "a truncation is not replayed: it would empty the table now")
        elif not attempt.partition.topic_id:
            attempt.end("refused", f"topic {attempt.partition.topic} is gone")
        elif shared is not None:
            attempt.end("refused", f"several topics go to {shared}: no order is known")

    def _histories(self, attempts: Iterable[_Attempt]) -> dict[TopicPartition, History]:
        events: defaultdict[TopicPartition, dict[Record, Event]] = defaultdict(dict)
        for attempt in attempts:
            if not attempt.verdict.state:
                events[attempt.partition][attempt.verdict.letter.record] = attempt.event
        out = {}
        for partition, letters in events.items():
            rekeyed = any(mapping.key for mapping in self._selection.mappings(partition.topic))
            out[partition] = History(self._kafka, partition, letters, self._routes, rekeyed=rekeyed)
        return out

    def _judge(
        self, attempts: Sequence[_Attempt], histories: Mapping[TopicPartition, History]
    ) -> None:
        """Apply all at once, or, where the target refuses something, row by row."""
        open_ = [attempt for attempt in attempts if not attempt.verdict.state]
        if self._apply(open_, histories) is None:
            return
        for group in _entangled([a for a in open_ if not a.verdict.state]):
            error = self._apply(group, histories)
            for attempt in group:
                if error is not None and not attempt.verdict.state:
                    attempt.end("refused", str(error))

    def _apply(
        self, attempts: Sequence[_Attempt], histories: Mapping[TopicPartition, History]
    ) -> DataError | None:
        """Apply `attempts` in one transaction; return the error when the target refuses them."""
        for _ in range(_TRIES):
            live, spans = self._look(attempts, histories)
            if not live:
                return None
            lanes: defaultdict[TopicPartition, list[Event]] = defaultdict(list)
            for attempt in sorted(live, key=lambda attempt: attempt.offset):
                lanes[attempt.partition].append(attempt.event)
            try:
                events = source_order(map(table_by_table, lanes.values()))
                self._target.apply(in_source_order(events), spans)
            except CursorMoved:
                continue
            except DataError as error:
                return error
            for attempt in live:
                attempt.end(REPLAYED)
            return None
        name = self._context.name
        raise TargetUnavailable(
            f"sink {name} moves its cursors faster than they can be compared",
            hint=f"cdc pause sink/{name}, replay, cdc resume sink/{name}",
        )

    def _look(
        self, attempts: Sequence[_Attempt], histories: Mapping[TopicPartition, History]
    ) -> tuple[list[_Attempt], list[Span]]:
        """Return what may be applied now, and the cursors that must be as they are."""
        own = {self._place(attempt.verdict.letter): attempt for attempt in attempts}
        cursors = self._target.cursors([*histories, *own])
        for partition, history in histories.items():
            cursor = cursors[partition]
            history.advance(0 if cursor is None else cursor.offset)
        live, spans = [], {}
        for place, attempt in own.items():
            partition = attempt.partition
            cursor = cursors[partition]
            if cursors[place] is not None:
                attempt.end(REPLAYED, "it was applied before")
            elif cursor is None or attempt.offset >= cursor.offset:
                attempt.end("held", "the sink has not passed its record yet and will meet it again")
            elif objection := histories[partition].objection(attempt.verdict.letter.record):
                attempt.end("superseded", objection)
            else:
                live.append(attempt)
                spans[partition] = Span(partition, cursor, cursor)
                spans[place] = Span(place, None, Cursor(1))
        return live, list(spans.values())

    def _place(self, letter: Letter) -> TopicPartition:
        """Return the letter's own cursor, one for each letter that was ever written."""
        return TopicPartition(f"{self._letters.name}@{self._identity}", "letter", letter.offset)


def _entangled(attempts: Iterable[_Attempt]) -> list[list[_Attempt]]:
    """Group what must be applied together: letters of a key, of a row, of one key change."""
    groups: list[tuple[set[object], list[_Attempt]]] = []
    for attempt in attempts:
        ties, members, apart = attempt.ties, [attempt], []
        for group in groups:
            if group[0].isdisjoint(ties):
                apart.append(group)
            else:
                ties |= group[0]
                members = [*group[1], *members]
        groups = [*apart, (ties, members)]
    return [members for _, members in groups]
