"""What a table asks of each row by itself is asked of a whole batch, and names who breaks it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import psycopg
import pytest

from cdc.errors import DataError
from demanding import SHORT, TABLE, Place, Rows, lines
from schemas.table import Column, TableSchema, Type
from sinks.postgres import demands, straight
from sinks.target import Mapped, RowsRefused
from sinks.testing import span


@pytest.fixture
def place(pg_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(straight, "_FEW", 3)
    found = Place(pg_database)
    yield found
    found.close()


@pytest.fixture(params=["change", "create"])
def write(request: pytest.FixtureRequest, place: Place) -> Callable[[Rows], None]:
    """Both ways into the table: merged out of staging, and copied as new rows."""
    return place.change if request.param == "change" else place.create


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each COPY into the table did not write."""
    found: list[int] = []
    copy = straight.Straight.copy

    def counted(self: straight.Straight, *arguments: Any) -> Sequence[bytes]:
        left = copy(self, *arguments)
        found.append(len(left))
        return left

    monkeypatch.setattr(straight.Straight, "copy", counted)
    return found


def test_the_rows_that_break_something_are_left_out_and_named(
    place: Place, write: Callable[[Rows], None]
) -> None:
    asked = "note text NOT NULL CONSTRAINT short CHECK (length(note) <= 5), n int CHECK (n <> 7)"
    place.make(f"CREATE TABLE t (id bigint PRIMARY KEY, {asked})")
    write({1: "fits", 2: "much too long", 3: None, 7: "fits", 8: "also"})
    assert place.rows == {1: "fits", 8: "also"}
    assert place.aside == {
        2: 'it violates check constraint "short": (length(note) <= 5)',
        3: 'null value in column "note" violates its not-null constraint',
        7: 'it violates check constraint "t_n_check": (n <> 7)',
    }
    write({11: "fits", 12: "much too long", 13: "1", 14: "2"})
    assert place.rows == {1: "fits", 8: "also", 11: "fits", 13: "1", 14: "2"}
    assert 12 in place.aside


def test_new_rows_beside_broken_ones_are_still_copied(place: Place, copies: list[int]) -> None:
    place.make(SHORT)
    for first in (0, 10, 20):
        place.create({first + 1: "fits", first + 2: "much too long", first + 3: "fits"})
    assert place.rows == dict.fromkeys([1, 3, 11, 13, 21, 23], "fits")
    assert sorted(place.aside) == [2, 12, 22]
    assert copies == [3, 1, 1, 1], "the first one fails: nothing was expected of these rows"


def test_a_role_that_hears_no_notices_loses_nothing(pg_database: str, place: Place) -> None:
    place.make(SHORT)
    place.connection.execute("ALTER ROLE CURRENT_USER SET client_min_messages = error")
    try:
        place.target.open()
        place.target.prepare(TABLE)
        for first in (0, 10):
            place.create({first + 1: "fits", first + 2: "much too long", first + 3: "fits"})
    finally:
        place.connection.execute("ALTER ROLE CURRENT_USER RESET client_min_messages")
    assert (sorted(place.rows), sorted(place.aside)) == ([1, 3, 11, 13], [2, 12])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_TELLS", "SELECT 1 / 0"),
        ("_TELLING", "something else"),
        ("_NUMBER", re.compile("never")),
        ("_NUMBER", re.compile(r"(?=\d)")),
    ],
    ids=["no function", "not heard", "no line", "no number"],
)
def test_where_a_copy_cannot_tell_all_rows_are_staged(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(demands, name, value)
    place.make(SHORT)
    for first in (0, 10):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(straight, "_PAUSE", 1)
            place.create({first + 1: "fits", first + 2: "much too long", first + 3: "fits"})
    assert (sorted(place.rows), sorted(place.aside)) == ([1, 3, 11, 13], [2, 12])


def test_a_line_that_was_misheard_blames_no_other_row_and_loses_none(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.make(SHORT)
    place.create({1: "fits", 2: "much too long", 3: "fits"})
    said = re.compile(r"\d")
    monkeypatch.setattr(demands, "_NUMBER", said)  # of line 12 it hears 1
    rows: Rows = {n: "much too long" if n == 22 else "fits" for n in range(11, 24)}
    with pytest.raises(DataError, match=r"refuses rows of public\.t"):
        place.create(rows)
    assert (sorted(place.rows), sorted(place.aside)) == ([1, 3], [2])


def test_nothing_is_written_when_a_row_cannot_be_put_aside(place: Place) -> None:
    place.make(SHORT)

    def refuse(rows: Mapping[Any, str]) -> None:
        raise RowsRefused(rows)

    for created in (0, 3):
        steps = [[Mapped(TABLE, [], [], lines=lines({1: "a", 2: "too long", 3: "c"}))]]
        steps[0][0].created = created
        with pytest.raises(RowsRefused):
            place.target.apply_others(steps, [span(None, 1)], refuse)
    assert place.rows == {}


def test_a_row_that_a_trigger_repairs_is_not_blamed(
    place: Place, write: Callable[[Rows], None]
) -> None:
    place.make(
        SHORT,
        """CREATE FUNCTION shorten() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN NEW.note := left(NEW.note, 5); RETURN NEW; END $$""",
    )
    write({1: "fits", 2: "much too long", 3: "fits"})
    assert sorted(place.aside) == [2]
    place.connection.execute(
        "CREATE TRIGGER a BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION shorten()"
    )
    write({4: "fits", 5: "much too long", 6: "fits"})
    assert (place.rows[5], sorted(place.aside)) == ("much ", [2])


def test_a_partition_s_own_trigger_counts_as_well(place: Place) -> None:
    place.make(
        f"{SHORT} PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t DEFAULT",
        """CREATE FUNCTION shorten() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN NEW.note := left(NEW.note, 5); RETURN NEW; END $$""",
    )
    place.create({1: "fits", 2: "much too long", 3: "fits"})
    place.connection.execute(
        "CREATE TRIGGER a BEFORE INSERT OR UPDATE ON t1 FOR EACH ROW EXECUTE FUNCTION shorten()"
    )
    place.create({4: "fits", 5: "much too long", 6: "fits"})
    assert (place.rows[5], sorted(place.aside)) == ("much ", [2])


def test_a_constraint_that_is_gone_blames_no_row(
    place: Place, write: Callable[[Rows], None]
) -> None:
    place.make(SHORT)
    write({1: "fits", 2: "much too long", 3: "fits"})
    place.connection.execute("ALTER TABLE t DROP CONSTRAINT t_note_check")
    write({4: "fits", 5: "much too long", 6: "fits"})
    assert (place.rows[5], sorted(place.aside)) == ("much too long", [2])


def test_a_column_that_may_be_null_now_blames_no_row(
    place: Place, write: Callable[[Rows], None]
) -> None:
    place.make("CREATE TABLE t (id bigint PRIMARY KEY, note text NOT NULL, n int)")
    write({1: "fits", 2: None, 3: "fits"})
    place.connection.execute("ALTER TABLE t ALTER note DROP NOT NULL")
    write({4: "fits", 5: None, 6: "fits"})
    assert (place.rows[5], sorted(place.aside)) == (None, [2])
    place.connection.execute("ALTER TABLE t ADD CHECK (n <> 8), ALTER n SET NOT NULL")
    write({7: "fits", 8: "fits", 9: "fits"})
    assert sorted(place.aside) == [2, 8]


def test_a_check_that_looks_at_other_rows_is_left_to_the_statement(place: Place) -> None:
    place.make(
        "CREATE TABLE accounts (id bigint PRIMARY KEY)",
        """CREATE FUNCTION known(n int) RETURNS boolean LANGUAGE sql AS
           'SELECT EXISTS (SELECT FROM accounts WHERE id = n)'""",
        """CREATE TABLE t (id bigint PRIMARY KEY, note text CHECK (note <> 'bad'), n int,
               CONSTRAINT is_known CHECK (n = 0 OR known(n)))""",
    )
    place.write([[Mapped(TABLE, [], [], lines=[b"1\tfits\t0", b"2\tbad\t0"])]])
    place.connection.execute("INSERT INTO accounts VALUES (7)")
    place.write([[Mapped(TABLE, [], [], lines=[b"3\tfits\t7", b"4\tbad\t7"])]])
    assert (sorted(place.rows), sorted(place.aside)) == ([1, 3], [2, 4])
    with pytest.raises(DataError, match="is_known"):
        place.write([[Mapped(TABLE, [], [], lines=[b"5\tfits\t8"])]])


def test_a_composite_of_nulls_is_not_null(place: Place, write: Callable[[Rows], None]) -> None:
    place.make(
        "CREATE TYPE pair AS (a int, b int)",
        "CREATE TABLE t (id bigint PRIMARY KEY, note pair NOT NULL, n int)",
    )
    write({1: "(1,2)", 2: None, 3: "(,)"})
    write({4: "(1,2)", 5: None, 6: "(,)"})
    rows = place.connection.execute("SELECT id FROM t ORDER BY id").fetchall()
    assert (rows, sorted(place.aside)) == ([(1,), (3,), (4,), (6,)], [2, 5])


def test_an_expression_the_role_may_not_call_says_nothing(place: Place) -> None:
    place.make(SHORT)
    place.change({1: "fits", 2: "much too long"})
    query = demands.Demands._query

    def refused(self: demands.Demands, found: Any) -> Any:
        return query(self, found) + psycopg.sql.SQL(", nowhere()")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demands.Demands, "_query", refused)
        with pytest.raises(DataError, match="t_note_check"):
            place.change({3: "fits", 4: "much too long"})
    place.change({3: "fits", 4: "much too long"})
    assert (sorted(place.rows), sorted(place.aside)) == ([1, 3], [2, 4])


def test_text_is_compared_as_the_column_does(place: Place, write: Callable[[Rows], None]) -> None:
    place.make(
        """CREATE COLLATION loose
               (provider = icu, locale = 'und-u-ks-level2', deterministic = false)""",
        """CREATE TABLE t (id bigint PRIMARY KEY, n int CHECK (n <> 3),
               note text COLLATE loose CHECK (note = 'fits'))""",
    )
    write({1: "fits", 2: "FITS", 3: "fits", 4: "other"})
    assert (sorted(place.rows), sorted(place.aside)) == ([1, 2], [3, 4])


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ("note short, n int", "short_check"),
        ("note text, n int, m int GENERATED ALWAYS AS (n * 2) STORED CHECK (m <> 4)", "t_m_check"),
        ("note text, n int, CHECK (t IS DISTINCT FROM ROW(2::bigint, 'bad', 2)::t)", "t_check"),
        ("note text CHECK (note <> 'bad'), n int, m int NOT NULL DEFAULT 1", ""),
        ("n int, note text CHECK (1 / (2 - length(note)) IS NOT NULL)", "division by zero"),
    ],
    ids=["a domain", "a generated column", "a whole row", "a column of its own", "an error"],
)
def test_what_cannot_be_asked_before_is_left_to_the_statement(
    place: Place, write: Callable[[Rows], None], table: str, word: str
) -> None:
    place.make(
        "CREATE DOMAIN short AS text CHECK (length(VALUE) <> 3)",
        f"CREATE TABLE t (id bigint PRIMARY KEY, {table})",
    )
    rows: Rows = {1: "1", 2: "22" if "zero" in word else "bad", 3: "3"}
    if not word:
        write(rows)
        assert (sorted(place.rows), sorted(place.aside)) == ([1, 3], [2])
        return
    with pytest.raises(DataError, match=word):
        write(rows)
    assert (place.rows, place.aside) == ({}, {})


def test_columns_may_have_any_name(place: Place) -> None:
    names = ["line_0", "place_0", "kind_0", "100 %s", "ctid2"]
    columns = ", ".join(f'"{name}" int' for name in names)
    place.make(
        f"CREATE TABLE t (id bigint PRIMARY KEY, note text, n int, {columns})",
        'ALTER TABLE t ADD CHECK (line_0 + place_0 + kind_0 + "100 %s" < 9)',
    )
    schema = TableSchema(
        TABLE.table, (*TABLE.columns, *(Column(name, Type("int32")) for name in names)), ("id",)
    )
    place.target.prepare(schema)
    more = ["1\t1\t1\t1\t1", "9\t1\t1\t1\t1", "1\t1\t1\t1\t1"]
    rows = [f"{n}\tx\t1\t{cells}".encode() for n, cells in enumerate(more)]
    for created in (0, 3):
        place.write([[Mapped(schema, [], [], lines=rows, created=created)]])
        assert (sorted(place.rows), sorted(place.aside)) == ([0, 2], [1])
        place.connection.execute("TRUNCATE t")


def test_deletes_and_other_kinds_are_not_judged(place: Place) -> None:
    place.make(SHORT)
    place.change({1: "fits", 2: "much too long"})
    gone = Mapped(TABLE, [(b"4", b"four", None)], [(b"1",)], lines=lines({5: "much too long"}))
    place.write([[gone]])
    assert (place.rows, sorted(place.aside)) == ({4: "four"}, [2, 5])


def test_when_nothing_breaks_for_a_while_rows_are_judged_no_more(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demands, "_BATCHES", 3)
    judged: list[int] = []
    broken = demands.Demands.broken

    def counted(self: demands.Demands, connection: Any, rows: int) -> Mapping[int, str]:
        judged.append(rows)
        return broken(self, connection, rows)

    monkeypatch.setattr(demands.Demands, "broken", counted)
    place.make(SHORT)
    place.change({1: "fits", 2: "much too long"})
    for n in range(3, 9):
        place.change({n: "fits"})
    assert judged == [2, 1, 1]
    place.change({9: "much too long", 10: "fits"})
    assert (judged[3:], sorted(place.aside)) == ([2], [2, 9])


def test_rows_are_told_apart_wherever_staging_puts_them(place: Place) -> None:
    """A row that is narrow goes into a page that was too full for a wide one before it."""
    place.make("CREATE TABLE t (id bigint PRIMARY KEY, note text, n int CHECK (n % 50 <> 7))")
    place.change({1: "fits", 7: "fits"})
    chance = random.Random(7)  # noqa: S311
    for first in (1000, 3000):
        rows: Rows = {n: "x" * chance.randint(20, 1900) for n in range(first, first + 2000)}
        place.change(rows)
    bad = {7, *(n for n in range(1000, 5000) if n % 50 == 7)}
    assert set(place.aside) == bad
    assert set(place.rows) == {1, *range(1000, 5000)} - bad
