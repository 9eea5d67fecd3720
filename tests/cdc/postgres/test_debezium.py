"""A slot that Debezium read is gone on with where its offset says, after no matter which row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
import pytest

from cdc.errors import CdcError, ConfigError, GapError, PreflightFailed, StateError
from cdc.postgres.debezium import read_offset
from cdc.sources.postgres import take_over
from fix_capture import Capture, Event

Db = psycopg.Connection[Any]

SLOT, PUBLICATION = "debezium", "dbz_publication"
WORKLOAD = """
INSERT INTO item SELECT n, 'first' FROM generate_series(1, 3) n;
BEGIN;
INSERT INTO item VALUES (10, 'x');
SAVEPOINT s;
INSERT INTO item VALUES (11, 'never');
ROLLBACK TO s;
INSERT INTO unseen VALUES (1);
UPDATE item SET id = 20 WHERE id = 1;
DELETE FROM item WHERE id = 2;
COMMIT;
INSERT INTO unseen VALUES (2);
BEGIN;
TRUNCATE item, other;
INSERT INTO item VALUES (30, 'y');
COMMIT;
INSERT INTO other VALUES (2);
"""
INSERTED = {"messageType": "INSERT", "txId": 7}
PEEK = """
SELECT (lsn - '0/0')::bigint, data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,
    'proto_version', '1', 'publication_names', %s)
"""


class Written(NamedTuple):
    """An event Debezium wrote: the place of its record in the log, and its offset."""

    place: int
    offset: bytes


@pytest.fixture
def debezium(db: Db) -> Db:
    """What a connector leaves: tables, its publication, its slot."""
    for table in ("item (id int PRIMARY KEY, name text)", "other (id int)", "unseen (id int)"):
        db.execute(f"CREATE TABLE {table}".encode())
    db.execute("ALTER TABLE other REPLICA IDENTITY FULL; ALTER TABLE unseen REPLICA IDENTITY FULL")
    db.execute(f"CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES".encode())
    db.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (SLOT,))
    return db


@contextmanager
def successor(url: str, slot: str = SLOT) -> Iterator[Capture]:
    """A source on the slot, which reads what Debezium was told to."""
    tables = ["public.item", "public.other"]
    with Capture(
        url, tables=tables, slot=slot, publication=PUBLICATION, snapshot="never"
    ) as capture:
        yield capture


def begin(capture: Capture, offset: bytes) -> None:
    capture.position = take_over(capture.context(), capture.config(), offset)


def written(db: Db) -> list[Written]:
    """Read the slot as Debezium does, and note each event of a table it captures.

    `lsn_commit` is the end of the last transaction that was read whole, `lsn_proc` and `lsn` the
    place of the event's record (as a live 3.6 stored them).
    """
    wanted = {
        row[0] for row in db.execute("SELECT 'item'::regclass::oid UNION SELECT 'other'::regclass")
    }
    found, done = [], 0
    for place, data in db.execute(PEEK, (SLOT, PUBLICATION)).fetchall():
        kind = data[:1]
        offset = {"lsn": place, "lsn_proc": place, "lsn_commit": done or None, **INSERTED}
        if kind == b"C":
            done = place
        elif kind == b"T":
            found += [Written(place, stored(offset))] * int.from_bytes(data[1:5], "big")
        elif kind in b"IUD" and int.from_bytes(data[1:5], "big") in wanted:
            found.append(Written(place, stored(offset)))
    return found


def stored(offset: dict[str, Any]) -> bytes:
    """As Connect's REST interface tells it."""
    known = {name: value for name, value in offset.items() if value is not None}
    one = {"partition": {"server": "shop"}, "offset": known}
    return json.dumps({"offsets": [one]}).encode()


def told(events: list[Event]) -> list[tuple[Any, ...]]:
    return [(e.table, e.op, e.before, e.after) for e in events]


def followers(db: Db, url: str, offset: bytes) -> list[tuple[Any, ...]]:
    """Take over a copy of the slot, and return every event that comes."""
    db.execute("SELECT pg_copy_logical_replication_slot(%s, 'again')", (SLOT,))
    try:
        with successor(url, "again") as capture:
            begin(capture, offset)
            capture.until_caught_up(db)
            return told(capture.events)
    finally:
        db.execute(
            "SELECT pg_terminate_backend(active_pid, 5000), pg_sleep(0) FROM pg_replication_slots "
            "WHERE slot_name = 'again' AND active"
        )
        db.execute("SELECT pg_drop_replication_slot('again')")


def test_what_follows_the_last_row_debezium_wrote_comes_next_whichever_that_was(
    debezium: Db, pg_database: str
) -> None:
    for statement in WORKLOAD.strip().splitlines():
        debezium.execute(statement.encode())
    events = written(debezium)
    snapshot = {"lsn": events[0].place, "snapshot": "INITIAL", "snapshot_completed": True}
    everything = followers(debezium, pg_database, stored(snapshot))
    assert len(everything) == len(events) == 10
    places = [event.place for event in events]
    for number, event in enumerate(events):
        first = number + 1 if places.count(event.place) == 1 else places.index(event.place)
        assert followers(debezium, pg_database, event.offset) == everything[first:], number


def test_rows_of_a_copy_come_again_together(debezium: Db, pg_database: str) -> None:
    debezium.execute("INSERT INTO item VALUES (0, 'before')")
    with debezium.cursor().copy("COPY item FROM STDIN") as copy:
        copy.write("".join(f"{number}\tcopied\n" for number in range(1, 40)))
    events = written(debezium)
    assert len({event.place for event in events}) < len(events)
    found = followers(debezium, pg_database, events[20].offset)
    assert [row[3][0] for row in found] == [b"%d" % number for number in range(1, 40)]


def test_a_heartbeat_behind_a_commit_leaves_nothing_to_repeat(
    debezium: Db, pg_database: str
) -> None:
    debezium.execute("INSERT INTO item VALUES (1, 'a')")
    row = debezium.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
    assert row is not None
    debezium.execute("INSERT INTO item VALUES (2, 'b')")
    beat = {"lsn": row[0], "lsn_proc": row[0], "lsn_commit": row[0], "messageType": "COMMIT"}
    assert [event[3] for event in followers(debezium, pg_database, stored(beat))] == [(b"2", b"b")]


def test_without_a_type_of_message_a_row_that_may_be_a_commit_comes_again(
    debezium: Db, pg_database: str
) -> None:
    debezium.execute("INSERT INTO item VALUES (1, 'a')")
    debezium.execute("INSERT INTO item VALUES (2, 'b')")
    place = written(debezium)[1].place
    known = stored({"lsn": place, "lsn_proc": place, "lsn_commit": place, **INSERTED})
    assert followers(debezium, pg_database, known) == []
    unknown = stored({"lsn": place, "lsn_proc": place, "lsn_commit": place})
    found = followers(debezium, pg_database, unknown)
    assert [event[3] for event in found] == [(b"2", b"b")]


def test_the_slot_is_consumed_only_when_kafka_has_what_follows(
    debezium: Db, pg_database: str
) -> None:
    debezium.execute("INSERT INTO item SELECT n, 'x' FROM generate_series(1, 2000) n")
    before = debezium.execute("SELECT confirmed_flush_lsn FROM pg_replication_slots").fetchall()
    with successor(pg_database) as capture:
        begin(capture, written(debezium)[1500].offset)
        after = debezium.execute("SELECT confirmed_flush_lsn FROM pg_replication_slots").fetchall()
        assert after == before
        capture.until_caught_up(debezium)
        assert len(capture.events) == 499


def test_a_connector_that_still_reads_is_named(debezium: Db, pg_database: str) -> None:
    with successor(pg_database) as reader, successor(pg_database) as capture:
        reader.until_streaming()
        with pytest.raises(StateError, match="is being read by pid"):
            begin(capture, stored({"lsn": 1 << 60}))


def test_a_slot_that_was_read_further_than_the_offset_is_refused(
    debezium: Db, pg_database: str
) -> None:
    debezium.execute("INSERT INTO item VALUES (1, 'a')")
    debezium.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", (SLOT,))
    with successor(pg_database) as capture, pytest.raises(GapError, match="the offset says"):
        begin(capture, stored({"lsn": 100, "lsn_proc": 100, "lsn_commit": 100}))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"slot": "gone"}, PreflightFailed, "no slot gone"),
        ({"slot": ""}, ConfigError, "must name those of Debezium"),
        ({"publication": ""}, ConfigError, "must name those of Debezium"),
    ],
)
def test_what_cannot_be_taken_over_is_named(
    options: dict[str, str], error: type[CdcError], match: str, debezium: Db, pg_database: str
) -> None:
    with successor(pg_database) as capture:
        capture.options |= options
        with pytest.raises(error, match=match):
            begin(capture, stored({"lsn": 1 << 60}))
    assert debezium.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (1,)


# What is stored


def test_an_offset_is_read_from_the_rest_interface_the_topic_and_the_file() -> None:
    value = b'{"lsn_proc":42,"messageType":"INSERT","lsn_commit":40,"lsn":42,"txId":7}'
    java = b"\xac\xed\x00\x05sr\x00\x11java.util.HashMap\x00["
    file = java + b'["shop",{"server":"shop"}]uq\x00~\x00\x02\x00\x00\x00h' + value + b"x"
    for stored_ in (stored(json.loads(value)), value, file):
        found = read_offset(stored_)
        assert (found.lsn, found.lsn_proc, found.lsn_commit) == (42, 42, 40)


@pytest.mark.parametrize(
    "offset",
    [
        {"lsn": 1, "snapshot": "INITIAL", "snapshot_completed": False},
        {"lsn": 1, "snapshot": True, "last_snapshot_record": False},
        {"lsn": 1, "lsn_commit": 1, "incremental_snapshot_collections": "public.item"},
    ],
)
def test_an_offset_in_the_middle_of_a_snapshot_is_refused(offset: dict[str, Any]) -> None:
    with pytest.raises(StateError, match="in the middle of a snapshot"):
        read_offset(stored(offset))


@pytest.mark.parametrize("text", [b"", b"{}", b'{"offsets": []}', b'{"lsn": "x"}', b"[1]"])
def test_what_is_no_offset_is_named(text: bytes) -> None:
    with pytest.raises(ConfigError, match="Debezium PostgreSQL connector"):
        read_offset(text)
