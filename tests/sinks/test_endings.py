"""What becomes of deletes: a mark in the row, or a row of their own in a journal of all changes."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Message
from pydantic import ValidationError

from cdc.errors import ConfigError
from mapped import ORDERS, TOPIC, payloads, reader, through
from schemas.change import ABSENT, Change, Op
from schemas.table import TableSchema
from sinks.binding import MappedTable
from sinks.collapse import collapse
from sinks.decode import POISON, SKIP, TRUNCATE, UPSERT, Event
from sinks.journal import FACTS
from sinks.mapping import TableMap

SOFT = {"soft_delete": "gone_at"}
AT = b"2023-11-14 22:13:20+00"
CREATE = Change(Op.CREATE, None, (b"1", b"a", b"2.00"))
UPDATE = Change(Op.UPDATE, None, (b"1", b"b", ABSENT))
DELETE = Change(Op.DELETE, (b"1", ABSENT, ABSENT), None)


def test_a_soft_delete_marks_the_row_and_leaves_the_rest_of_it() -> None:
    [event] = through(ORDERS, DELETE, SOFT)
    assert (event.kind, event.key) == (UPSERT, (b"1",))
    assert event.row == [b"1", ABSENT, ABSENT, AT]


def test_a_row_that_is_there_again_has_no_mark() -> None:
    [event] = through(ORDERS, CREATE, SOFT)
    assert event.row == [b"1", b"a", b"2.00", None]


def test_a_row_made_and_deleted_in_one_transaction_is_written_whole_with_its_mark() -> None:
    events = [*through(ORDERS, CREATE, SOFT), *through(ORDERS, DELETE, SOFT)]
    [[mapped]] = collapse(events)
    assert mapped.upserts == [[b"1", b"a", b"2.00", AT]]
    assert mapped.deletes == []


def test_a_truncation_still_empties_a_table_with_marks() -> None:
    [event] = through(ORDERS, Change(Op.TRUNCATE), SOFT)
    assert event.kind == TRUNCATE


def journaled(*changes: Change, mode: str = "append", **options: Any) -> list[Event]:
    """The events of a topic's records, from offset 0 on."""
    decoder = reader(ORDERS, {"mode": mode, **options})
    values = [value for change in changes for value in payloads(ORDERS, change)]
    return [
        decoder.read(Message(topic=TOPIC, partition=2, offset=at, value=value), value)
        for at, value in enumerate(values)
    ]


def test_a_journal_has_a_row_for_each_change_and_says_what_it_was() -> None:
    events = journaled(CREATE, UPDATE, DELETE, Change(Op.TRUNCATE))
    place = [TOPIC.encode(), b"2"]
    assert [event.row for event in events] == [
        [b"1", b"a", b"2.00", b"c", AT, None, *place, b"0"],
        [b"1", b"b", None, b"u", AT, b"amount", *place, b"1"],
        [b"1", None, None, b"d", AT, b"note,amount", *place, b"2"],
        [None, None, None, b"t", AT, None, *place, b"3"],
    ]
    assert {event.kind for event in events} == {UPSERT}
    assert events[1].key == (*place, b"1")
    [[mapped]] = collapse(events)
    assert len(mapped.upserts) == 4


def test_a_journal_is_keyed_by_record_and_everything_else_may_be_null() -> None:
    schema = reader(ORDERS, {"mode": "append"}).schema
    assert schema.key == ("cdc_topic", "cdc_partition", "cdc_offset")
    assert schema.columns[-len(FACTS) :] == FACTS
    assert [c.name for c in schema.columns if not c.nullable] == list(schema.key)
    bound = MappedTable.bind(ORDERS, TOPIC, TableMap.model_validate({"mode": "append"}))
    assert bound.keeps_apart(ORDERS)


def test_a_journal_takes_a_table_without_a_key_and_a_key_that_is_mapped_away() -> None:
    keyless = TableSchema(ORDERS.table, ORDERS.columns)
    assert reader(keyless, {"mode": "append"}).schema.key
    mapping = {"mode": "append", "fields": {"text": "note"}}
    assert reader(ORDERS, mapping).schema.columns[0].name == "text"


def test_a_journal_leaves_out_what_is_not_in_the_filter_and_judges_rows() -> None:
    events = journaled(CREATE, UPDATE, DELETE, where="note == 'a'")
    assert [event.kind for event in events] == [UPSERT, SKIP, UPSERT]
    events = journaled(CREATE, UPDATE, rules=[{"field": "note", "enum": ["b"]}])
    assert [event.kind for event in events] == [POISON, UPSERT]


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "append", "key": ["id"]},
        {"mode": "append", "soft_delete": "gone_at"},
        {"soft_delete": "gone_at", "where": "id > 1"},
        {"mode": "history", "key": ["note"]},
        {"mode": "history", "where": "id > 1"},
    ],
)
def test_what_does_not_go_together_is_refused_where_it_stands(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TableMap.model_validate(options)


def test_a_mark_needs_a_key_and_a_name_of_its_own() -> None:
    keyless = TableSchema(ORDERS.table, ORDERS.columns)
    with pytest.raises(ConfigError, match="a table without a key has no row that could be kept"):
        reader(keyless, SOFT)
    with pytest.raises(ConfigError, match="two columns would be called note"):
        reader(ORDERS, {"soft_delete": "note"})


NOW = b"9223372036854775807"


def steps(*changes: Change) -> Any:
    """What a history's target does for changes of one transaction."""
    [[mapped]] = collapse(journaled(*changes, mode="history"))
    return mapped.upserts, mapped.deletes, list(mapped.moves)


def test_a_history_begins_a_version_and_ends_the_one_before_it() -> None:
    assert steps(CREATE) == ([[b"1", b"a", b"2.00", AT, None, NOW]], [], [])
    ended = [b"1", ABSENT, ABSENT, ABSENT, AT, b"0"]
    begun = [b"1", b"b", ABSENT, AT, None, NOW]
    assert steps(UPDATE) == ([begun], [], [((b"1", NOW), ended)])
    assert steps(DELETE) == ([], [(b"1", NOW)], [((b"1", NOW), ended)])


def test_versions_of_one_transaction_are_all_kept() -> None:
    upserts, deletes, moves = steps(CREATE, UPDATE, UPDATE, DELETE, CREATE)
    assert (deletes, moves) == ([], [])
    assert sorted(upserts, key=lambda row: int(row[-1])) == [
        [b"1", b"a", b"2.00", AT, AT, b"1"],
        [b"1", b"b", b"2.00", AT, AT, b"2"],
        [b"1", b"b", b"2.00", AT, AT, b"3"],
        [b"1", b"a", b"2.00", AT, None, NOW],
    ]
    upserts, deletes, moves = steps(UPDATE, DELETE)
    assert (upserts, deletes) == ([], [(b"1", NOW)])
    assert [(old, row[-1]) for old, row in moves] == [((b"1", NOW), b"0"), ((b"1", NOW), b"1")]


def test_a_key_change_ends_one_history_and_begins_another() -> None:
    change = Change(Op.UPDATE, (b"1", b"a", b"2.00"), (b"2", b"a", b"2.00"))
    upserts, deletes, moves = steps(change)
    assert upserts == [[b"2", b"a", b"2.00", AT, None, NOW]]
    assert deletes == [(b"1", NOW)]
    assert [(old, row[-1]) for old, row in moves] == [((b"1", NOW), b"0")]


def test_a_truncation_never_empties_a_history() -> None:
    [event] = journaled(Change(Op.TRUNCATE), mode="history")
    assert event.kind == POISON
    assert "would empty the history" in str(event.error)


def test_a_history_needs_a_key() -> None:
    keyless = TableSchema(ORDERS.table, ORDERS.columns)
    with pytest.raises(ConfigError, match="no row that could be kept"):
        reader(keyless, {"mode": "history"})
