"""A twin of Kafka: logs, transactions, fencing, and what each isolation level sees.

After EndTxn is decided the markers reach the partitions one by one, as on a real broker; until a
partition has its marker its last stable offset stays before the transaction. A transaction left
open ends after its time-out, or when its transactional id is acquired anew.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException

from simulation.world import HERE, World, call

_TIMEOUT_S = 15.0
_FETCH = 40


class Txn:
    """One transaction. `state` is open, committed or aborted; `left` waits for its marker."""

    def __init__(self, began: float) -> None:
        self.state = "open"
        self.began = began
        self.records: list[tuple[Log, int]] = []
        self.left: list[Log] = []


class Record:
    """One offset: a record, or the marker of `txn` (then `key` and `value` mean nothing)."""

    __slots__ = ("key", "marker", "txn", "value")

    def __init__(
        self, key: bytes | None, value: bytes | None, txn: Txn | None, *, marker: bool = False
    ) -> None:
        self.key, self.value, self.txn, self.marker = key, value, txn, marker


class Log:
    """One partition."""

    def __init__(self, topic: str, number: int) -> None:
        self.topic, self.number = topic, number
        self.records: list[Record] = []
        self.open: dict[Txn, int] = {}

    @property
    def stable(self) -> int:
        return min(self.open.values(), default=len(self.records))

    def append(self, key: bytes | None, value: bytes | None, txn: Txn | None) -> None:
        if txn is not None:
            if self not in txn.left:
                txn.left.append(self)
            self.open.setdefault(txn, len(self.records))
            txn.records.append((self, len(self.records)))
        self.records.append(Record(key, value, txn))

    def mark(self, txn: Txn) -> None:
        self.records.append(Record(None, None, txn, marker=True))
        del self.open[txn]

    def committed(self, start: int, end: int) -> Iterator[tuple[int, Record]]:
        """Yield the records of [start, end) that a committed reader is given."""
        for offset in range(start, end):
            record = self.records[offset]
            if not record.marker and (record.txn is None or record.txn.state == "committed"):
                yield offset, record


class Owner:
    """A transactional id: its present epoch and transaction."""

    def __init__(self) -> None:
        self.epoch = 0
        self.txn: Txn | None = None


class Broker:
    """All topics. `committed` hears of each transaction, `letter` of each dead letter."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.topics: dict[str, list[Log]] = {}
        self.owners: dict[str, Owner] = {}
        self.committed: Callable[[Txn], None] = lambda _: None
        self.letter: Callable[[bytes], None] = lambda _: None
        self.next_commit = "answered"
        self.lag = True

    def create(self, topic: str, partitions: int) -> None:
        self.topics[topic] = [Log(topic, number) for number in range(partitions)]

    def end(self, owner: Owner, state: str) -> None:
        """Decide the open transaction of `owner`; its markers follow."""
        txn = owner.txn
        if txn is None or txn.state != "open":
            return
        txn.state = state
        if state == "committed":
            self.committed(txn)
        if not self.lag:
            self.settle(owner)

    def settle(self, owner: Owner) -> None:
        """Write every marker that is left."""
        txn, owner.txn = owner.txn, None
        if txn is not None:
            for log in txn.left:
                log.mark(txn)
            txn.left = []

    def advance(self) -> None:
        """Time passes: a marker may arrive, a transaction may time out."""
        for owner in self.owners.values():
            txn = owner.txn
            if txn is None:
                continue
            if txn.state == "open" and self.world.now - txn.began > _TIMEOUT_S:
                owner.epoch += 1
                self.end(owner, "aborted")
            if txn.state != "open" and txn.left and self.world.dice.random() < 0.3:
                txn.left.pop(self.world.dice.randrange(len(txn.left))).mark(txn)

    def open(self, owner: Owner) -> Txn:
        if owner.txn is not None and owner.txn.state != "open":
            self.settle(owner)
        if owner.txn is None:
            owner.txn = Txn(self.world.now)
        return owner.txn


def failure(code: int) -> KafkaException:
    return KafkaException(KafkaError(code, "simulated"))


class Message:
    """What a consumer hands out."""

    __slots__ = ("_key", "_place", "_trouble", "_value")

    def __init__(
        self, place: tuple[str, int, int], record: Record | None, error: KafkaError | None = None
    ) -> None:
        self._place, self._trouble = place, error
        self._key = record.key if record is not None else None
        self._value = record.value if record is not None else None

    def error(self) -> KafkaError | None:
        return self._trouble

    def topic(self) -> str:
        return self._place[0]

    def partition(self) -> int:
        return self._place[1]

    def offset(self) -> int:
        return self._place[2]

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return (1, 0)


class Client:
    """What all clients share: the broker, and the process they live in."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.world = HERE.world
        self.process = self.world.current
        self.broker: Broker = HERE.world.broker  # type: ignore[attr-defined]
        self.settings = settings


class Producer(Client):
    """`confluent_kafka.Producer`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        name = settings.get("transactional.id")
        self._owner = self.broker.owners.setdefault(name, Owner()) if name else None
        self._epoch = -1
        self._calls: list[Any] = []

    def _alive(self) -> Owner:
        assert self._owner is not None
        if self._epoch != self._owner.epoch:
            raise failure(KafkaError._FENCED)
        return self._owner

    @call("kafka.init_transactions")
    def init_transactions(self, _timeout: float = 0) -> None:
        owner = self._owner
        assert owner is not None
        owner.epoch += 1
        self._epoch = epoch = owner.epoch
        if self.process is not None:
            self.process.owns = lambda: owner.epoch == epoch
        self.broker.end(owner, "aborted")
        self.broker.settle(owner)

    @call("kafka.begin_transaction")
    def begin_transaction(self) -> None:
        self._alive()

    @call("kafka.produce_batch")
    def produce_batch(self, topic: str, messages: list[Any], partition: int = -1) -> int:
        for message in messages:
            self._write(topic, message.get("key"), message.get("value"), partition)
        return len(messages)

    @call("kafka.produce")
    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int = -1,
        **rest: Any,
    ) -> None:
        self._write(topic, key, value, partition)
        if rest.get("on_delivery"):
            self._calls.append(rest["on_delivery"])

    def _write(self, topic: str, key: bytes | None, value: bytes | None, partition: int) -> None:
        logs = self.broker.topics[topic]
        if partition < 0:
            partition = zlib.crc32(key or b"") % len(logs)
        if self._owner is None:
            logs[partition].append(key, value, None)
            self.broker.letter(value or b"")
        elif self._epoch == self._owner.epoch:  # a fenced client hears of it at its commit
            logs[partition].append(key, value, self.broker.open(self._owner))

    @call("kafka.commit_transaction")
    def commit_transaction(self, _timeout: float = 0) -> None:
        owner = self._alive()
        outcome, self.broker.next_commit = self.broker.next_commit, "answered"
        if outcome != "undecided":
            self.broker.end(owner, "committed")
        if outcome != "answered":
            raise failure(KafkaError._TIMED_OUT)

    @call("kafka.abort_transaction")
    def abort_transaction(self, _timeout: float = 0) -> None:
        self.broker.end(self._alive(), "aborted")

    def purge(self) -> None:
        """Forget what is queued: nothing is."""

    def flush(self, _timeout: float = 0) -> int:
        calls, self._calls = self._calls, []
        for told in calls:
            told(None, None)
        return 0


class Consumer(Client):
    """`confluent_kafka.Consumer`, assigned by hand."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self._committed = settings["isolation.level"] == "read_committed"
        self._next: dict[tuple[str, int], int] = {}
        self._told: dict[tuple[str, int], int] = {}
        self._paused: set[tuple[str, int]] = set()

    def assign(self, places: Iterable[Any]) -> None:
        self.incremental_assign(places)

    def incremental_assign(self, places: Iterable[Any]) -> None:
        for place in places:
            self._next[place.topic, place.partition] = max(place.offset, 0)

    def pause(self, places: Iterable[Any]) -> None:
        self._paused |= {(place.topic, place.partition) for place in places}

    def resume(self, places: Iterable[Any]) -> None:
        self._paused -= {(place.topic, place.partition) for place in places}

    @call("kafka.list_topics")
    def list_topics(self, _topic: str, **_: Any) -> None:
        self.broker.advance()

    @call("kafka.get_watermark_offsets")
    def get_watermark_offsets(self, place: Any, **_: Any) -> tuple[int, int]:
        self.broker.advance()
        return 0, len(self.broker.topics[place.topic][place.partition].records)

    @call("kafka.poll")
    def poll(self, timeout: float) -> Message | None:
        found = self._fetch(1)
        if not found:
            self.world.now += timeout
        return found[0] if found else None

    @call("kafka.consume")
    def consume(self, count: int, timeout: float) -> list[Message]:
        found = self._fetch(min(count, self.world.dice.randrange(1, _FETCH)))
        if not found:
            self.world.now += timeout
        return found

    def _fetch(self, count: int) -> list[Message]:
        self.broker.advance()
        places = [place for place in self._next if place not in self._paused]
        self.world.dice.shuffle(places)
        out: list[Message] = []
        for place in places:
            out += self._read(place, count - len(out))
            if len(out) >= count:
                break
        return out

    def _read(self, place: tuple[str, int], count: int) -> list[Message]:
        log = self.broker.topics[place[0]][place[1]]
        end = log.stable if self._committed else len(log.records)
        out: list[Message] = []
        for offset, record in log.committed(self._next[place], end):
            if len(out) == count:
                return out
            out.append(Message((*place, offset), record))
            self._next[place] = offset + 1
        if len(out) < count:
            self._next[place] = max(end, self._next[place])
            if self._told.get(place) != end:
                self._told[place] = end
                reached = KafkaError(KafkaError._PARTITION_EOF)
                out.append(Message((*place, end), None, reached))
        return out

    def close(self) -> None:
        self._next.clear()


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


class AdminClient(Client):
    """`confluent_kafka.admin.AdminClient`."""

    @call("kafka.list_topics")
    def list_topics(self, **_: Any) -> Any:
        topics = {
            name: SimpleNamespace(partitions=dict.fromkeys(range(len(logs))))
            for name, logs in self.broker.topics.items()
        }
        return SimpleNamespace(topics=topics)

    @call("kafka.describe_topics")
    def describe_topics(self, asked: Any, **_: Any) -> dict[str, Future[Any]]:
        out = {}
        for name in asked.topic_names:
            logs = self.broker.topics.get(name)
            if logs is None:
                out[name] = _done(failure(KafkaError.UNKNOWN_TOPIC_OR_PART))
            else:
                out[name] = _done(SimpleNamespace(topic_id=f"id-{name}", partitions=logs))
        return out

    @call("kafka.create_topics")
    def create_topics(self, new: list[Any], **_: Any) -> dict[str, Future[Any]]:
        for topic in new:
            if topic.topic not in self.broker.topics:
                self.broker.create(topic.topic, topic.num_partitions)
        return {topic.topic: _done(None) for topic in new}

    @call("kafka.list_offsets")
    def list_offsets(self, asked: dict[Any, Any], **named: Any) -> dict[Any, Future[Any]]:
        self.broker.advance()
        committed = named["isolation_level"] is IsolationLevel.READ_COMMITTED
        out = {}
        for place in asked:
            log = self.broker.topics[place.topic][place.partition]
            offset = log.stable if committed else len(log.records)
            out[place] = _done(SimpleNamespace(offset=offset))
        return out
