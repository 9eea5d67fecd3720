"""What PostgreSQL asks only at the end of a transaction: a rehearsal names who breaks it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from cdc.connector import Context
from schemas.table import Column, TableId, TableSchema, Type
from sinks.target import Mapped, Step
from sinks.targets.postgres import Config, PostgresTarget, create
from sinks.testing import span

PEOPLE = TableSchema(
    TableId("public", "people"),
    (
        Column("id", Type("int64")),
        Column("boss", Type("int64")),
        Column("desk", Type("int64")),
        Column("hours", Type("text", "postgres int8range")),
    ),
    ("id",),
)
MADE = """
CREATE TABLE people (
    id bigint PRIMARY KEY,
    boss bigint CONSTRAINT has_boss REFERENCES people DEFERRABLE INITIALLY DEFERRED,
    desk bigint CONSTRAINT own_desk UNIQUE DEFERRABLE INITIALLY DEFERRED,
    hours int8range,
    CONSTRAINT own_hours EXCLUDE USING gist (hours WITH &&) DEFERRABLE INITIALLY DEFERRED)
"""
THERE = "INSERT INTO people VALUES (100, NULL, 1, '[1,9)'), (101, NULL, 2, NULL)"


def put(i: int, boss: int | None = None, desk: int | None = None, hours: str = "") -> Step:
    cells = [None if cell is None else str(cell).encode() for cell in (i, boss, desk)]
    return [Mapped(PEOPLE, [(*cells, hours.encode() or None)], [])]


def gone(i: int) -> Step:
    return [Mapped(PEOPLE, [], [(str(i).encode(),)])]


BAD = put(9, boss=404)


@pytest.fixture
def target(pg_database: str) -> Iterator[PostgresTarget]:
    with psycopg.connect(pg_database, autocommit=True) as connection:
        connection.execute(MADE)
        connection.execute(THERE)
    config = Config.model_validate({"url": pg_database, "tables": ["shop.*"]})
    opened = create(Context("shop", "mirror"), config)
    opened.open()
    opened.prepare(PEOPLE)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("constraint", "bad"),
    [
        ("has_boss", BAD),
        ("has_boss", gone(100)),
        ("own_desk", put(9, desk=1)),
        ("own_hours", put(9, hours="[8,12)")),
    ],
    ids=["a missing row", "a row that is pointed to", "a unique value", "an exclusion"],
)
def test_who_breaks_a_deferred_constraint_is_named_with_it(
    target: PostgresTarget, constraint: str, bad: Step
) -> None:
    refused = target.rehearse([[put(1, boss=100), bad, put(3)]])
    assert list(refused) == [1]
    assert constraint in str(refused[1])


@pytest.mark.parametrize(
    "rows",
    [
        [put(1, boss=2), put(2)],
        [put(1, boss=2), put(2, boss=3), put(3)],
        [put(1, boss=2), put(2, boss=3), put(3, boss=1)],
        [put(100, desk=2), put(101, desk=1)],
        [put(1, boss=2), gone(1)],
    ],
    ids=["a line before its order", "three in a row", "a circle", "a swap", "not for long"],
)
def test_rows_that_only_hold_with_later_ones_of_their_transaction_are_not_blamed(
    target: PostgresTarget, rows: list[Step]
) -> None:
    assert target.rehearse([rows]) == {}
    for place in range(len(rows) + 1):
        beside = [*rows[:place], BAD, *rows[place:]]
        assert list(target.rehearse([beside])) == [place]


def test_what_later_transactions_do_is_no_fault_of_an_earlier_one(target: PostgresTarget) -> None:
    steps = [[put(1, boss=2), put(2)], [gone(1), gone(2)], [put(3, boss=2), BAD, put(4)]]
    assert list(target.rehearse(steps)) == [4, 5]


def test_what_is_left_after_a_rehearsal_is_applied(target: PostgresTarget) -> None:
    steps = [put(1, boss=2), put(7, desk=1), BAD, put(2), put(8, boss=9)]
    refused = target.rehearse([steps])
    assert list(refused) == [1, 2, 4]
    target.apply([s for n, s in enumerate(steps) if n not in refused], [span(None, 1)])
    assert target.rehearse([[put(3, boss=1)]]) == {}
