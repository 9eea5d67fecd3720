"""Rows as sources hand them over: COPY text against a real server, pgoutput against torn bytes."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema_strategies import ALPHABET
from schemas.change import ABSENT, Cell, Change, Op
from schemas.forms import READERS, Read, copy_line, read_copy, read_pgoutput

CELLS = st.none() | st.text(ALPHABET, max_size=20).map(str.encode)
COPY_FRAGMENTS = [
    "\\",
    "N",
    "\\N",
    "\\.",
    "\t",
    "\n",
    "\r",
    "\b",
    "\f",
    "\v",
    "x41",
    "101",
    "é",
    "😀",
]
NASTY_CELLS = CELLS | st.lists(st.sampled_from(COPY_FRAGMENTS)).map(lambda f: "".join(f).encode())


def tuple_data(cells: list[Cell]) -> bytes:
    out = len(cells).to_bytes(2, "big")
    for cell in cells:
        if cell is None:
            out += b"n"
        elif cell is ABSENT:
            out += b"u"
        else:
            out += b"t" + len(cell).to_bytes(4, "big") + cell
    return out


ROWS = st.lists(CELLS | st.just(ABSENT), max_size=5)


@pytest.fixture(scope="module")
def cells_table(postgres: Any) -> Any:
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TEMP TABLE cells (place int, a text, b text)")
        yield connection
        connection.rollback()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(NASTY_CELLS, NASTY_CELLS), min_size=1, max_size=20))
def test_copy_lines_mean_the_same_to_the_server_in_both_directions(
    cells_table: psycopg.Connection[Any], rows: list[tuple[bytes | None, bytes | None]]
) -> None:
    cells_table.execute("TRUNCATE cells")
    with cells_table.cursor() as cursor:
        with cursor.copy("COPY cells FROM STDIN") as copy:
            for place, row in enumerate(rows):
                copy.write(copy_line([b"%d" % place, *row]))
        stored = cursor.execute("SELECT a, b FROM cells ORDER BY place").fetchall()
        with cursor.copy("COPY (SELECT a, b FROM cells ORDER BY place) TO STDOUT") as copy:
            lines = [bytes(line).removesuffix(b"\n") for line in copy]
    assert [[None if c is None else c.encode() for c in row] for row in stored] == [
        *map(list, rows)
    ]
    assert [read_copy(line) for line in lines] == [Read(Op.READ, None, list(row)) for row in rows]


@given(st.lists(NASTY_CELLS, min_size=1))
def test_a_copy_line_is_read_back(cells: list[bytes | None]) -> None:
    line = copy_line(cells)
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert read_copy(line[:-1]).after == cells


@given(ROWS, ROWS)
def test_every_kind_of_row_message_is_read(old: list[Cell], new: list[Cell]) -> None:
    before, after = tuple_data(old), tuple_data(new)
    assert read_pgoutput(b"IN" + after) == Read(Op.CREATE, None, new)
    assert read_pgoutput(b"UN" + after) == Read(Op.UPDATE, None, new)
    assert read_pgoutput(b"UK" + before + b"N" + after) == Read(Op.UPDATE, old, new, only_key=True)
    assert read_pgoutput(b"DK" + before) == Read(Op.DELETE, old, None, only_key=True)
    assert read_pgoutput(b"DO" + before) == Read(Op.DELETE, old, None)
    assert read_pgoutput(b"T") == Read(Op.TRUNCATE, None, None)


def test_a_full_old_row_fills_what_the_new_one_left_out() -> None:
    item = b"UO" + tuple_data([b"1", b"long"]) + b"N" + tuple_data([b"2", ABSENT])
    assert read_pgoutput(item) == Read(Op.UPDATE, [b"1", b"long"], [b"2", b"long"])


@given(st.data())
def test_a_torn_message_is_a_value_error(data: st.DataObject) -> None:
    row = tuple_data(data.draw(ROWS))
    whole = data.draw(st.sampled_from([b"IN" + row, b"DK" + row, b"UK" + row + b"N" + row]))
    torn = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(ValueError, match=r"tuple|ends|message"):
        read_pgoutput(torn)


@given(ROWS, st.binary(min_size=1, max_size=3))
def test_bytes_behind_a_message_are_a_value_error(cells: list[Cell], more: bytes) -> None:
    with pytest.raises(ValueError, match="behind the last tuple"):
        read_pgoutput(b"IN" + tuple_data(cells) + more)


@settings(max_examples=2_000)
@given(
    st.binary(max_size=60)
    | st.tuples(st.sampled_from([b"IN", b"UN", b"UK", b"UO", b"DK"]), st.binary(max_size=60)).map(
        b"".join
    )
)
def test_random_bytes_are_read_or_refused_never_worse(data: bytes) -> None:
    try:
        row = read_pgoutput(data)
    except ValueError:
        return
    assert isinstance(row, Read)


def test_binary_columns_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="column kind 0x62"):
        read_pgoutput(b"IN\x00\x01b\x00\x00\x00\x01x")


def test_a_change_is_its_own_row() -> None:
    change = Change(Op.UPDATE, [b"1"], [b"2"])
    assert READERS["changes"](change) == Read(Op.UPDATE, [b"1"], [b"2"])
