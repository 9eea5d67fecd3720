"""Merging the events of a cut leaves what applying them one by one would leave."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.change import ABSENT, Cell, Stamp
from schemas.table import Column, TableId, TableSchema, Type
from sinks.collapse import collapse, in_source_order, source_order
from sinks.decode import DELETE, TRUNCATE, UPSERT, Event
from sinks.target import Step

COLUMNS = (Column("id", Type("int64")), Column("a", Type("string")), Column("b", Type("string")))
KEYED = TableSchema(TableId("public", "keyed"), COLUMNS, ("id",))
WIDER = TableSchema(KEYED.table, (*COLUMNS, Column("c", Type("string"))), ("id",))
KEYLESS = TableSchema(TableId("public", "keyless"), COLUMNS)
NO_MESSAGE: Any = None


def event(kind: int, *row: Cell, schema: TableSchema = KEYED, old: Any = None) -> Event:
    key = row[:1] if schema.key else row
    return Event(
        kind, schema, None, snapshot=False, message=NO_MESSAGE, key=key, row=list(row), old=old
    )


class Table:
    """The obvious target: a dictionary, or a list where there is no key."""

    def __init__(self) -> None:
        self.rows: dict[Any, list[Cell]] = {}
        self.bag: list[tuple[Cell, ...]] = []

    def apply(self, steps: list[Step]) -> Table:
        for step in steps:
            for mapped in step:
                if mapped.truncate:
                    self.rows.clear()
                    self.bag.clear()
                moved = [self._moved(old, row) for old, row in mapped.moves]
                for key in mapped.deletes:
                    self._delete(tuple(key), keyed=bool(mapped.schema.key))
                for row in [*mapped.upserts, *moved]:
                    self._upsert(list(row), keyed=bool(mapped.schema.key))
        return self

    def _moved(self, old: Any, row: Any) -> list[Cell]:
        return [o if n is ABSENT else n for n, o in zip(row, self.rows[tuple(old)], strict=True)]

    def _delete(self, key: tuple[Cell, ...], *, keyed: bool) -> None:
        if keyed:
            self.rows.pop(key, None)
        elif key in self.bag:
            self.bag.remove(key)

    def _upsert(self, row: list[Cell], *, keyed: bool) -> None:
        if not keyed:
            self.bag.append(tuple(row))
            return
        earlier = self.rows.get((row[0],))
        if ABSENT in row:
            assert earlier is not None, "an absent value with no row to take it from"
            row = [o if n is ABSENT else n for n, o in zip(row, earlier, strict=True)]
        self.rows[row[0],] = row


keys = st.sampled_from([b"1", b"2", b"3"])
cells = st.sampled_from([b"x", b"y", None])
upserts = st.builds(lambda k, a, b: event(UPSERT, k, a, b), keys, cells, cells)
deletes = st.builds(lambda k: event(DELETE, k), keys)
moves = st.builds(lambda k, o, a: event(UPSERT, k, a, None, old=(o,)), keys, keys, cells)
truncates = st.builds(lambda: event(TRUNCATE))
bags = st.builds(lambda k, a: (k, a, None), keys, cells)


def one_by_one(events: list[Event]) -> Table:
    table = Table()
    for one in events:
        table.apply(collapse([one]))
    return table


@given(st.lists(st.one_of(upserts, deletes, moves, truncates)))
def test_a_keyed_table_ends_as_if_each_event_were_applied(events: list[Event]) -> None:
    wanted = one_by_one(events).rows
    assert Table().apply(collapse(events)).rows == wanted
    assert Table().apply(list(in_source_order(events))).rows == wanted


class Life:
    """A source that leaves unchanged values out wherever it may; the events of what it does."""

    def __init__(self) -> None:
        self.rows: dict[bytes, list[Cell]] = {}
        self.events: list[Event] = []
        self.ordinal = 0

    def act(self, what: str, key: bytes, other: bytes, value: bytes | None) -> None:
        self.ordinal += 1
        if what == "truncate":
            self.rows.clear()
            self._tell(TRUNCATE)
        elif key not in self.rows:
            self.rows[key] = [key, value, value]
            self._tell(UPSERT, *self.rows[key])
        elif what == "move" and other not in self.rows:
            row = self.rows.pop(key)
            self.rows[other] = [other, value, row[2]]
            self._tell(DELETE, key)
            self._tell(UPSERT, other, value, ABSENT, sub=2)
        elif what == "rename" and other not in self.rows:
            row = self.rows.pop(key)
            self.rows[other] = [other, value, row[2]]
            self._tell(UPSERT, other, value, ABSENT, old=(key,))
        elif what == "delete":
            del self.rows[key]
            self._tell(DELETE, key)
        else:
            self.rows[key][1] = value
            self._tell(UPSERT, key, value, ABSENT)

    def _tell(self, kind: int, *row: Cell, sub: int = 0, old: Any = None) -> None:
        told = event(kind, *row, old=old)
        told.stamp = Stamp(1, 1, self.ordinal, sub)
        self.events.append(told)


acts = st.tuples(st.sampled_from(["move", "rename", "update", "delete", "truncate"]), keys, keys)


@given(
    st.lists(st.tuples(acts, cells, st.booleans())), st.sampled_from([collapse, in_source_order])
)
def test_a_value_that_was_never_sent_again_follows_its_row_to_every_new_key(
    plan: list[tuple[tuple[str, bytes, bytes], bytes | None, bool]], way: Any
) -> None:
    life, table, taken = Life(), Table(), 0
    for (what, key, other), value, cut_here in [*plan, (("update", b"1", b"2"), b"end", True)]:
        life.act(what, key, other, value)
        if cut_here:
            events, taken = life.events[taken:], len(life.events)
            table.apply(list(way(events)))
    assert {key: row for (key,), row in table.rows.items()} == life.rows


def test_a_row_that_lacks_values_is_not_taken_for_a_deleted_one_of_its_key() -> None:
    gone, create = event(DELETE, b"1"), event(UPSERT, b"1", b"x", ABSENT)
    gone.stamp, create.stamp = Stamp(1, 1, 1), Stamp(1, 1, 2, 2)
    [[mapped]] = collapse([gone, create])
    assert (mapped.deletes, mapped.upserts) == ([(b"1",)], [[b"1", b"x", ABSENT]])


@given(st.lists(st.tuples(st.sampled_from(["in", "out", "swap", "truncate"]), bags, bags)))
def test_a_keyless_table_ends_as_if_each_event_were_applied(
    plan: list[tuple[str, tuple[Cell, ...], tuple[Cell, ...]]],
) -> None:
    bag: list[tuple[Cell, ...]] = []
    events: list[Event] = []
    for what, row, other in plan:
        if what == "in":
            bag.append(row)
            events.append(event(UPSERT, *row, schema=KEYLESS))
        elif what == "out" and row in bag:
            bag.remove(row)
            events.append(event(DELETE, *row, schema=KEYLESS))
        elif what == "swap" and row in bag:
            bag.remove(row)
            bag.append(other)
            events.append(event(UPSERT, *other, schema=KEYLESS, old=row))
        elif what == "truncate":
            bag.clear()
            events.append(event(TRUNCATE, schema=KEYLESS))
    for steps in (collapse(events), list(in_source_order(events))):
        assert sorted(Table().apply(steps).bag, key=repr) == sorted(bag, key=repr)


def test_a_key_has_one_operation_and_one_step_is_enough() -> None:
    events = [event(UPSERT, b"1", b"x", b"y"), event(DELETE, b"1"), event(UPSERT, b"1", b"z", None)]
    [[mapped]] = collapse(events)
    assert mapped.upserts == [[b"1", b"z", None]]
    assert mapped.deletes == []


def test_an_absent_value_comes_from_the_row_before_it() -> None:
    [[mapped]] = collapse([event(UPSERT, b"1", b"x", b"y"), event(UPSERT, b"1", ABSENT, None)])
    assert mapped.upserts == [[b"1", b"x", None]]


def test_an_absent_value_stays_absent_when_the_row_is_in_the_target() -> None:
    [[mapped]] = collapse([event(UPSERT, b"1", ABSENT, b"y"), event(UPSERT, b"1", ABSENT, None)])
    assert mapped.upserts == [[b"1", ABSENT, None]]


def line(kind: int, key: bytes, *, created: bool = False) -> Event:
    """Return an event as the compiled reader makes it."""
    made = event(kind, key)
    made.row, made.line, made.created = None, key + b"\tx\ty", created
    return made


lines = st.builds(
    lambda key, what: line(DELETE if what == "gone" else UPSERT, key, created=what == "created"),
    keys,
    st.sampled_from(["created", "changed", "gone"]),
)


@given(st.lists(st.one_of(lines, truncates)), st.sets(keys))
def test_a_row_counts_as_created_only_where_a_true_source_had_none_of_its_key(
    events: list[Event], there: set[bytes]
) -> None:
    known, told = set(there), []
    for one in events:
        if one.kind == TRUNCATE:
            known.clear()
        elif (one.kind == UPSERT and one.created) == (one.key[0] in known):
            continue  # no source does that
        elif one.kind == DELETE:
            known.discard(one.key[0])
        else:
            known.add(one.key[0])
        told.append(one)
    written: set[bytes] = set()
    for mapped in [mapped for step in collapse(told) for mapped in step]:
        rows = [row.partition(b"\t")[0] for row in mapped.lines]
        left = set() if mapped.truncate else there - {key[0] for key in mapped.deletes}
        assert not set(rows[len(rows) - mapped.created :]) & left
        written = left | set(rows)
    assert written == (known if told else set())


def test_a_row_that_is_created_and_then_changed_still_is_new() -> None:
    events = [line(UPSERT, b"1", created=True), line(UPSERT, b"2"), line(UPSERT, b"1")]
    [[mapped]] = collapse(events)
    assert (mapped.lines, mapped.created) == ([b"2\tx\ty", b"1\tx\ty"], 1)


def test_a_row_that_takes_the_key_of_a_deleted_one_is_not_new() -> None:
    [[mapped]] = collapse([line(DELETE, b"1"), line(UPSERT, b"1", created=True)])
    assert (mapped.lines, mapped.created) == ([b"1\tx\ty"], 0)


def test_another_version_of_a_table_is_another_step() -> None:
    wide = event(UPSERT, b"1", b"x", b"y", b"c", schema=WIDER)
    steps = collapse([event(UPSERT, b"1", b"x", b"y"), event(UPSERT, b"2", b"x", None), wide])
    assert [[mapped.schema for mapped in step] for step in steps] == [[KEYED], [WIDER]]


def test_partitions_merge_into_the_order_of_the_source() -> None:
    def at(ordinal: int, *, snapshot: bool = False) -> Event:
        made = event(UPSERT, b"1", None, None)
        made.stamp, made.snapshot = Stamp(1, 1, ordinal), snapshot
        return made

    one, two = [at(1), at(4), at(2, snapshot=True)], [at(3), at(5)]
    merged = source_order([one, two])
    assert [e.stamp.ordinal for e in merged if e.stamp] == [1, 3, 4, 2, 5]
