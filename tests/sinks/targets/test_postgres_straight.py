"""Rows the source has just made are copied into the table itself, and only where that is right."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.connector import Context
from cdc.errors import DataError, TargetUnavailable
from fix_pipeline import wait_until
from schemas.table import Column, TableId, TableSchema, Type
from sinks.postgres import rivals, straight
from sinks.target import CursorMoved, Mapped, RowsRefused, Step
from sinks.targets import postgres
from sinks.targets.postgres import Config, PostgresTarget, create
from sinks.testing import span

FEW = 3
TABLE = TableSchema(
    TableId("public", "t"),
    (Column("id", Type("int64")), Column("day", Type("date")), Column("note", Type("string"))),
    ("id",),
)
MADE = "CREATE TABLE t (id bigint PRIMARY KEY, day date, note text)"
NOTED = """
CREATE TABLE noted (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO noted VALUES (TG_OP); RETURN NULL; END $$;
CREATE TRIGGER merged AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION note();
"""
"""An INSERT … ON CONFLICT DO UPDATE counts as a statement of both kinds, a COPY does not."""


def opened(url: str) -> PostgresTarget:
    config = Config.model_validate({"url": url, "tables": ["shop.*"]})
    target = create(Context("shop", "mirror"), config)
    target.open()
    target.prepare(TABLE)
    return target


class Place:
    """A database with the table, looked at with a connection of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = psycopg.connect(url, autocommit=True)
        self.connection.execute(MADE)
        self.connection.execute(NOTED)
        self.offset = 0
        self.target = opened(url)

    def open_anew(self) -> None:
        self.target.close()
        self.target = opened(self.url)

    def apply(self, *created: int, changed: Sequence[int] = (), note: str = "new") -> None:
        self.write([[mapped(created, changed, note)]])

    def write(self, steps: Sequence[Step]) -> None:
        end = self.offset + 1
        self.target.apply(steps, [span(self.offset or None, end)])
        self.offset = end

    def asked(self, query: str) -> Any:
        return self.connection.execute(query).fetchall()  # type: ignore[call-overload]

    @property
    def rows(self) -> dict[int, str]:
        return dict(self.asked("SELECT id, note FROM t"))

    @property
    def merges(self) -> int:
        return len(self.asked("SELECT FROM noted"))

    def close(self) -> None:
        self.target.close()
        self.connection.close()


def lines(ids: Sequence[int], note: str = "new") -> list[bytes]:
    return [f"{i}\t2024-02-29\t{note}".encode() for i in ids]


def mapped(created: Sequence[int], changed: Sequence[int] = (), note: str = "new") -> Mapped:
    rows = [*lines(changed, note), *lines(created, note)]
    return Mapped(TABLE, [], [], lines=rows, created=len(created))


@pytest.fixture
def place(pg_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(straight, "_FEW", FEW)
    monkeypatch.setattr(straight, "_PAUSE", 2)
    found = Place(pg_database)
    yield found
    found.close()


def test_new_rows_are_copied_and_not_merged(place: Place) -> None:
    place.apply(1, 2, 3)
    assert place.rows == {1: "new", 2: "new", 3: "new"}
    assert place.merges == 0


def test_changed_rows_of_the_same_cut_are_merged(place: Place) -> None:
    place.apply(1, 2, 3)
    place.apply(4, 5, 6, changed=[2], note="later")
    assert place.rows == {1: "new", 2: "later", 3: "new", 4: "later", 5: "later", 6: "later"}
    assert place.merges == 1


def test_few_rows_are_staged(place: Place) -> None:
    place.apply(*range(1, FEW))
    assert (len(place.rows), place.merges) == (FEW - 1, 1)


def test_rows_that_are_there_already_are_merged_as_ever(place: Place) -> None:
    place.apply(2)
    place.apply(1, 2, 3, changed=[4], note="again")
    assert place.rows == {1: "again", 2: "again", 3: "again", 4: "again"}
    assert place.merges == 2


def test_after_a_refusal_the_straight_way_is_left_for_a_while(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    copy = straight.Straight.copy

    def counted(
        self: straight.Straight, connection: Any, rows: Sequence[bytes], judged: Any = None
    ) -> Sequence[bytes]:
        tried.append(len(rows))
        return copy(self, connection, rows, judged)

    monkeypatch.setattr(straight.Straight, "copy", counted)
    for _ in range(9):
        place.apply(1, 2, 3)
    assert len(tried) == 3, "the first, the fourth, the ninth"
    assert place.merges == 8


def test_a_row_the_table_cannot_take_is_named_and_nothing_is_written(place: Place) -> None:
    rows = [*lines([1, 2, 3]), b"4\tno day\tnew"]
    with pytest.raises(RowsRefused) as caught:
        place.write([[Mapped(TABLE, [], [], lines=rows, created=4)]])
    assert [key for _, key in caught.value.rows] == [(b"4",)]
    assert place.rows == {}
    place.write([[Mapped(TABLE, [], [], lines=rows[:3], created=3)]])
    assert set(place.rows) == {1, 2, 3}


def test_a_constraint_refuses_as_it_does_when_rows_are_merged(place: Place) -> None:
    place.connection.execute("ALTER TABLE t ADD CHECK (id < 3)")
    with pytest.raises(DataError, match="violates check constraint"):
        place.apply(1, 2, 3)
    assert place.rows == {}


def test_rows_of_a_moved_cursor_are_not_written(place: Place) -> None:
    place.apply(1, 2, 3)
    with pytest.raises(CursorMoved):
        place.target.apply([[mapped([4, 5, 6])]], [span(None, 1)])
    assert set(place.rows) == {1, 2, 3}


def test_a_unique_value_handed_over_inside_a_cut_is_merged(place: Place) -> None:
    place.connection.execute("CREATE UNIQUE INDEX ON t (note)")
    place.write([[Mapped(TABLE, [[b"1", None, b"a"]], [])]])
    new = [b"2\t\\N\ta", b"3\t\\N\tb", b"4\t\\N\tc"]
    place.write([[Mapped(TABLE, [], [], lines=[b"1\t\\N\tz", *new], created=3)]])
    assert place.rows == {1: "z", 2: "a", 3: "b", 4: "c"}


def test_without_its_unique_index_a_table_takes_nothing(place: Place) -> None:
    place.connection.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
    with pytest.raises(Exception, match="no unique or exclusion constraint"):
        place.apply(1, 2, 3)
    assert place.rows == {}


def test_a_column_the_target_computes_is_left_to_it(place: Place) -> None:
    place.connection.execute("ALTER TABLE t DROP COLUMN note")
    place.connection.execute(
        "ALTER TABLE t ADD note text GENERATED ALWAYS AS ('no ' || id::text) STORED"
    )
    place.open_anew()
    place.apply(1, 2, 3)
    assert place.rows == {1: "no 1", 2: "no 2", 3: "no 3"}


def test_an_identity_of_the_target_takes_the_key_of_the_source(place: Place) -> None:
    place.connection.execute("ALTER TABLE t ALTER id ADD GENERATED ALWAYS AS IDENTITY")
    place.open_anew()
    place.apply(7, 8, 9)
    assert (set(place.rows), place.merges) == ({7, 8, 9}, 0)


def test_a_row_security_policy_applies_as_to_any_other_role(place: Place) -> None:
    for statement in (
        "DROP ROLE IF EXISTS straightrole",
        "CREATE ROLE straightrole LOGIN PASSWORD 'secret'",
        "CREATE SCHEMA tailrace2 AUTHORIZATION straightrole",
        "GRANT ALL ON t, noted TO straightrole",
        "GRANT USAGE, CREATE ON SCHEMA public TO straightrole",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON t USING (id < 3)",
    ):
        place.connection.execute(statement)  # type: ignore[call-overload]
    url = make_conninfo(place.url, user="straightrole", password="secret")
    config = {"url": url, "tables": ["shop.*"], "cursor_schema": "tailrace2"}
    place.target.close()
    place.target = create(Context("shop", "mirror"), Config.model_validate(config))
    place.target.open()
    place.target.prepare(TABLE)
    with pytest.raises(Exception, match="row-level security policy"):
        place.apply(1, 2, 3)
    place.apply(-1, 0, 1)
    assert set(place.rows) == {-1, 0, 1}
    place.target.close()
    place.connection.execute("DROP OWNED BY straightrole")
    place.connection.execute("DROP ROLE straightrole")


def test_of_a_large_transaction_one_batch_is_held_back(place: Place) -> None:
    place.write([[mapped([1, 2, 3])], [mapped([4, 5, 6])], [mapped([7, 8, 9])]])
    assert set(place.rows) == set(range(1, 10))
    assert place.merges == 2
    place.apply(10, 11, 12)
    assert place.merges == 2


def test_a_batch_that_is_large_is_not_held_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(straight, "_MOST_BYTES", sum(map(len, lines([1, 2, 3]))))
    place.apply(1, 2, 3, 4)
    assert (set(place.rows), place.merges) == ({1, 2, 3, 4}, 1)
    place.apply(5, 6, 7)
    assert place.merges == 1


ROOT = Path(__file__).parents[3]
MANY = 20_000
COUNTED = """
CREATE TABLE counted (id bigint);
CREATE FUNCTION count_row() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO counted VALUES (NEW.id); RETURN NULL; END $$;
CREATE TRIGGER counted AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION count_row();
"""
COPYING = """
SELECT count(*) FROM pg_stat_activity a JOIN pg_stat_progress_copy p USING (pid)
WHERE a.datname = current_database() AND p.relid = 't'::regclass AND p.tuples_processed > 0
"""
WORKER = """
import json, os, signal, sys
sys.path[:0] = [".", "tests", "tests/sinks/targets"]
import psycopg
from sinks.testing import PLACE, span
from test_postgres_straight import MANY, mapped, opened

def write(copy, data, own=psycopg.Copy.write, left=[10]):
    own(copy, data)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGSTOP)

psycopg.Copy.write = write
told = []
for _ in range(2):
    target = opened(sys.argv[1])
    cursor = target.cursors([PLACE])[PLACE]
    told.append(None if cursor is None else cursor.offset)
    try:
        target.apply([[mapped(range(MANY), note="frozen")]], [span(None, 9)])
    except Exception as error:
        told.append(type(error).__name__)
    target.close()
print(json.dumps(told))
"""
"""A worker that freezes in the middle of its COPY and, thawed, opens and tries once more."""


@contextmanager
def frozen(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that holds the rows of a COPY half sent, and says no more."""
    command = [sys.executable, "-c", WORKER, place.url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as worker:
        try:
            seen = psutil.Process(worker.pid)
            wait_until(lambda: seen.status() == psutil.STATUS_STOPPED, "the worker is frozen")
            wait_until(lambda: place.asked(COPYING) == [(1,)], "rows of its COPY are in the table")
            yield worker
        finally:
            worker.kill()


def test_a_worker_frozen_in_the_middle_of_its_copy_is_replaced_and_adds_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres._SETTINGS, "lock_timeout", "1s")
    monkeypatch.setattr(rivals, "LOCK_S", 1)
    place.connection.execute(COUNTED)
    place.open_anew()
    with frozen(place) as worker:
        with pytest.raises(TargetUnavailable, match="held the cursors"):
            place.apply(*range(MANY))
        place.apply(*range(MANY))
        place.apply(*range(MANY, MANY + FEW))
        assert set(place.rows.values()) == {"new"}
        psutil.Process(worker.pid).resume()
        told = json.loads(worker.communicate(timeout=60)[0])
    assert told == [None, "TargetUnavailable", 2, "CursorMoved"]
    assert place.rows == dict.fromkeys(range(MANY + FEW), "new")
    assert place.asked("SELECT count(*) FROM counted") == [(MANY + FEW,)]
