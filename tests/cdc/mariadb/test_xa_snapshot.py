"""XA COMMIT is logged before it is carried out: no chunk puts an older row over what it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cdc.decode.gtid import Domains
from cdc.local import LocalMariaDB
from cdc.mariadb import overlap as overlaps
from cdc.mariadb.dialect import View
from cdc.mariadb.overlap import Overlap
from cdc.mariadb.position import Place, PreparedXa
from cdc.mariadb.prepared import Ended
from cdc.mariadb.xa import Held
from fix_mariadb_capture import Database, MariaCapture
from schemas.change import Origin, Rows
from schemas.table import Column, TableId, TableSchema, Type
from xa_stories import XaWriters

Make = Callable[..., MariaCapture]
COLUMNS = tuple(Column(name, Type("int32", "mariadb:int"), nullable=False) for name in ("id", "n"))
SCHEMA = TableSchema(TableId("shop", "t"), COLUMNS, ("id",))
LINES = [b"1\t0", b"2\t0", b"3\t0"]


def row(*cells: bytes | None) -> bytes:
    texts = (b"u" if c is None else b"t" + len(c).to_bytes(4, "big") + c for c in cells)
    return b"".join([b"\0\2", *texts])


def run(gtid: str, *items: bytes) -> Rows:
    return Rows(SCHEMA, "pgoutput", Origin(1, 1, 0, gtid), list(items), range(1, len(items) + 1))


def overlap(*prepared: str, by_key: bool = True, logged: str = "") -> Overlap:
    held = Held(frozenset(prepared), frozenset(prepared), Domains.parse(logged))
    return Overlap(View(Place("binlog.000001", 900), held=held), SCHEMA, by_key=by_key)


def test_rows_of_an_xa_commit_that_leave_meanwhile_stay_out_of_the_chunk() -> None:
    made = overlap()
    made.end(Ended("a", "0-1-7"))
    made.note([run("0-1-6", b"DO" + row(b"1", b"0")), run("0-1-7", b"DO" + row(b"2", b"0"))])
    assert made.kept(LINES) == [b"1\t0", b"3\t0"]
    assert not made.spoiled


def test_an_xa_commit_that_was_logged_and_carried_out_before_takes_nothing_away() -> None:
    made = overlap("late", logged="0-1-7")
    for number, xid in ((6, "done"), (7, "late"), (8, "later")):
        made.end(Ended(xid, f"0-1-{number}"))
        made.note([run(f"0-1-{number}", b"DO" + row(b"%d" % (number - 5), b"0"))])
    assert made.kept(LINES) == [b"1\t0"]


def test_a_chunk_is_read_again_where_the_rows_of_an_xa_commit_cannot_take_its_place() -> None:
    partly = run("0-1-7", b"UN" + row(b"2", None))
    for made, rows in (
        (overlap(), partly),
        (overlap(by_key=False), run("0-1-7", b"DO" + row(b"2", b"0"))),
    ):
        made.end(Ended("a", "0-1-7"))
        made.note([rows])
        assert made.spoiled


def test_a_chunk_that_too_many_rows_made_stale_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overlaps, "_MOST", 1)
    made = overlap()
    made.end(Ended("a", "0-1-7"))
    made.note([run("0-1-7", b"DO" + row(b"2", b"0"))])
    assert not made.spoiled
    made.note([run("0-1-7", b"DO" + row(b"3", b"0"))])
    assert made.spoiled


def test_what_only_the_server_holds_as_prepared_may_be_missing() -> None:
    made = overlap("open", "ended", "committed before")
    made.end(Ended("ended", "0-1-7"))
    assert made.unsettled([PreparedXa("open", "0-1-5", "0-1-4")]) == {"committed before"}


@pytest.mark.parametrize("key", ["PRIMARY KEY (id)", "UNIQUE KEY (id)"])
def test_a_snapshot_under_xa_transactions_ends_equal(
    shop: Database, make_maria: Make, mariadb: LocalMariaDB, key: str
) -> None:
    shop.execute(
        f"CREATE TABLE t (id int NOT NULL, n int NOT NULL, {key})",
        "INSERT INTO t SELECT seq, 0 FROM seq_1_to_999",
    )
    maria = make_maria(chunk_rows=100)
    maria.until_read_under(XaWriters(mariadb, shop.name))
    assert maria.same("t", "id, n") if "PRIMARY" in key else _left(maria) == _there(shop)


def _left(maria: MariaCapture) -> list[tuple[Any, ...]]:
    return sorted(maria.rows_left("t").elements())


def _there(shop: Database) -> list[tuple[bytes, ...]]:
    found = shop.execute("SELECT id, n FROM t")
    return sorted(tuple(b"%d" % cell for cell in cells) for cells in found)
