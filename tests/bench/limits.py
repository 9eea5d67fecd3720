"""What the servers alone can do: the same rows, and a client that does nothing with them."""

from __future__ import annotations

import time

import psycopg
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from psycopg import pq

from bench.measure import DEADLINE_S, Measured
from bench.scene import INSERT, NOTE
from cdc.connections.postgres import Login, connect_replication
from cdc.kafka import KafkaConfig, consumer_client

MERGE_ROWS = 50_000
COLUMNS = (
    "customer_id", "status", "amount", "currency", "note", "paid", "created_at", "updated_at",
    "attrs",
)  # fmt: skip


def walsender(url: str, slot: str, rows: int) -> Measured:
    """The log through pgoutput, as one connection of the server delivers it."""
    connection = connect_replication(Login(url, "bench"))
    try:
        options = "proto_version '4', publication_names 'p'"
        started = connection.exec_(
            f"START_REPLICATION SLOT {slot} LOGICAL 0/0 ({options})".encode()
        )
        assert started.status == pq.ExecStatus.COPY_BOTH, started.error_message
        count, began = 0, 0.0
        while count < rows:
            size, message = connection.get_copy_data(0)
            assert size > 0, connection.error_message
            # XLogData is 'w', three 8-byte numbers, then the message; 'I' is an insert.
            if message[0] == 0x77 and message[25] == 0x49:
                count += 1
                began = began or time.monotonic()
        return Measured("stream", "limit", count, time.monotonic() - began)
    finally:
        connection.finish()


def copy_out(url: str) -> Measured:
    """The table through one COPY TO STDOUT."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        began, rows = time.monotonic(), 0
        with cursor.copy("copy orders to stdout") as copy:
            for block in copy:
                rows += bytes(block).count(b"\n")
        return Measured("snapshot", "limit", rows, time.monotonic() - began)


def merge(url: str, rows: int) -> Measured:
    """The server's own upsert of staged rows into an empty table, 50,000 at a time."""
    taken = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS)
    seconds = 0.0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create temp table staged (like orders)")
        stage = INSERT.replace("insert into orders", "insert into staged")
        for first in range(1, rows + 1, MERGE_ROWS):
            last = min(first + MERGE_ROWS - 1, rows)
            connection.execute("truncate staged")
            connection.execute(stage.format(first=first, last=last, note=NOTE))
            began = time.monotonic()
            connection.execute(
                f"insert into orders select * from staged on conflict (id) do update set {taken}"
            )
            seconds += time.monotonic() - began
    return Measured("sink", "limit", rows, seconds)


def consume(kafka: KafkaConfig, topic: str, rows: int) -> Measured:
    """The topic through one consumer, 10,000 records at a time."""
    consumer = consumer_client(kafka, enable_partition_eof=False)
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    count, began = 0, 0.0
    deadline = time.monotonic() + DEADLINE_S
    try:
        while count < rows:
            assert time.monotonic() < deadline, f"{count} of {rows} records of {topic}"
            count += len(consumer.consume(10_000, 0.2))
            began = began or time.monotonic()
        return Measured("sink", "consume", count, time.monotonic() - began)
    finally:
        consumer.close()
