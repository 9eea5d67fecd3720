"""What the dead-letter topic tells when it is read in order, and who waits for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import Message

from cdc.cli.letters import Filter, key_text
from cdc.connector import Context
from cdc.errors import ConfigError, DataError, Stop
from cdc.kafka import KafkaConfig
from fix_pipeline import ITEMS
from schemas.change import Stamp
from sinks.deadletter import DeadLetters
from sinks.decode import DELETE, POISON, UPSERT, Event
from sinks.letters import Ledger, Letter, Record, original, record_of
from sinks.replay import batches, held_back

KAFKA = KafkaConfig.model_validate({"bootstrap": "nowhere:1", "registry": "http://nowhere:1"})


def in_topic(offset: int, headers: dict[str, object], key: bytes | None = None) -> Message:
    given = [(f"cdc.{name}", str(value).encode()) for name, value in headers.items()]
    return Message(topic="p.dead", partition=0, offset=offset, key=key, value=b"v", headers=given)


def letter(offset: int, of: int, sink: str = "crm", timestamp: int = 5) -> Message:
    place = {"topic": "db.items", "partition": 0, "offset": of, "timestamp": timestamp}
    return in_topic(offset, {"sink": sink, **place, "at": 1000 + offset}, key=b"k")


def mark(offset: int, of: int, outcome: str = "replayed", sink: str = "crm") -> Message:
    return in_topic(offset, {"sink": sink, "letter": of, "outcome": outcome})


def told(*messages: Message) -> Ledger:
    ledger = Ledger("crm")
    for message in messages:
        ledger.take(message)
    return ledger


def offsets(letters: Sequence[Letter]) -> list[int]:
    return [one.offset for one in letters]


def test_a_record_that_was_written_twice_is_one_letter_until_it_is_resolved() -> None:
    assert offsets(told(letter(0, 7), letter(1, 7), letter(2, 8)).open()) == [0, 2]
    resolved = told(letter(0, 7), letter(1, 7), mark(2, 0))
    assert resolved.open() == []
    assert resolved.outcomes == {0: "replayed"}


def test_a_record_that_is_refused_again_after_its_replay_is_a_new_letter() -> None:
    assert offsets(told(letter(0, 7), mark(1, 0), letter(2, 7)).open()) == [2]


def test_the_same_place_in_a_topic_made_anew_is_another_letter() -> None:
    assert offsets(told(letter(0, 7), letter(1, 7, timestamp=6)).open()) == [0, 1]


def test_the_first_mark_counts_and_those_of_other_sinks_do_not() -> None:
    others = told(letter(0, 7), mark(1, 0, sink="mirror"), letter(2, 9, sink="mirror"))
    assert offsets(others.open()) == [0]
    assert told(letter(0, 7), mark(1, 0, "dropped"), mark(2, 0)).outcomes == {0: "dropped"}


def test_what_is_no_letter_of_ours_is_passed_over() -> None:
    odd = [in_topic(0, {}), in_topic(1, {"sink": "crm", "offset": "x"}), mark(2, 99)]
    assert offsets(told(*odd, letter(3, 1)).open()) == [3]


def test_the_original_is_the_record_as_it_was_read() -> None:
    headers = [("mine", b"kept"), ("cdc.sink", b"crm")]
    stored = Message(topic="p.dead", partition=0, offset=4, key=b"k", value=b"v", headers=headers)
    record = Record("db.items", 2, 7, 5)
    found = original(stored, record)
    assert record_of(found) == record
    assert (found.key(), found.value(), found.headers()) == (b"k", b"v", [("mine", b"kept")])


def known(offset: int, of: int, key: bytes | None = b"k", **more: Any) -> Letter:
    return Letter(offset, "crm", Record("db.items", 0, of, 5), key, **more)


def test_a_letter_waits_for_an_earlier_one_of_its_key_that_was_not_chosen() -> None:
    first, second, other, keyless = known(0, 1), known(1, 2), known(2, 3, b"x"), known(3, 4, None)
    letters = [first, second, other, keyless]
    assert held_back(letters, letters) == []
    [held] = held_back(letters, [second, other, keyless])
    assert (held.letter, held.state) == (second, "held")
    assert "letter 0" in held.reason


def test_the_letters_of_a_key_are_never_parted() -> None:
    hot = [known(n, n) for n in range(150)]
    rest = [known(n, n, b"%d" % n) for n in range(150, 400)]
    cut = list(batches([*hot, *rest]))
    assert [len(batch) for batch in cut] == [200, 200]
    assert cut[0][:150] == hot
    assert [len(batch) for batch in batches(known(n, n) for n in range(300))] == [300]


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (Filter(), [0, 1]),
        (Filter(topic="db.other"), []),
        (Filter(table="public.i*"), [0, 1]),
        (Filter(reason="DataError: *too long*"), [1]),
        (Filter(since="1970-01-01T00:00:02"), [1]),
        (Filter(until="1970-01-01T00:00:02+00:00"), [0]),
        (Filter(key="7"), [0]),
        (Filter(limit=1), [0]),
    ],
    ids=str,
)
def test_filters_choose(chosen: Filter, found: list[int]) -> None:
    said = {"table": "public.items", "error": "DataError"}
    letters = [
        known(0, 1, reason="no row", at_ms=1000, **said),
        known(1, 2, reason="value too long", at_ms=2000, **said),
    ]
    assert offsets(chosen.choose(letters, lambda one: {"id": 7 + one.offset})) == found


def test_a_time_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="--since yesterday"):
        Filter(since="yesterday").choose([], lambda _: None)


def test_a_key_of_several_columns_is_written_as_json() -> None:
    assert key_text({"a": 1, "b": "x"}) == '{"a":1,"b":"x"}'
    assert key_text({"a": "x"}) == "x"


def event(offset: int, key: bytes | None, kind: int = UPSERT, ordinal: int = 0) -> Event:
    message = Message(topic="db.items", partition=0, offset=offset, key=key, value=b"v")
    stamp = Stamp(1, 10, ordinal)
    return Event(kind, ITEMS, stamp, snapshot=False, message=message, error=DataError("no"))


def test_with_block_key_what_follows_a_bad_record_of_its_key_waits_behind_it() -> None:
    letters = DeadLetters(KAFKA, Context("p", "crm"), "block_key")
    events = [
        event(0, b"a", ordinal=0),
        event(1, b"b", POISON, ordinal=1),
        event(2, b"a", ordinal=2),
        event(3, b"b", ordinal=3),
        event(4, None, ordinal=4),
    ]
    assert letters.aside(events, [events[1]]) == [events[1], events[3]]
    assert "waits behind" in str(events[3].error)
    plain = DeadLetters(KAFKA, Context("p", "crm"))
    assert plain.aside(events, [events[1]]) == [events[1]]


def test_with_block_key_a_key_change_waits_as_a_whole() -> None:
    letters = DeadLetters(KAFKA, Context("p", "crm"), "block_key")
    old, new = event(1, b"a", DELETE, ordinal=1), event(3, b"z", ordinal=1)
    events = [event(0, b"a", POISON), old, new, event(4, b"z", ordinal=2), event(5, b"y")]
    assert letters.aside(events, [events[0]]) == events[:4]


def test_with_block_key_a_key_change_that_debezium_wrote_waits_as_a_whole() -> None:
    letters = DeadLetters(KAFKA, Context("p", "crm"), "block_key")
    events = [event(0, b"a", POISON), event(1, b"a", DELETE), event(3, b"z"), event(4, b"y")]
    for one in events:
        one.stamp = None
    events[1].place = events[2].place = (7,)
    assert letters.aside(events, [events[0]]) == events[:3]


def test_with_stop_nothing_is_written_and_the_record_is_named() -> None:
    letters = DeadLetters(KAFKA, Context("p", "crm"), "stop")
    with pytest.raises(Stop, match=r"db.items\[0\] at offset 3") as caught:
        letters.sift([event(2, b"a"), event(3, b"b", POISON)])
    assert "on_poison: dead_letter" in caught.value.hint
