"""What holds inside one transaction of MariaDB, whatever happens to the worker and the server.

MySQL runs the same tests (`mysql/live_target.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pymysql
import pytest

from cdc.errors import (
    CdcError,
    DataError,
    PreflightFailed,
    StateError,
    TargetUnavailable,
)
from fix_mariadb import Place
from fix_pipeline import wait_until
from fix_sqlite import writes
from schemas.change import ABSENT
from schemas.table import Column, TableId, TableSchema, Type
from sinks.mariadb import reservation, transactions
from sinks.target import Mapped, RowsRefused, Step
from sinks.testing import ITEMS, PLACE, span, upsert

COUNT = "SELECT count(*) FROM shop.items"
ONE, TWO = (b"1", b"pen", b"1.50"), (b"2", b"cup", None)


def test_a_table_changed_inside_a_transaction_begins_it_again(maria_place: Place) -> None:
    more = Column("more", Type("string"))
    wider = TableSchema(ITEMS.table, (*ITEMS.columns, more), ITEMS.key)
    target = maria_place.open(ITEMS)

    def steps() -> Iterator[Step]:
        yield from upsert(ONE)
        target.prepare(wider)
        assert maria_place.query(COUNT) == [(0,)]
        yield from upsert((*TWO, b"x"), schema=wider)

    with pytest.raises(TargetUnavailable, match="in the middle of a transaction"):
        target.apply(steps(), [span(None, 1)])
    assert maria_place.query(COUNT) == [(0,)]
    assert target.cursors([PLACE]) == {PLACE: None}
    target.apply(steps(), [span(None, 1)])
    assert maria_place.rows(ITEMS.table) == [(*ONE, None), (*TWO, b"x")]


def test_an_update_that_changes_nothing_finds_its_row(maria_place: Place) -> None:
    target = maria_place.open(ITEMS)
    target.apply(upsert(ONE, TWO), [span(None, 1)])
    rows = [(b"1", ABSENT, b"1.50"), (b"2", b"mug", ABSENT), (b"2", ABSENT, ABSENT)]
    target.apply(upsert(*rows), [span(1, 2)])
    assert maria_place.rows(ITEMS.table) == [ONE, (b"2", b"mug", None)]


def test_what_lay_in_staging_when_a_batch_was_refused_is_not_used_later(
    maria_place: Place,
) -> None:
    target = maria_place.open(ITEMS)
    target.apply(upsert(ONE, TWO), [span(None, 1)])
    bad = Mapped(ITEMS, [(b"1", ABSENT, b"9.99"), (b"7", ABSENT, b"1.00")], [(b"2",)])
    with pytest.raises(DataError, match="no row to update"):
        target.apply([[bad]], [span(1, 2)])
    assert sorted(target.rehearse([[[bad], *upsert((b"1", ABSENT, b"2.00"))]])) == [0]
    target.apply([[Mapped(ITEMS, [(b"1", b"pencil", ABSENT)], [])]], [span(1, 2)])
    assert maria_place.rows(ITEMS.table) == [(b"1", b"pencil", b"1.50"), TWO]


# Constraints

ID = Column("id", Type("int64"))
PARENTS = TableSchema(TableId("public", "parents"), (ID, Column("name", Type("string"))), ("id",))
CHILDREN = TableSchema(TableId("public", "children"), (ID, Column("of", Type("int64"))), ("id",))
FAMILY = (
    "CREATE TABLE parents (id bigint PRIMARY KEY, name varchar(20), UNIQUE KEY by_name (name))",
    "CREATE TABLE children (id bigint PRIMARY KEY, `of` bigint REFERENCES parents (id))",
)


def test_parents_come_before_their_children_and_go_after_them(maria_place: Place) -> None:
    maria_place.query(*FAMILY)
    target = maria_place.open(CHILDREN, PARENTS)
    child, parent = writes(CHILDREN, (b"1", b"7")), writes(PARENTS, (b"7", b"ann"))
    target.apply([[child, parent]], [span(None, 1)])
    gone = [Mapped(PARENTS, [], [(b"7",)]), Mapped(CHILDREN, [], [(b"1",)])]
    target.apply([gone], [span(1, 2)])
    assert maria_place.rows(PARENTS.table) == maria_place.rows(CHILDREN.table) == []


def test_a_rehearsal_finds_the_rows_that_constraints_refuse_and_no_others(
    maria_place: Place,
) -> None:
    maria_place.query(*FAMILY)
    target = maria_place.open(CHILDREN, PARENTS)
    steps = [
        [writes(PARENTS, (b"7", b"ann"))],
        [writes(CHILDREN, (b"2", b"8"))],
        [writes(CHILDREN, (b"1", b"7"))],
        [writes(PARENTS, (b"9", b"ann"))],
    ]
    refused = target.rehearse([steps])
    assert sorted(refused) == [1, 3]
    assert "foreign key" in str(refused[1])
    assert "Duplicate entry" in str(refused[3])
    assert maria_place.rows(PARENTS.table) == []
    with pytest.raises(DataError, match="foreign key"):
        target.apply([steps[1]], [span(None, 1)])
    assert target.cursors([PLACE]) == {PLACE: None}


def test_a_unique_value_beside_the_key_never_makes_a_row_overwrite_another(
    maria_place: Place,
) -> None:
    maria_place.query(FAMILY[0])
    target = maria_place.open(PARENTS)
    target.apply([[writes(PARENTS, (b"1", b"ann"), (b"2", b"bob"))]], [span(None, 1)])
    with pytest.raises(DataError, match="Duplicate entry 'ann'"):
        target.apply([[writes(PARENTS, (b"3", b"ann"))]], [span(1, 2)])
    with pytest.raises(DataError, match="Duplicate entry 'ann'"):
        target.apply([[Mapped(PARENTS, [], [], lines=[b"3\tann"])]], [span(1, 2)])
    assert maria_place.rows(PARENTS.table) == [(b"1", b"ann"), (b"2", b"bob")]


def test_a_unique_value_is_handed_over_inside_a_step(maria_place: Place) -> None:
    maria_place.query(FAMILY[0])
    target = maria_place.open(PARENTS)
    target.apply([[writes(PARENTS, (b"1", b"ann"), (b"2", b"bob"))]], [span(None, 1)])
    handed = Mapped(PARENTS, [(b"2", b"free"), (b"3", b"ann"), (b"4", b"bob")], [(b"1",)])
    target.apply([[handed]], [span(1, 2)])
    named = "SELECT name FROM parents ORDER BY id"
    assert maria_place.query(named) == [("free",), ("ann",), ("bob",)]


@pytest.mark.parametrize("others", ["", ", UNIQUE (price)"])
def test_all_rows_with_values_that_do_not_fit_are_named_at_once(
    maria_place: Place, others: str
) -> None:
    maria_place.query(
        "CREATE DATABASE shop",
        "CREATE TABLE shop.items (id bigint PRIMARY KEY, name varchar(3) NOT NULL, "
        f"price decimal(12,2){others})",
    )
    target = maria_place.open(ITEMS)
    lines = [b"%d\t%s\t%d.50" % (n, b"long" if n % 100 == 7 else b"fit", n) for n in range(9000)]
    odd = [(b"9001", b"fit", b"NaN"), (b"9002", b"it's", b"1"), (b"9003", b"fit", None)]
    mapped = Mapped(ITEMS, [*odd], [], lines=lines)
    with pytest.raises(RowsRefused) as caught:
        target.apply([[mapped]], [span(None, 1)])
    named = {int(key[0] or b""): reason for (_, key), reason in caught.value.rows.items()}
    assert named.keys() == {*range(7, 9000, 100), 9001, 9002}
    assert (named[7], named[9002]) == ("Data too long for column name",) * 2
    assert named[9001] == "Incorrect decimal value: 'NaN' for column price"
    good = [line for line in lines if b"long" not in line]
    target.apply([[Mapped(ITEMS, [odd[2]], [], lines=good)]], [span(None, 1)])
    assert maria_place.query(COUNT) == [(8911,)]


def test_a_row_that_a_constraint_refuses_is_not_named(maria_place: Place) -> None:
    maria_place.query(
        "CREATE DATABASE shop",
        "CREATE TABLE shop.items (id bigint PRIMARY KEY, name text NOT NULL, price decimal(12,2))",
    )
    target = maria_place.open(ITEMS)
    with pytest.raises(DataError, match="cannot be null") as caught:
        target.apply(upsert(ONE, (b"2", None, None)), [span(None, 1)])
    assert not isinstance(caught.value, RowsRefused)


def test_a_refusal_of_a_trigger_is_a_refusal_of_the_row(maria_place: Place) -> None:
    maria_place.query(
        "CREATE DATABASE shop",
        "CREATE TABLE shop.items (id bigint PRIMARY KEY, name longtext, price decimal(12,2))",
        "CREATE TRIGGER shop.no BEFORE INSERT ON shop.items FOR EACH ROW IF NEW.name = 'cup' THEN "
        "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 9999, MESSAGE_TEXT = 'no cups here'; END IF",
    )
    target = maria_place.open(ITEMS)
    assert "no cups here" in str(target.rehearse([[*upsert(ONE), *upsert(TWO)]])[1])


# The server and the others who use it


def test_a_frozen_worker_is_waited_for_and_then_ended_by_the_server(
    maria_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    maria_place.be_impatient(monkeypatch)
    frozen, other = maria_place.open(ITEMS), maria_place.open(ITEMS)
    tried: list[CdcError] = []

    def taken_over() -> bool:
        try:
            other.apply(upsert(TWO), [span(None, 1)])
        except TargetUnavailable as error:
            tried.append(error)
            return False
        return True

    def steps() -> Iterator[Step]:
        yield from upsert(ONE)
        wait_until(taken_over, "the other worker applies")
        yield from upsert(ONE)

    with pytest.raises(TargetUnavailable, match="not reachable"):
        frozen.apply(steps(), [span(None, 1)])
    assert "Lock wait timeout" in str(tried[0])
    assert maria_place.rows(ITEMS.table) == [TWO]


def test_a_frozen_worker_does_not_keep_the_sink_for_itself(
    make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservation, "_FROZEN_S", 0)
    place = make_place(workers=2)
    frozen, other = place.open(ITEMS), place.open(ITEMS)
    frozen.reserve()

    def freed() -> bool:
        try:
            other.apply(upsert(TWO), [span(None, 1)])
        except TargetUnavailable as error:
            return "another worker applies" not in str(error)
        return True

    assert not freed()
    wait_until(freed, "the frozen worker is ended")
    with pytest.raises(TargetUnavailable):
        frozen.apply(upsert(ONE), [span(1, 2)])
    assert place.rows(ITEMS.table) == [TWO]


def test_a_connection_that_is_ended_is_another_try(maria_place: Place) -> None:
    target = maria_place.open(ITEMS)
    connection = target._connection
    assert connection is not None
    maria_place.query(f"KILL {connection.thread_id()}")
    with pytest.raises(TargetUnavailable):
        target.apply(upsert(ONE), [span(None, 1)])
    target.open()
    target.prepare(ITEMS)
    target.apply(upsert(ONE), [span(None, 1)])


MEANINGS = {
    (1213, "40001"): TargetUnavailable,
    (1205, "HY000"): TargetUnavailable,
    (1114, "HY000"): TargetUnavailable,
    (1290, "HY000"): TargetUnavailable,
    (2013, None): TargetUnavailable,
    (1146, "42S02"): StateError,
    (1142, "42000"): PreflightFailed,
    (1062, "23000"): DataError,
    (1406, "22001"): DataError,
    (4025, "23000"): DataError,
    (3819, "HY000"): DataError,
    (4031, "HY000"): TargetUnavailable,
}


@pytest.mark.parametrize(("code", "state"), MEANINGS)
def test_what_the_server_says_has_one_meaning_for_the_worker(
    maria_place: Place, code: int, state: str | None
) -> None:
    login = maria_place.connect()._login
    with pytest.raises(MEANINGS[code, state]), transactions.named_errors(login):
        raise pymysql.OperationalError(code, "said", sqlstate=state)


def test_a_table_dropped_under_the_sink_stops_it(maria_place: Place) -> None:
    target = maria_place.open(ITEMS)
    maria_place.query("DROP TABLE shop.items")
    with pytest.raises(StateError, match="changed under the sink"):
        target.apply(upsert(ONE), [span(None, 1)])


def test_a_cursor_of_a_newer_version_is_refused(maria_place: Place) -> None:
    target = maria_place.open()
    target.apply([], [span(None, 5)])
    maria_place.query("UPDATE tailrace_cursors SET version = 99")
    with pytest.raises(StateError, match="newer version"):
        target.cursors([PLACE])
