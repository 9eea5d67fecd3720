"""One Kafka transaction = the records of some batches + the position behind them.

    acquire()   fence the former owner, learn where it stood (positions.py), claim the source
    add(batch)  encode and hand to the client; the transaction begins with the first record
    commit()    position and progress into the same transaction, then EndTxn

After `errors.KafkaUnavailable` the outcome is in doubt: the publisher is closed and a new one
acquires, which aborts or completes what was open, and the stored position tells which (R5). A
worker whose claim is no longer the last one ends instead: to acquire would fence its successor.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaException, Producer

from cdc.boundaries import PROGRESS, Boundaries
from cdc.connector import Context
from cdc.errors import Fenced, KafkaUnavailable, Stop
from cdc.failpoints import failpoint
from cdc.kafka import DEADLINE_S, REPLACED, KafkaConfig, its_own_error, kafka_error, producer_client
from cdc.positions import PositionsTopic, Stored, Tails
from cdc.routes import Messages, Outgoing, PublishConfig, Routes, Written
from cdc.source import Batch, Position, Progress
from schemas.change import Rows, Stamp
from schemas.plan import SourceName
from schemas.registry import Registry

__all__ = ["Claim", "Committed", "PublishConfig", "Publisher", "Written"]

_TRANSACTION_TIMEOUT_MS = 15_000
_PIECE_ROWS = 2_000
_TAILS = 1_000
_log = structlog.get_logger(__name__)


class Claim(msgspec.Struct):
    """A worker's word that a source is its own, for as long as its process lives.

    `made` once it is committed: then whoever took over since has another one.
    """

    owner: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))
    made: bool = False


class Committed(msgspec.Struct, frozen=True):
    """What one commit made durable; `seconds` is the wait for EndTxn.

    `oldest_us` is when its oldest change was committed in the source, µs since 1970; 0 for none.
    `quarantined` rows are not among `rows`.
    """

    position: Position
    rows: int
    bytes: int
    seconds: float
    oldest_us: int = 0
    quarantined: int = 0


class _Open(msgspec.Struct):
    """The transaction being filled."""

    begun: float
    rows: int = 0
    bytes: int = 0
    quarantined: int = 0
    oldest_us: int = 0
    batch: Batch | None = None
    progress: dict[str, Progress] = msgspec.field(default_factory=dict)
    last: dict[str, Callable[[], Stamp] | None] = msgspec.field(default_factory=dict)

    def tails(self) -> Tails | None:
        """Return where the topics written to end, None when they are too many to be told."""
        if len(self.last) > _TAILS:
            return None
        return {topic: None if last is None else last() for topic, last in self.last.items()}


class Publisher:
    """Writes one source's changes; owns its transactional id. Single-threaded."""

    def __init__(
        self,
        context: Context,
        kafka: KafkaConfig,
        registry: Registry,
        source: SourceName,
        written: Written,
    ) -> None:
        self._context = context
        self._kafka = kafka
        self._options = written.publish
        self._routes = Routes(context, kafka, registry, source, written)
        self._boundaries: Boundaries | None = None
        self._positions = PositionsTopic(kafka, context.pipeline)
        self._producer: Producer | None = None
        self._partition = self._number = 0
        self._open: _Open | None = None

    def acquire(self, claim: Claim | None = None) -> Stored:
        """Take ownership and return what was committed last. Raises as `kafka_error` maps.

        With a `claim` made before, raises `errors.Fenced` when another worker has taken over.
        """
        name, claim = self._context.name, claim or Claim()
        self._partition = self._positions.partition(name)
        if claim.made and self._positions.read(name).owner != claim.owner:
            raise Fenced(f"source {name} was taken over", hint=REPLACED)
        owner = f"{self._context.pipeline}.source.{name}"
        self._producer = producer_client(
            self._kafka,
            transactional_id=owner,
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            delivery_report_only_error=True,  # others would stay in memory until the commit
        )
        self._call(self._producer.init_transactions, f"acquiring the transactional id {owner}")
        stored = self._positions.read(name)
        self._number = time.time_ns()  # no other life counts through these
        self._routes.restore(stored)
        if self._options.transactions:
            self._boundaries = Boundaries(stored.progress.get(PROGRESS))
        if stored.owner != claim.owner:
            self._make(claim)
        claim.made = True
        return stored

    def _make(self, claim: Claim) -> None:
        self._begin()
        record = self._positions.claim(self._context.name, claim.owner)
        self._produce(self._positions.name, Outgoing([record]), self._partition)
        self._end()
        self._open = None

    def add(self, batch: Batch) -> None:
        """Encode the rows of `batch` into the open transaction.

        Raises `errors.Stop` for a row that cannot be encoded and is not to be put into quarantine,
        `errors.SchemaIncompatible` for a table version its readers cannot read: nothing of the
        batch is committed then.
        """
        now_ms = time.time_ns() // 1_000_000
        out: Messages = {}
        counted = [(rows, self._encode(rows, now_ms, out)) for rows in batch.rows]
        progress = self._routes.take_progress()
        if self._boundaries is not None:
            progress += self._note_boundaries(batch, counted, out)
        opened = self._begin()
        opened.oldest_us = opened.oldest_us or _first_commit_us(batch)
        self._send(out)
        for entry in (*progress, *batch.progress):
            opened.progress[entry.key] = entry
        opened.batch = batch

    def _encode(self, rows: Rows, now_ms: int, out: Messages) -> int:
        """Encode a run; what is ready goes to the client, which works while we encode the rest."""
        events = 0
        for piece in _pieces(rows):
            events += self._routes.encode(piece, now_ms, out)
            if sum(len(outgoing.messages) for outgoing in out.values()) >= _PIECE_ROWS:
                self._send(out)
        return events

    def _send(self, out: Messages) -> None:
        """Hand over what was encoded, inside the open transaction."""
        opened = self._begin()
        for topic, outgoing in out.items():
            self._produce(topic, outgoing)
            opened.bytes += outgoing.bytes
            if outgoing.letters:
                opened.quarantined += len(outgoing.messages)
                continue
            opened.rows += len(outgoing.messages)
            opened.last[topic] = outgoing.last
        out.clear()

    def _note_boundaries(
        self, batch: Batch, counted: list[tuple[Rows, int]], out: Messages
    ) -> list[Progress]:
        if self._boundaries is None:
            return []
        messages = self._boundaries.messages(batch, counted)
        if messages:
            topic = f"{self._context.name}.transaction"
            self._routes.ensure(topic, 1)
            out[topic] = Outgoing(messages)
        return [*self._routes.take_progress(), self._boundaries.progress()]

    @property
    def is_open(self) -> bool:
        """Whether a transaction has begun."""
        return self._open is not None

    def due(self) -> bool:
        """Tell whether the open transaction has reached one of its bounds."""
        opened, options = self._open, self._options
        if opened is None:
            return False
        return (
            opened.rows >= options.max_rows
            or opened.bytes >= options.max_bytes
            or (time.monotonic() - opened.begun) * 1000 >= options.max_ms
        )

    def commit(self) -> Committed | None:
        """Commit records, progress and position; None when nothing is open."""
        opened = self._open
        if opened is None or opened.batch is None or self._producer is None:
            return None
        batch = msgspec.structs.replace(opened.batch, progress=list(opened.progress.values()))
        now_ms = time.time_ns() // 1_000_000
        failpoint("publish.before_position")
        told = self._number + 1, opened.tails()
        records = self._positions.records(self._context.name, batch, now_ms, told)
        self._produce(self._positions.name, Outgoing(records), self._partition)
        failpoint("publish.before_commit")
        started = time.monotonic()
        self._end()
        failpoint("publish.after_commit")
        self._open = None
        self._number += 1
        taken = time.monotonic() - started
        return Committed(
            batch.upto,
            opened.rows,
            opened.bytes,
            taken,
            opened.oldest_us,
            opened.quarantined,
        )

    def close(self) -> None:
        """Abort what is open and let go; never raises for a broker that is away."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        if self._open is not None:
            self._open = None
            _abort(producer)
        _discard(producer)

    def _begin(self) -> _Open:
        if self._open is None:
            if self._producer is None:
                raise Stop("publish before acquire")
            begin = self._producer.begin_transaction
            self._call(lambda _: begin(), "beginning a transaction")
            self._open = _Open(time.monotonic())
        return self._open

    def _end(self) -> None:
        if self._producer is not None:
            doing = f"committing a transaction with {self._positions.name}"
            self._call(self._producer.commit_transaction, doing)

    def _produce(self, topic: str, outgoing: Outgoing, partition: int = -1) -> None:
        messages = outgoing.messages
        if not messages or self._producer is None:
            return
        if outgoing.singly:
            self._produce_singly(topic, messages)
            return
        with _named(topic):
            queued = self._producer.produce_batch(topic, messages, partition=partition)
        if queued == len(messages):
            return
        self._call(self._producer.flush, f"writing to {topic}")  # a fatal error says why here
        for message in messages:
            if "_error" in message:
                size = len(message["value"] or b"")
                raise kafka_error(message["_error"], f"writing a record of {size} bytes to {topic}")

    def _produce_singly(self, topic: str, messages: list[dict[str, Any]]) -> None:
        if self._producer is None:
            return
        with _named(topic):
            for message in messages:
                self._producer.produce(topic, **message)

    def _call(self, method: Callable[[float], Any], doing: str) -> None:
        try:
            with its_own_error():
                method(DEADLINE_S)
        except KafkaException as error:
            raise kafka_error(error, doing) from error


@contextmanager
def _named(topic: str) -> Iterator[None]:
    """Say which topic could not be written to."""
    try:
        yield
    except BufferError as error:
        raise KafkaUnavailable(f"the producer's queue is full for {topic}") from error
    except KafkaException as error:
        raise kafka_error(error, f"writing to {topic}") from error


def _pieces(rows: Rows) -> Iterator[Rows]:
    """Yield a long run in parts."""
    if len(rows.items) <= _PIECE_ROWS:
        yield rows
        return
    for start in range(0, len(rows.items), _PIECE_ROWS):
        part = slice(start, start + _PIECE_ROWS)
        items, ordinals = rows.items[part], rows.ordinals[part]
        yield Rows(rows.schema, rows.form, rows.origin, items, ordinals)


def _first_commit_us(batch: Batch) -> int:
    """Return when the first change of the log in `batch` was committed, 0 when there is none."""
    return next((r.origin.commit_us for r in batch.rows if not r.origin.snapshot), 0)


def _abort(producer: Producer) -> None:
    """Abort if the broker answers soon; if not, its own time-out or our successor does it."""
    try:
        with its_own_error():
            producer.abort_transaction(2.0)
    except KafkaException as error:
        _log.info("abort left to the broker", reason=str(error))


def _discard(producer: Producer) -> None:
    """Forget what is queued, so that the client ends at once; a fenced one only says so again."""
    producer.purge()
    try:
        with its_own_error():
            producer.flush(0)
    except KafkaException as error:
        _log.debug("discarded", reason=str(error))
