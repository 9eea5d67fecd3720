"""Looks from outside while the storm rages: the slots beside Kafka, the targets in one snapshot."""

from __future__ import annotations

import threading
import time

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from crash.evidence import CutSample, SlotSample
from crash.topics import consumer, positions_partition, stored_position

MARKERS_S = 1.0
SLOT = """
select confirmed_flush_lsn - '0/0', pg_current_wal_lsn() - confirmed_flush_lsn
from pg_replication_slots where slot_name = %s and confirmed_flush_lsn is not null
"""
CURSORS = "select partition, next_offset from tailrace.cursors where sink = %s and topic = %s"
ACCOUNTS = "select id::text, version, balance from accounts"


class Sampler(threading.Thread):
    """Takes one look after another until `end`; a server that is down is looked at later."""

    every_s = 0.05

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._over = threading.Event()
        self.failure: Exception | None = None

    def end(self) -> None:
        self._over.set()
        self.join()
        if self.failure is not None:
            raise self.failure

    def run(self) -> None:
        while not self._over.wait(self.every_s):
            try:
                self.watch()
            except (psycopg.OperationalError, KafkaException):
                continue
            except Exception as error:  # noqa: BLE001 - raised again by `end`
                self.failure = error
                return

    @property
    def is_over(self) -> bool:
        return self._over.wait(self.every_s)

    def watch(self) -> None:
        """Look until `is_over`, or until a server goes down."""
        raise NotImplementedError


class SlotSampler(Sampler):
    """The slot's confirmed LSN first, then the newest position Kafka has committed."""

    every_s = 0.1

    def __init__(self, url: str, bootstrap: str, names: tuple[str, str]) -> None:
        super().__init__(f"slot-{names[1]}")
        self._url, self._broker = url, bootstrap
        self._pipeline, self._source = names
        self.samples: list[SlotSample] = []
        self.retained = 0
        self.stored = self._reached = 0
        topic = f"{self._pipeline}.positions"
        self._place = TopicPartition(topic, positions_partition(self._source), 0)

    def watch(self) -> None:
        reader = consumer(self._broker)
        try:
            reader.assign([self._place])
            self._reached = 0
            with psycopg.connect(self._url, autocommit=True) as connection:
                while not self.is_over:
                    self._look(connection, reader)
        finally:
            reader.close()

    def _look(self, connection: psycopg.Connection, reader: Consumer) -> None:
        slot = f"cdc_{self._pipeline}_{self._source}"
        row = connection.execute(SLOT, (slot,)).fetchone()
        if row is None or not self._catch_up(reader):
            return
        confirmed, self.retained = int(row[0]), int(row[1])
        if self.stored < confirmed and not self._over.wait(MARKERS_S):
            # A commit is durable before its markers are: only what stays ahead is ahead.
            self._catch_up(reader)
        if self.stored:
            self.samples.append(SlotSample(confirmed, self.stored))

    def _catch_up(self, reader: Consumer) -> bool:
        """Read on to the last committed record; False when that cannot be said."""
        _, end = reader.get_watermark_offsets(self._place, timeout=2)
        deadline = time.monotonic() + 2
        while self._reached < end and time.monotonic() < deadline:
            for message in reader.consume(1000, 0.1):
                failed = message.error()
                if failed is None:
                    stored = stored_position(message, self._source)
                    self.stored = max(self.stored, stored.confirmed if stored else 0)
                    self._reached = (message.offset() or 0) + 1
                elif failed.code() == KafkaError._PARTITION_EOF:
                    self._reached = max(self._reached, message.offset() or 0)
        return self._reached >= end


class CutSampler(Sampler):
    """Cursors and accounts of a target in one snapshot, over and over."""

    def __init__(self, url: str, sink: str, topic: str) -> None:
        super().__init__(f"cuts-{sink}")
        self._url, self._sink, self._topic = url, sink, topic
        self.samples: list[CutSample] = []

    def watch(self) -> None:
        with psycopg.connect(self._url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            while not self.is_over:
                self._look(connection)

    def _look(self, connection: psycopg.Connection) -> None:
        try:
            with connection.transaction():
                cursors = connection.execute(CURSORS, (self._sink, self._topic)).fetchall()
                accounts = connection.execute(ACCOUNTS).fetchall()
        except psycopg.errors.UndefinedTable:  # before the sink's first start
            return
        state = {key: (int(version), int(balance)) for key, version, balance in accounts}
        sample = CutSample(dict(cursors), state)
        if not self.samples or self.samples[-1] != sample:
            self.samples.append(sample)
