"""Rows of a chunk that what left between its two bounds made stale; no server is needed to say."""

from __future__ import annotations

from uuid import UUID

from cdc.decode.gtid import Intervals
from cdc.mariadb.dialect import View
from cdc.mariadb.overlap import Overlap
from cdc.mariadb.position import Place
from schemas.change import Origin, Rows
from schemas.table import Column, TableId, TableSchema, Type

SERVER = UUID(int=7)
SEEN = Intervals.parse(f"{SERVER}:1-5")
PLACE = Place("binlog.000001", 900)
COLUMNS = tuple(Column(name, Type("int32", "mysql:int"), nullable=False) for name in ("id", "n"))
SCHEMA = TableSchema(TableId("shop", "t"), COLUMNS, ("id",))
LINES = [b"1\t0", b"2\t0", b"3\t0"]


def cell(text: bytes) -> bytes:
    return b"t" + len(text).to_bytes(4, "big") + text


def row(id_: bytes, n: bytes) -> bytes:
    return b"\0\2" + cell(id_) + cell(n)


def run(number: int, *items: bytes, table: str = "t") -> Rows:
    schema = TableSchema(TableId("shop", table), COLUMNS, ("id",))
    origin = Origin(1, number, 0, f"{SERVER}:{number}")
    return Rows(schema, "pgoutput", origin, list(items), range(1, len(items) + 1))


def overlap(seen: Intervals | None = SEEN, *, by_key: bool = True) -> Overlap:
    return Overlap(View(PLACE, seen), SCHEMA, by_key=by_key)


def test_rows_touched_by_a_transaction_the_view_may_lack_stay_behind() -> None:
    made = overlap()
    made.note([run(6, b"UO" + row(b"2", b"0") + b"N" + row(b"3", b"1"))])
    assert made.kept(LINES) == [b"1\t0"]
    assert not made.spoiled


def test_what_the_view_has_for_sure_takes_nothing_away() -> None:
    made = overlap()
    made.note([run(5, b"DO" + row(b"2", b"0"))])
    made.note([run(6, b"DO" + row(b"2", b"0"), table="other")])
    assert made.kept(LINES) == LINES


def test_a_view_placed_exactly_takes_nothing_away() -> None:
    made = overlap(None)
    made.note([run(6, b"DO" + row(b"2", b"0"))])
    assert made.kept(LINES) == LINES


def test_a_table_that_was_emptied_between_has_its_chunk_read_again() -> None:
    made = overlap()
    made.note([run(6, b"T")])
    assert made.spoiled


def test_a_table_without_a_key_has_its_chunk_read_again() -> None:
    made = overlap(by_key=False)
    made.note([run(6, b"IN" + row(b"2", b"0"))])
    assert made.spoiled
