"""XA transactions as a real MySQL 9.7.4 logged them: what leaves is what its SELECT gave."""

from __future__ import annotations

import pytest

from cdc.decode.binlogevents import Query, Transaction, XaPrepare
from cdc.decode.gtid import Intervals, MysqlGtid
from cdc.errors import GapError, UnknownEvent
from cdc.mariadb import prepared
from cdc.mariadb.opened import Opened
from cdc.mariadb.position import Place
from cdc.mysql.position import Position
from fix_capture import Event, Model, events_of
from mysql_recording import SERVER, Recording
from schemas.change import Op

OPEN = "X'6f70656e',X'',1"
ONE = "X'6f6e65',X'',1"


def told(recording: Recording) -> list[tuple[bytes, bytes]]:
    """The rows that SELECT gave."""
    return sorted((i.encode(), n.encode()) for i, n in recording.told["tables"]["t"]["rows"])


def left(events: list[Event]) -> list[tuple[bytes, bytes]]:
    model = Model()
    for event in events:
        model.apply(event)
    return sorted((row["id"], row["n"]) for row in model.tables["shop.t"].values())


def made(events: list[Event]) -> list[int]:
    """The ids of the rows that were made, in their order."""
    return [int(event.row()["id"]) for event in events if event.op is Op.CREATE]


@pytest.mark.parametrize("kept", [9, 0])
def test_rows_leave_in_the_order_of_their_commits_and_what_is_open_stays(
    monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Rows that are not kept are read again from where they stand."""
    monkeypatch.setattr(prepared, "_KEPT", kept)
    recording = Recording("prepared")
    events, position = recording.read()
    assert left(events) == told(recording)
    assert made(events) == [3, 1, 2, 4, 11, 10, *range(100, 200)]
    assert [item.xid for item in position.prepared] == [OPEN]
    assert Intervals.parse(position.gtid).names(position.prepared[0].gtid)
    assert Intervals.parse(position.gtid) == Intervals.parse(recording.told["gtid_executed"])


def test_a_life_may_end_behind_any_transaction() -> None:
    """What is prepared then is read again by the next one, from what the position says of it."""
    recording = Recording("prepared")
    whole = recording.read()[0]
    position = recording.begin
    events: list[Event] = []
    lives = 0
    while len(events) < len(whole):
        transactions = recording.transactions(0, position)
        transactions.until = Place(position.file, position.offset + 1)
        while transactions.advance():
            pass
        events += [event for rows in transactions.take() for event in events_of(rows)]
        position = Position.decode(transactions.position.encode())
        transactions.close()
        lives += 1
    assert events == whole
    assert lives > 12


@pytest.mark.parametrize("file", [1, 2])
def test_what_was_prepared_before_the_source_first_began_is_found_in_the_log(file: int) -> None:
    recording = Recording("prepared")
    start = str(recording.begins(file))
    position = Position(1, start, str(SERVER), f"binlog.{file + 1:06}", 4)
    transactions = recording.transactions(0, position)
    while transactions.advance():
        pass
    events = [event for rows in transactions.take() for event in events_of(rows)]
    transactions.close()
    assert made(events) == [*([11, 10] if file == 1 else []), *range(100, 200)]


def test_a_commit_of_what_the_log_does_not_have_is_a_gap() -> None:
    recording = Recording("prepared")
    position = Position(1, str(recording.begins(2)), str(SERVER), "binlog.000003", 4)
    first, second, third = recording.data.split(b"\xfebin")[1:]
    assert first
    assert second
    recording.data = b"\xfebin" + third
    with pytest.raises(GapError, match="does not have where it was prepared"):
        recording.transactions(0, position).advance()


def test_one_of_one_phase_is_neither_prepared_nor_completed() -> None:
    opened = Opened(Transaction(MysqlGtid(SERVER, "", 1), standalone=None, ddl=False))
    assert not opened.take(Query("shop", f"XA START {ONE}", 0))
    assert not opened.take(Query("shop", f"XA END {ONE}", 0))
    assert opened.take(XaPrepare(b"", one_phase=True))
    assert (opened.xid, opened.prepares, opened.completes) == (ONE, False, False)


@pytest.mark.parametrize(
    "statements",
    [
        ("BEGIN", f"XA START {ONE}"),
        ("BEGIN", f"XA COMMIT {ONE}"),
        (f"XA START {ONE}", f"XA ROLLBACK {ONE}"),
        ("XA START 'one'",),
    ],
)
def test_an_xa_statement_where_none_is_known_to_come_stops_by_name(
    statements: tuple[str, ...],
) -> None:
    opened = Opened(Transaction(MysqlGtid(SERVER, "", 1), standalone=None, ddl=False))
    *before, last = (Query("shop", statement, 0) for statement in statements)
    assert not any(map(opened.take, before))
    with pytest.raises(UnknownEvent, match=r"comes within|names no XA"):
        opened.take(last)
