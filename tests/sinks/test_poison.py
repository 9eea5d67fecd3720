"""A record the target can never take goes to the dead letters; everything else goes on."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest

from cdc.kafka import producer_client
from cdc.publish import Publisher
from fix_pipeline import ITEMS, Pipeline, wait_until
from fix_sink import Sink, as_they_are, changes, commit, delete, insert, piece, update
from schemas.change import ABSENT, Change, Op
from schemas.table import Column, TableId, TableSchema, Type
from sinks.postgres import refused
from sinks.targets.postgres import PostgresTarget

MakeSink = Callable[..., Sink]
ALL = "SELECT id, name FROM public.items ORDER BY id"
LINES = TableSchema(
    TableId("public", "a_lines"),  # sorts before items: foreign keys decide, not names
    (Column("id", Type("int64")), Column("item", Type("int64"))),
    ("id",),
)


def run_sql(sink: Sink, *statements: str) -> None:
    with psycopg.connect(sink.url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def headers_of(letter: object) -> dict[str, str]:
    return {name: value.decode() for name, value in letter.headers()}  # type: ignore[attr-defined]


def test_a_row_that_does_not_fit_is_isolated_with_its_original_bytes(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    sink = make_sink(tables=as_they_are(pipeline))
    run_sql(sink, "CREATE TABLE items (id bigint PRIMARY KEY, name varchar(8))")
    rows = [insert(b"%d" % n, b"x" * 20 if n in (7, 70) else b"fits") for n in range(100)]
    commit(publisher, piece(1, changes(1, *rows)))
    sink.start()
    sink.wait_for("SELECT count(*) FROM items", [(98,)])
    assert sink.query("SELECT id FROM items WHERE id IN (7, 70)") == []
    letters = pipeline.read(f"{pipeline.name}.dead")
    originals = pipeline.read(pipeline.topic())
    assert [letter.value() for letter in letters] == [originals[7].value(), originals[70].value()]
    assert letters[0].key() == originals[7].key()
    facts = headers_of(letters[0])
    assert facts["cdc.topic"] == pipeline.topic()
    assert facts["cdc.offset"] == "7"
    assert facts["cdc.error"] == "DataError"
    assert "too long" in facts["cdc.reason"]
    commit(publisher, piece(2, changes(2, insert(b"500", b"later"))))
    sink.wait_for("SELECT count(*) FROM items", [(99,)])
    assert len(pipeline.read(f"{pipeline.name}.dead")) == 2
    assert sum(batch.dead for batch in sink.told.batches) == 2


def test_rows_whose_values_do_not_fit_are_named_by_the_server_and_not_searched_for(
    pipeline: Pipeline,
    publisher: Publisher,
    make_sink: MakeSink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[object] = []
    monkeypatch.setattr(PostgresTarget, "rehearse", lambda *_: searched.append(1) or {})
    notes = TableSchema(TableId("public", "notes"), ITEMS.columns)
    sink = make_sink(tables=as_they_are(pipeline))
    run_sql(
        sink,
        "CREATE TABLE items (id smallint PRIMARY KEY, name varchar(8))",
        "CREATE TABLE notes (id bigint, name varchar(8))",
    )
    rows = [
        insert(b"1", b"fits"),
        update(b"1", b'c9 "12" too long'),
        insert(b"2", b"fits"),
        insert(b"70000", b"fits"),
        delete(b"80000", None),
    ]
    kept = [insert(b"1", b"a\tb"), insert(b"1", b"two\nlines and more"), insert(b"1", None)]
    commit(
        publisher,
        piece(1, changes(1, *rows), changes(1, *kept, schema=notes, first=len(rows))),
    )
    sink.start().wait_for(ALL, [(1, "fits"), (2, "fits")])
    assert sink.query("SELECT name FROM notes ORDER BY name") == [("a\tb",), (None,)]
    letters = [headers_of(letter) for letter in pipeline.read(f"{pipeline.name}.dead")]
    found = {letter["cdc.offset"] + letter["cdc.table"]: letter["cdc.reason"] for letter in letters}
    assert sorted(found) == ["1public.items", "1public.notes", "3public.items", "4public.items"]
    assert found["1public.items"].splitlines() == [
        "the target refuses a row: value too long for type character varying(8)",
        "name: 'c9 \"12\" too long'",
    ]
    assert "out of range for type smallint" in found["3public.items"]
    assert not searched


@pytest.mark.parametrize("misread", [r"\bc(?=(\d+))(\d+)", r"(?=(\d+))(\d+)", r"(never)"])
def test_a_notice_that_is_misread_blames_no_other_row(
    pipeline: Pipeline,
    publisher: Publisher,
    make_sink: MakeSink,
    monkeypatch: pytest.MonkeyPatch,
    misread: str,
) -> None:
    monkeypatch.setattr(refused, "_PLACE", re.compile(misread))
    sink = make_sink(tables=as_they_are(pipeline))
    run_sql(sink, "CREATE TABLE items (id bigint PRIMARY KEY, name varchar(8))")
    rows = [insert(b"1", b"fits"), insert(b"2", b"much too long"), insert(b"3", b"fits")]
    commit(publisher, piece(1, changes(1, *rows)))
    sink.start().wait_for(ALL, [(1, "fits"), (3, "fits")])
    [letter] = pipeline.read(f"{pipeline.name}.dead")
    assert headers_of(letter)["cdc.offset"] == "1"


def test_a_value_that_an_older_change_of_the_row_brought_is_searched_for(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    wide = TableSchema(
        ITEMS.table, (*ITEMS.columns, Column("price", Type("decimal", "", 12, 2))), ("id",)
    )
    sink = make_sink(tables=as_they_are(pipeline))
    run_sql(sink, "CREATE TABLE items (id bigint PRIMARY KEY, name varchar(8), price numeric)")
    rows = [insert(b"1", b"fits", b"1.00"), update(b"1", b"much too long", b"1.00")]
    rows += [update(b"1", ABSENT, b"2.00")]
    commit(publisher, piece(1, changes(1, *rows, schema=wide)))
    sink.start().wait_for("SELECT name, price::text FROM items", [("fits", "2.00")])
    [letter] = pipeline.read(f"{pipeline.name}.dead")
    assert headers_of(letter)["cdc.offset"] == "1"


@pytest.mark.parametrize("many", [2, 300], ids=["merged", "copied"])
def test_rows_that_break_what_is_asked_of_each_are_not_searched_for(
    pipeline: Pipeline,
    publisher: Publisher,
    make_sink: MakeSink,
    monkeypatch: pytest.MonkeyPatch,
    many: int,
) -> None:
    searched: list[object] = []
    monkeypatch.setattr(PostgresTarget, "rehearse", lambda *_: searched.append(1) or {})
    sink = make_sink(tables=as_they_are(pipeline))
    run_sql(sink, "CREATE TABLE items (id bigint PRIMARY KEY, name text CHECK (name <> 'bad'))")
    sink.start()
    for cut in (1, 2):
        first = cut * 1000
        rows = [insert(b"%d" % n, b"good") for n in range(first, first + many)]
        bad = [insert(b"%d" % (first + 500 + n), b"bad") for n in range(3)]
        # The newest change of a key is to blame; what was before it holds.
        more = [insert(b"%d" % (first + 600), b"was"), update(b"%d" % (first + 600), b"bad")]
        commit(publisher, piece(2 * cut, changes(2 * cut, *rows, *bad)))
        sink.wait_for("SELECT max(id) FROM items", [(first + many - 1,)])
        commit(publisher, piece(2 * cut + 1, changes(2 * cut + 1, *more)))
        sink.wait_for(f"SELECT name FROM items WHERE id = {first + 600}", [("was",)])
    assert sink.query("SELECT count(*) FROM items") == [(2 * many + 2,)]
    letters = [headers_of(letter) for letter in pipeline.read(f"{pipeline.name}.dead")]
    said = """it violates check constraint "items_name_check": (name <> 'bad'::text)"""
    reasons = [letter["cdc.reason"] for letter in letters]
    assert reasons == 8 * [f"the target refuses a row: {said}"]
    wait_until(lambda: sum(batch.dead for batch in sink.told.batches) == 8, "all are counted")
    assert not searched


def test_what_waits_behind_a_refused_row_is_not_applied_with_the_others(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    sink = make_sink(tables=as_they_are(pipeline))
    sink.on_poison = "block_key"
    run_sql(sink, "CREATE TABLE items (id bigint PRIMARY KEY, name text CHECK (name <> 'bad'))")
    rows = [insert(b"1", b"bad"), insert(b"2", b"good"), delete(b"1", None), insert(b"3", b"good")]
    commit(publisher, piece(1, changes(1, insert(b"9", b"bad"), insert(b"8", b"good"))))
    sink.start().wait_for(ALL, [(8, "good")])
    commit(publisher, piece(2, changes(2, *rows, update(b"9", b"good"))))
    sink.wait_for("SELECT id FROM items ORDER BY id", [(2,), (3,), (8,)])
    letters = [headers_of(letter) for letter in pipeline.read(f"{pipeline.name}.dead")]
    assert [letter["cdc.offset"] for letter in letters] == ["0", "8"]


def test_a_record_that_is_no_envelope_is_isolated(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    commit(publisher, piece(1, changes(1, insert(b"1", b"one"))))
    producer = producer_client(pipeline.kafka)
    producer.produce(pipeline.topic(), b"garbage", b"key", headers={"mine": b"kept"})
    producer.produce(pipeline.topic(), b"\x00\x00\x0f\xff\xffunknown schema")
    producer.flush(10)
    commit(publisher, piece(2, changes(2, insert(b"2", b"two"))))
    sink = make_sink().start()
    sink.wait_for(ALL, [(1, "one"), (2, "two")])
    letters = pipeline.read(f"{pipeline.name}.dead")
    assert [letter.value() for letter in letters] == [
        b"garbage",
        b"\x00\x00\x0f\xff\xffunknown schema",
    ]
    assert headers_of(letters[0])["mine"] == "kept"


def test_a_partial_update_without_its_row_is_isolated(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    sink = make_sink().start()
    commit(publisher, piece(1, changes(1, insert(b"1", b"one"))))
    sink.wait_for(ALL, [(1, "one")])
    run_sql(sink, "INSERT INTO items VALUES (2, 'kept')")
    commit(publisher, piece(2, changes(2, update(b"2", ABSENT), update(b"9", ABSENT))))
    commit(publisher, piece(3, changes(3, insert(b"3", b"three"))))
    sink.wait_for(ALL, [(1, "one"), (2, "kept"), (3, "three")])
    [letter] = pipeline.read(f"{pipeline.name}.dead")
    assert "find no row" in headers_of(letter)["cdc.reason"]


def test_a_unique_value_is_handed_over_inside_a_transaction(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    sink = make_sink()
    run_sql(sink, "CREATE TABLE items (id bigint PRIMARY KEY, name text UNIQUE)")
    commit(publisher, piece(1, changes(1, insert(b"1", b"x"), insert(b"2", b"z"))))
    sink.start()
    sink.wait_for(ALL, [(1, "x"), (2, "z")])
    commit(publisher, piece(2, changes(2, update(b"1", b"y"), update(b"2", b"x"))))
    sink.wait_for(ALL, [(1, "y"), (2, "x")])
    swap = [update(b"1", b"free"), update(b"2", b"y"), update(b"1", b"x")]
    commit(publisher, piece(3, changes(3, *swap)))
    sink.wait_for(ALL, [(1, "x"), (2, "y")])
    gone = [delete(b"1", None), insert(b"3", b"x"), delete(b"3", None), insert(b"4", b"x")]
    commit(publisher, piece(4, changes(4, *gone)))
    sink.wait_for(ALL, [(2, "y"), (4, "x")])


def test_foreign_keys_hold_inside_a_transaction_in_every_direction(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    sink = make_sink()
    run_sql(
        sink,
        "CREATE TABLE items (id bigint PRIMARY KEY, name text)",
        "CREATE TABLE a_lines (id bigint PRIMARY KEY, item bigint REFERENCES items)",
    )
    lines = "SELECT id, item FROM a_lines ORDER BY id"
    one = changes(1, insert(b"1", b"one"), insert(b"2", b"two"))
    two = changes(1, insert(b"10", b"1"), insert(b"20", b"2"), schema=LINES, first=2)
    commit(publisher, piece(1, one, two))
    sink.start()
    sink.wait_for(lines, [(10, 1), (20, 2)])
    # The line moves to a new parent, then its old one goes: deletes first would not do.
    moved = [
        changes(2, insert(b"3", b"three")),
        changes(2, update(b"10", b"3"), schema=LINES, first=1),
        changes(2, delete(b"1", None), first=2),
        changes(2, delete(b"20", None), schema=LINES, first=3),
        changes(2, delete(b"2", None), first=4),
    ]
    commit(publisher, piece(2, *moved))
    sink.wait_for(lines, [(10, 3)])
    sink.wait_for(ALL, [(3, "three")])


def test_a_violation_that_stays_is_isolated(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    sink = make_sink()
    run_sql(
        sink,
        "CREATE TABLE items (id bigint PRIMARY KEY, name text)",
        "CREATE TABLE a_lines (id bigint PRIMARY KEY, item bigint REFERENCES items)",
    )
    lines = [insert(b"10", b"1"), insert(b"11", b"404"), insert(b"12", b"1")]
    commit(
        publisher,
        piece(1, changes(1, insert(b"1", b"one")), changes(1, *lines, schema=LINES, first=1)),
    )
    sink.start()
    sink.wait_for("SELECT id FROM a_lines ORDER BY id", [(10,), (12,)])
    [letter] = pipeline.read(f"{pipeline.name}.dead")
    assert "foreign key" in headers_of(letter)["cdc.reason"]


def test_rows_that_break_a_foreign_key_are_found_in_two_rehearsals(
    pipeline: Pipeline,
    publisher: Publisher,
    make_sink: MakeSink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[object] = []
    rehearse = PostgresTarget.rehearse
    monkeypatch.setattr(PostgresTarget, "rehearse", lambda *of: searched.append(1) or rehearse(*of))
    sink = make_sink()
    run_sql(
        sink,
        "CREATE TABLE items (id bigint PRIMARY KEY, name text)",
        "INSERT INTO items VALUES (1, 'one')",
        "CREATE TABLE a_lines (id bigint PRIMARY KEY, item bigint REFERENCES items)",
    )
    bad = {3, 4, 77, 250}
    lines = [insert(b"%d" % n, b"404" if n in bad else b"1") for n in range(300)]
    commit(publisher, piece(1, changes(1, *lines, schema=LINES)))
    sink.start()
    good = [(n,) for n in range(300) if n not in bad]
    sink.wait_for("SELECT id FROM a_lines ORDER BY id", good)
    letters = [headers_of(letter) for letter in pipeline.read(f"{pipeline.name}.dead")]
    assert {int(letter["cdc.offset"]) for letter in letters} == bad
    assert all("foreign key" in letter["cdc.reason"] for letter in letters)
    assert len(searched) == 2


DEFERRED = """
CREATE TABLE items (id bigint PRIMARY KEY, name text);
CREATE TABLE a_lines (
    id bigint PRIMARY KEY,
    item bigint CONSTRAINT has_item REFERENCES items DEFERRABLE INITIALLY DEFERRED)
"""


def owing(publisher: Publisher) -> None:
    """Publish lines before their item, and one whose item never comes."""
    lines = [insert(b"10", b"1"), insert(b"11", b"404"), insert(b"12", b"1")]
    item = changes(1, insert(b"1", b"one"), first=3)
    commit(publisher, piece(1, changes(1, *lines, schema=LINES), item))


def test_who_breaks_a_deferred_constraint_is_isolated(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    sink = make_sink()
    run_sql(sink, DEFERRED)
    owing(publisher)
    sink.start()
    sink.wait_for("SELECT id FROM a_lines ORDER BY id", [(10,), (12,)])
    [letter] = pipeline.read(f"{pipeline.name}.dead")
    facts = headers_of(letter)
    assert (facts["cdc.table"], facts["cdc.offset"]) == ("public.a_lines", "1")
    assert '"has_item"' in facts["cdc.reason"]


def test_who_breaks_a_deferred_constraint_is_named_where_the_sink_stops(
    publisher: Publisher, make_sink: MakeSink
) -> None:
    sink = make_sink()
    sink.on_poison = "stop"
    run_sql(sink, DEFERRED)
    owing(publisher)
    stopped = str(sink.start().wait_to_fail())
    assert "a_lines[0] at offset 1" in stopped
    assert '"has_item"' in stopped


def test_a_keyless_table_follows_inserts_updates_and_deletes(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    notes = TableSchema(TableId("public", "notes"), ITEMS.columns)
    first = [insert(b"1", b"a"), insert(b"1", b"a"), insert(b"2", None)]
    commit(publisher, piece(1, changes(1, *first, schema=notes)))
    sink = make_sink().start()
    rows = "SELECT id, name FROM notes ORDER BY id, name"
    sink.wait_for(rows, [(1, "a"), (1, "a"), (2, None)])
    second = [
        delete(b"1", b"a"),
        Change(Op.UPDATE, (b"2", None), (b"2", b"b")),
        insert(b"3", b"c"),
        delete(b"3", b"c"),
    ]
    commit(publisher, piece(2, changes(2, *second, schema=notes)))
    sink.wait_for(rows, [(1, "a"), (2, "b")])
    wait_until(lambda: sink.told.rows == 7, "every record is counted once")
