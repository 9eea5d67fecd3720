"""Who is blamed for a row that is refused is an event that cannot be applied, and no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest

from demanding import SHORT, TABLE, Place
from schemas.table import Column, TableId, TableSchema, Type
from sinks.applier import Applier, Cut
from sinks.decode import DELETE, UPSERT, Event
from sinks.testing import span

WIDER = TableSchema(TABLE.table, (*TABLE.columns, Column("more", Type("string"))), ("id",))
KEYLESS = TableSchema(TableId("public", "k"), TABLE.columns[1:])
NO_MESSAGE: Any = None
WIDE = (
    "CREATE TABLE t (id bigint PRIMARY KEY, note text CHECK (length(note) <= 5), n int, more text)"
)
_places = count(1)


class Letters:
    """Keeps what is put aside."""

    def __init__(self) -> None:
        self.written: list[Event] = []
        self.calls = 0

    def sift(self, events: Sequence[Event]) -> Sequence[Event]:
        return events

    def aside(self, _events: Sequence[Event], bad: Sequence[Event]) -> Sequence[Event]:
        return bad

    def write(self, events: Sequence[Event]) -> None:
        self.calls += 1
        known = set(map(id, self.written))
        self.written += [event for event in events if id(event) not in known]


def event(
    kind: int, schema: TableSchema, *row: bytes, old: tuple[bytes, ...] | None = None
) -> Event:
    key = row[:1] if schema.key else row
    line = b"\t".join(row) if kind == UPSERT else None
    place = (next(_places),)
    made = Event(kind, schema, None, snapshot=False, message=NO_MESSAGE, key=key, place=place)
    made.line, made.old = line, old
    return made


@pytest.fixture
def place(pg_database: str) -> Iterator[Place]:
    found = Place(pg_database)
    yield found
    found.close()


def applied(place: Place, events: Sequence[Event], *schemas: TableSchema) -> Letters:
    letters: Any = Letters()
    known = [(schema, False) for schema in schemas]
    applier = Applier(place.target, letters, known, lambda _events: True)
    applier.apply(Cut([list(events)], [span(place.offset or None, 99)]))
    found: Letters = letters
    return found


BAD = event(UPSERT, TABLE, b"1", b"much too long", b"1")


@pytest.mark.parametrize(
    ("later", "rows"),
    [
        (event(UPSERT, WIDER, b"1", b"fits", b"1", b"x"), {1: "fits"}),
        (event(DELETE, WIDER, b"1"), {}),
    ],
    ids=["changed", "deleted"],
)
def test_an_older_version_s_row_is_not_blamed_on_a_newer_one_s(
    place: Place, later: Event, rows: dict[int, str]
) -> None:
    place.make(WIDE, "INSERT INTO t VALUES (1, 'was')")
    letters = applied(place, [BAD, later], TABLE, WIDER)
    assert (letters.written, place.rows) == ([BAD], rows)


def test_a_delete_of_a_row_without_a_key_is_not_blamed_for_its_inserts(place: Place) -> None:
    place.make(SHORT, "CREATE TABLE k (note text CHECK (length(note) <= 5), n int)")
    row = (b"much too long", b"1")
    events = [*(event(UPSERT, KEYLESS, *row) for _ in range(2)), event(DELETE, KEYLESS, *row)]
    letters = applied(place, events, KEYLESS)
    assert {made.kind for made in letters.written} == {UPSERT}
    assert place.connection.execute("SELECT * FROM k").fetchall() == []


def test_the_old_row_of_a_refused_key_change_goes_all_the_same(place: Place) -> None:
    place.make(SHORT, "INSERT INTO t VALUES (1, 'old'), (3, 'kept')")
    place.change({8: "fits", 9: "much too long"})
    gone, made = event(DELETE, TABLE, b"1"), event(UPSERT, TABLE, b"2", b"much too long", b"1")
    letters = applied(place, [gone, made], TABLE)
    assert letters.written == [made]
    assert place.rows == {3: "kept", 8: "fits"}


def test_a_row_of_many_refused_events_costs_few_transactions(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    stage = place.target._stage

    def counted(steps: Any, aside: Any = None, **more: int) -> Any:
        begun.append(1 - len(more))
        return stage(steps, aside, **more)

    place.make(SHORT)
    monkeypatch.setattr(place.target, "_stage", counted)
    good = [event(UPSERT, TABLE, b"%d" % n, b"fits", b"1") for n in range(10, 99)]
    bad = [event(UPSERT, TABLE, b"1", b"much too long %d" % n, b"1") for n in range(50)]
    letters = applied(place, [*good, *bad], TABLE)
    assert len(letters.written) == 50
    assert len(place.rows) == len(good)
    assert sum(begun) < 10
