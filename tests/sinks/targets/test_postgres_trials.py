"""Which rows of a large step are refused is found where they lie, for any reason there is."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from cdc.connector import Context
from schemas.change import ABSENT
from schemas.table import Column, TableId, TableSchema, Type
from sinks.postgres import trials
from sinks.target import Mapped, RowsRefused, Step
from sinks.targets.postgres import Config, PostgresTarget, create

LINES = TableSchema(
    TableId("public", "lines"),
    (Column("id", Type("int64")), Column("item", Type("int32")), Column("note", Type("string"))),
    ("id",),
)
FOREIGN = ("item int REFERENCES items, note text",)
UNIQUE = ("item int, note text UNIQUE", "INSERT INTO lines VALUES (-1, 1, 'bad')")
TRIGGER = (
    "item int, note text",
    """CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
       IF NEW.note = 'bad' THEN RAISE 'no such note'; END IF; RETURN NEW; END $$""",
    "CREATE TRIGGER no BEFORE INSERT OR UPDATE ON lines FOR EACH ROW EXECUTE FUNCTION no()",
)
NAMED = ('item int REFERENCES items, note text, tailrace_row int, places int, "line" int',)


@pytest.fixture
def target(pg_database: str) -> Iterator[PostgresTarget]:
    config = Config.model_validate({"url": pg_database, "tables": ["shop.*"]})
    opened = create(Context("shop", "mirror"), config)
    yield opened
    opened.close()


def made(url: str, target: PostgresTarget, table: tuple[str, ...]) -> None:
    columns, *more = table
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY)")
        connection.execute("INSERT INTO items SELECT generate_series(1, 9)")
        for statement in (f"CREATE TABLE lines (id bigint PRIMARY KEY, {columns})", *more):
            connection.execute(statement.encode())
    target.open()
    target.prepare(LINES)


def rows(first: int, last: int, bad: set[int], *, created: bool = False) -> Step:
    lines = [
        b"%d\t%d\t%s" % (n, *((404, b"bad") if n in bad else (n % 9 + 1, b"note %d" % n)))
        for n in range(first, last)
    ]
    return [Mapped(LINES, [], [], lines=lines, created=len(lines) if created else 0)]


def named(error: Exception) -> set[int]:
    assert isinstance(error, RowsRefused)
    return {int(key[0]) for _, key in error.rows}  # type: ignore[arg-type]


@pytest.mark.parametrize("created", [False, True], ids=["changed", "new"])
@pytest.mark.parametrize(
    ("table", "word"),
    [
        (FOREIGN, "foreign key"),
        (UNIQUE, "unique"),
        (TRIGGER, "no such note"),
        (NAMED, "foreign key"),
    ],
    ids=["foreign key", "unique", "trigger", "names of ours"],
)
def test_the_refused_rows_of_a_step_are_named(
    pg_database: str, target: PostgresTarget, table: tuple[str, ...], word: str, *, created: bool
) -> None:
    made(pg_database, target, table)
    bad = {0, 17, 18, 300, 999}
    refused = target.rehearse([[rows(0, 1000, bad, created=created)]])
    assert list(refused) == [0]
    assert named(refused[0]) == bad
    assert all(word in why for why in refused[0].rows.values())  # type: ignore[attr-defined]


def test_they_are_the_right_ones_however_often_rows_were_staged_and_taken_back(
    pg_database: str, target: PostgresTarget
) -> None:
    made(pg_database, target, FOREIGN)
    for first in range(0, 30_000, 10_000):
        bad = set(range(first + 50, first + 10_000, 100))
        small = [rows(n, n + 50, bad) for n in range(first, first + 10_000, 50)]
        assert len(target.rehearse([small])) == 100
        refused = target.rehearse([[rows(first, first + 10_000, bad)]])
        assert named(refused[0]) == bad


def test_values_that_fit_no_column_are_named_as_ever(
    pg_database: str, target: PostgresTarget
) -> None:
    made(pg_database, target, FOREIGN)
    step = rows(0, 99, {7})
    step[0].lines = [*step[0].lines[:50], b"50\tno number\t", *step[0].lines[51:]]
    assert named(target.rehearse([[step]])[0]) == {50}


def test_rows_taken_before_count_and_those_of_a_trial_do_not(
    pg_database: str, target: PostgresTarget
) -> None:
    made(pg_database, target, UNIQUE)
    first = rows(0, 100, set())
    again = rows(100, 200, set())
    again[0].lines = [*again[0].lines[:-1], b"199\t1\tnote 7"]
    refused = target.rehearse([[first, again, rows(100, 200, set()), rows(200, 300, {200})]])
    assert {n: named(error) for n, error in refused.items()} == {1: {199}, 3: {200}}


@pytest.mark.parametrize(
    "step",
    [
        [Mapped(LINES, [], [(b"1",)], lines=rows(0, 99, {7})[0].lines)],
        [Mapped(LINES, [(b"7", b"404", ABSENT)], [], lines=rows(9, 99, set())[0].lines)],
        rows(0, trials.WORTH_IT - 1, {7}),
    ],
    ids=["with a delete", "of some columns", "few"],
)
def test_other_steps_are_not_tried(pg_database: str, target: PostgresTarget, step: Step) -> None:
    made(pg_database, target, FOREIGN)
    [error] = target.rehearse([[step]]).values()
    assert not isinstance(error, RowsRefused)


@pytest.mark.parametrize("make", ["SELECT 1 / 0", "DO 'BEGIN END'"], ids=["refused", "not made"])
def test_without_the_function_the_step_is_refused_as_a_whole(
    pg_database: str, target: PostgresTarget, monkeypatch: pytest.MonkeyPatch, make: str
) -> None:
    monkeypatch.setattr(trials, "_MAKE", make)
    made(pg_database, target, FOREIGN)
    refused = target.rehearse([[rows(0, 99, {7}), rows(100, 199, set())]])
    assert list(refused) == [0]
    assert not isinstance(refused[0], RowsRefused)
    assert '"lines_item_fkey"' in str(refused[0])
