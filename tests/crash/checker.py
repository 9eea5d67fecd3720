"""Black-box checks after a storm: source journal, topics, target audit, target rows.

The checker knows nothing of the workers. It reads the journal the source's triggers wrote, every
committed record with a consumer of its own, the audit the target's triggers wrote, and both
databases' rows; each broken invariant is one sentence with an example.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import fastavro
import psycopg
from confluent_kafka import Message

from crash.workload import BANK, TABLES
from schemas.avro import raw_schema
from schemas.registry import Registry
from schemas.wire import schema_id

Event = tuple[str, str, int | None, str]
"""(table, key, version, op); a delete has no version."""


def journal(source: str) -> list[Event]:
    with psycopg.connect(source) as connection:
        query = "select relation, key, version, op from journal.entries order by id"
        return connection.execute(query).fetchall()


class TopicReader:
    """Turns records into events, through the registry, with fastavro alone."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._schemas: dict[int, Any] = {}

    def events(self, messages: Iterable[Message]) -> Iterator[Event]:
        for message in messages:
            payload = message.value()
            if payload is not None:
                yield self._event(payload)

    def _event(self, payload: bytes) -> Event:
        number = schema_id(payload)
        if number not in self._schemas:
            self._schemas[number] = fastavro.parse_schema(raw_schema(self._registry.get(number)))
        record: Any = fastavro.schemaless_reader(io.BytesIO(payload[5:]), self._schemas[number])
        table, op = record["source"]["table"], record["op"]
        if op == "d":
            return table, str(record["before"]["id"]), None, "d"
        return table, str(record["after"]["id"]), record["after"]["version"], op


def examples(found: Counter[Event]) -> str:
    return f"{found.total()} ({', '.join(map(str, list(found)[:3]))})"


def check_topics(written: list[Event], read: list[Event]) -> Iterator[str]:
    """No loss, no invention, no duplicate, order per key."""
    expected = Counter(written)
    seen = Counter(("c" if op == "r" else op, *rest) for *rest, op in read)
    seen = Counter({(t, k, v, op): n for (op, t, k, v), n in seen.items()})
    if lost := expected - seen:
        yield f"lost events: {examples(lost)}"
    if extra := seen - expected:
        yield f"duplicated or invented events: {examples(extra)}"
    newest: dict[tuple[str, str], int] = {}
    for table, key, version, op in read:
        if op == "d" or version is None:
            newest.pop((table, key), None)
            continue
        if version <= newest.get((table, key), -1):
            yield f"out of order: {table} {key} version {version}"
        newest[table, key] = version


def check_target(source: str, target: str) -> Iterator[str]:
    """Rows equal; no effect twice; no effect older than the one before it."""
    for table in TABLES:
        ours, theirs = (_rows(url, table) for url in (source, target))
        if missing := ours - theirs:
            yield f"{table}: {len(missing)} rows missing or different, {next(iter(missing))[:120]}"
        if extra := theirs - ours:
            yield f"{table}: {len(extra)} rows only in the target, {next(iter(extra))[:120]}"
    with psycopg.connect(target) as connection:
        twice = connection.execute(
            "select relation, key, version, count(*) from audit.effects where op <> 'd'"
            " group by 1, 2, 3 having count(*) > 1 limit 5"
        ).fetchall()
        if twice:
            yield f"applied twice: {twice}"
        older = connection.execute(
            "select relation, key, version from (select *, lag(version) over"
            " (partition by relation, key order by id) as before from audit.effects) e"
            " where version < before limit 5"
        ).fetchall()
        if older:
            yield f"an older version applied over a newer one: {older}"


def _rows(url: str, table: str) -> set[str]:
    with psycopg.connect(url, options="-c timezone=UTC") as connection:
        columns = connection.execute(
            "select string_agg(quote_ident(attname), ', ' order by attname) from pg_attribute"
            " where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            (table,),
        ).fetchone()
        assert columns is not None
        query = f"select (row({columns[0]}))::text from {table}"
        return {row[0] for row in connection.execute(query)}


def check_sum(readings: list[int]) -> Iterator[str]:
    """A reader of the target never saw part of a transfer (R12)."""
    wrong = [reading for reading in readings if reading not in {0, BANK}]
    if wrong:
        yield f"the bank's sum was {wrong[:3]} in {len(wrong)} of {len(readings)} reads"
    if BANK not in readings:
        yield "the bank's sum was never read whole"
