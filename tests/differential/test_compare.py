"""The comparison without Debezium: what counts as equal, and that a difference is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from differential.compare import NORMALISED, Comparison
from differential.events import UNAVAILABLE, Event, Row
from differential.render import ours, theirs

README = Path(__file__).parents[2] / "README.md"


def compared(mine: Row | None, other: Row | None, **changed: object) -> Comparison:
    key: Row = {"id": "1"}
    comparison = Comparison()
    one = Event("u", key, None, mine, 7)
    comparison.table("plain", [one], [one._replace(after=other)._replace(**changed)])
    return comparison


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("id", "7", 7),
        ("flag", "t", True),
        ("note", "a b", "a b"),
        ("price", "1.10", "1.10"),
        ("day", "2000-02-29", 11016),
        ("day", "1582-10-10", -141432),
        ("at", "1969-12-31 23:59:59.999999", -1),
        ("at", "2024-01-01 00:00:00.1", 1_704_067_200_100_000),
        ("atz", "2024-03-30 20:45:00+00", "2024-03-30T20:45:00Z"),
        ("clock", "24:00:00", 86_400_000_000),
        ("clock", "12:00:00.1", 43_200_100_000),
        ("span", "1 year -2 mons +3 days -04:05:06.789", "P0Y10M3DT-4H-5M-6.789S"),
        ("raw", "\\x00ff", "00ff"),
        ("words", '{"",NULL,"NULL","a,b",c}', ["", None, "NULL", "a,b", "c"]),
        ("ratio", "1e+23", 1e23),
    ],
)
def test_two_spellings_of_one_value_are_equal(column: str, text: str, value: object) -> None:
    assert ours(column, text) == theirs(column, value)


def test_an_absent_value_is_one_that_debezium_does_not_have_either() -> None:
    assert compared({"id": "1"}, {"id": 1, "body": UNAVAILABLE}).unequal == 0
    assert compared({"id": "1"}, {"id": 1, "body": "x"}).unequal == 1


def test_another_value_is_a_difference() -> None:
    found = compared({"id": "1", "note": "a"}, {"id": 1, "note": "b"})
    assert found.different == ["plain event 0 (u in 7): after.note 'a' is not 'b'"]


@pytest.mark.parametrize("changed", [{"op": "c"}, {"txid": 8}, {"key": {"id": "2"}}])
def test_another_place_in_the_log_is_a_difference(changed: dict[str, object]) -> None:
    assert compared({"id": "1"}, {"id": 1}, **changed).unequal == 1


def test_an_event_of_one_side_alone_is_a_difference() -> None:
    comparison = Comparison()
    comparison.table("plain", [], [Event("d", None, None, None, 1)])
    assert comparison.different == ["plain: 0 events of ours, 1 of theirs"]


def test_the_readme_says_why_for_every_normalisation() -> None:
    listed = set(re.findall(r"^\| `([a-z ]+)` \|", README.read_text("utf-8"), re.MULTILINE))
    assert set(NORMALISED) <= listed
