"""Rows of a result: the same lines by both executors, however they arrive; what is odd is told."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymysql.cursors import SSCursor

from cdc.decode.mysqltypes import KINDS, MysqlColumn
from cdc.mariadb.connection import leave, unread
from cdc.mariadb.results import Results, lines, result_reader
from cdc.mariadb.selecting import reader
from schemas.executor import SWITCH
from schemas.forms import copy_line

Row = Sequence[bytes | None]

LONGEST = 0xFFFFFF
EOF = b"\xfe\x03\x00\x02\x00"  # three warnings
KILLED = b"\xff" + struct.pack("<H", 1317) + b"#70100Query execution was interrupted"
COLUMNS = (
    MysqlColumn("id", "int", "int"),
    MysqlColumn("at", "timestamp", "timestamp(6)", size=6),
    MysqlColumn("note", "longtext", "longtext", charset="utf8mb4"),
)
FIRST = len(COLUMNS) + 3  # number of the packet that has the first row
ROWS: list[Row] = [
    (b"1", b"2024-01-01 00:00:00.120000", b"tab\there"),
    (b"0002", None, None),
    (b"-3", b"2024-01-01 00:00:00", b"x" * 300),
    (b"4", None, b""),
]
LINES = [
    rb"1	2024-01-01 00:00:00.12+00	tab\there",
    rb"2	\N	\N",
    b"-3\t2024-01-01 00:00:00+00\t" + b"x" * 300,
    rb"4	\N	",
]


@pytest.fixture(params=["plain", "compiled"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(SWITCH, request.param)
    return str(request.param)


MADE: list[SSCursor] = []


@pytest.fixture(autouse=True)
def left() -> Iterator[None]:
    """Nobody waits for the rest of an answer; the driver would."""
    yield
    for cursor in MADE:
        leave(cursor.connection)
    MADE.clear()


def both(columns: Sequence[MysqlColumn]) -> list[Results]:
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plain", "compiled"):
            patch.setenv(SWITCH, name)
            found.append(result_reader(columns))
    return found


def sized(cell: bytes | None) -> bytes:
    if cell is None:
        return b"\xfb"
    size = len(cell)
    if size < 0xFB:
        return bytes([size]) + cell
    if size < 1 << 16:
        return b"\xfc" + struct.pack("<H", size) + cell
    if size < 1 << 24:
        return b"\xfd" + struct.pack("<I", size)[:3] + cell
    return b"\xfe" + struct.pack("<Q", size) + cell


def payload(row: Row) -> bytes:
    return b"".join(map(sized, row))


def packets(payloads: Sequence[bytes], number: int = FIRST) -> bytes:
    out = []
    for whole in payloads:
        parts = [whole[at : at + LONGEST] for at in range(0, len(whole) + 1, LONGEST)]
        for part in parts:
            out.append(struct.pack("<I", len(part))[:3] + bytes([number % 256]) + part)
            number += 1
    return b"".join(out)


ANSWER = packets([*map(payload, ROWS), EOF])


class Pieces(io.RawIOBase):
    """A stream that arrives in pieces, and then ends or breaks."""

    def __init__(self, pieces: Sequence[bytes], *, breaks: bool) -> None:
        self._left = b"".join(pieces)
        self._ends = [len(piece) for piece in pieces if piece]
        self._breaks = breaks

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._ends:
            if self._breaks:
                raise ConnectionResetError("gone")
            return 0
        size = min(self._ends[0], len(buffer))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        self._ends[:1] = [self._ends[0] - size] if size < self._ends[0] else []
        return size


class Peer:
    """The socket of a server that has nothing but one answer."""

    def settimeout(self, seconds: float | None) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


def asked(
    rows: bytes, cuts: Sequence[int] = (), block: int = 1 << 18, *, breaks: bool = False
) -> SSCursor:
    """A driver's cursor whose query is answered with `rows`, which arrive cut."""
    field = b"".join(map(sized, (b"def", b"", b"", b"", b"c", b"c")))
    field += b"\x0c" + struct.pack("<HIBHB", 45, 80, 253, 0, 0) + b"\0\0"
    head = packets([bytes([len(COLUMNS)]), *[field] * len(COLUMNS), EOF], 1)
    pieces = [head, *[rows[start:end] for start, end in pairwise((0, *cuts, len(rows)))]]
    connection: Any = pymysql.connections.Connection(defer_connect=True, ssl_disabled=True)
    connection._sock, connection._current_timeout = Peer(), None
    connection._rfile = io.BufferedReader(Pieces(pieces, breaks=breaks), block)
    connection.use_unicode, connection.decoders = False, {}
    cursor = SSCursor(connection)
    cursor.execute("SELECT")
    MADE.append(cursor)
    return cursor


def read(cursor: SSCursor) -> list[bytes]:
    return [line for run in lines(cursor, COLUMNS) for line in run]


def test_rows_arrive_cut_at_any_byte(executor: str) -> None:
    for at in range(len(ANSWER) + 1):
        cursor = asked(ANSWER, [at])
        assert read(cursor) == LINES
        assert not unread(cursor)
    for block in (1, 7, 64):
        assert read(asked(ANSWER, range(1, len(ANSWER)), block)) == LINES
        assert read(asked(ANSWER, block=block)) == LINES


def test_the_end_of_the_rows_is_the_drivers(executor: str) -> None:
    cursor = asked(ANSWER)
    assert read(cursor) == LINES
    assert vars(cursor)["_result"].warning_count == 3
    assert cursor.fetchone() is None
    assert read(asked(packets([EOF]))) == []


@pytest.mark.parametrize("size", [250, 251, 252, 65_535, 65_536, 70_000, LONGEST, 2 * LONGEST])
def test_cells_of_every_size_between_others(executor: str, size: int) -> None:
    large: Row = (b"7", None, b"y" * (size - 1) + b"\n")
    cursor = asked(packets([payload(ROWS[0]), payload(large), payload(ROWS[0]), EOF]))
    assert read(cursor) == [LINES[0], rb"7	\N	" + b"y" * (size - 1) + rb"\n", LINES[0]]


def test_a_row_of_just_one_whole_packet_goes_on_in_an_empty_one(executor: str) -> None:
    large = payload((b"7", None, b"y" * (LONGEST - 7)))
    assert len(large) == LONGEST
    found = read(asked(packets([payload(ROWS[1]), large, payload(ROWS[1]), EOF])))
    assert [len(line) for line in found] == [len(LINES[1]), LONGEST - 2, len(LINES[1])]


def test_more_rows_than_packets_have_numbers(executor: str) -> None:
    rows = packets([*map(payload, ROWS * 200), EOF])
    assert read(asked(rows)) == LINES * 200
    assert read(asked(rows, block=1_000)) == LINES * 200


def test_rows_come_by_the_block_and_are_bounded_by_it(executor: str) -> None:
    cursor = asked(packets([*map(payload, ROWS * 500), EOF]), block=8_192)
    runs = list(lines(cursor, COLUMNS))
    assert len(runs) < 60
    assert max(sum(map(len, run)) for run in runs) < 2 * 8_192


def test_an_error_amid_the_rows_is_the_drivers_own(executor: str) -> None:
    for rows in range(len(ROWS) + 1):
        cursor = asked(packets([*map(payload, ROWS[:rows]), KILLED]))
        with pytest.raises(pymysql.OperationalError, match="interrupted") as error:
            read(cursor)
        assert error.value.args[0] == 1317
        assert not unread(cursor)


@pytest.mark.parametrize("breaks", [False, True])
def test_a_connection_that_is_lost_is_the_drivers_own_error(executor: str, *, breaks: bool) -> None:
    for end in range(len(ANSWER)):
        cursor = asked(ANSWER[:end], breaks=breaks)
        with pytest.raises(pymysql.OperationalError, match="Lost connection") as error:
            read(cursor)
        assert error.value.args[0] == 2013
        assert not cursor.connection.open


def test_a_packet_out_of_order_is_the_drivers_own_error(executor: str) -> None:
    for row in range(3):
        rows = packets([*map(payload, ROWS[:row])])
        with pytest.raises(pymysql.InternalError, match="sequence number"):
            read(asked(rows + packets([payload(ROWS[0])], 99)))


def test_a_result_left_in_its_middle_goes_on_where_it_was(executor: str) -> None:
    cursor = asked(packets([*map(payload, ROWS * 50), EOF]), block=256)
    runs = lines(cursor, COLUMNS)
    first = next(runs)
    assert unread(cursor)
    assert [*first, *[line for run in runs for line in run]] == LINES * 50
    assert not unread(cursor)


@pytest.mark.parametrize("before", [0, 1])
def test_a_row_that_is_cut_or_too_long_is_refused(executor: str, before: int) -> None:
    whole = payload(ROWS[2])
    wrong = [*[whole[:end] for end in range(len(whole))], whole + b"\0", whole + b"\xfb"]
    wrong += [b"\x011\xfb\xff", b"\x011\xfb\xfe" + b"\xff" * 8 + b"x" * 9, b"\x011\xfb\xfc\1"]
    for row in wrong:
        cursor = asked(packets([*[payload(ROWS[0])] * before, row, EOF]))
        with pytest.raises(pymysql.InternalError, match="cannot be read") as error:
            read(cursor)
        assert error.value.args[0] == 2027


def test_a_value_that_is_none_of_its_type_is_refused(executor: str) -> None:
    for number in (b"one", b"", b"-", b"9" * 5_000):
        with pytest.raises(pymysql.InternalError, match="cannot be read"):
            read(asked(packets([payload((number, None, None)), EOF])))


def test_a_first_cell_that_begins_as_the_end_does_is_a_row(executor: str) -> None:
    odd = b"\xfe" + struct.pack("<Q", 2) + b"42" + b"\xfb\xfb"
    assert read(asked(packets([payload(ROWS[1]), odd, EOF]))) == [LINES[1], rb"42	\N	\N"]


def test_what_of_the_driver_is_used_is_there() -> None:
    """It is not public: a driver that has changed is to be looked at before it is used."""
    cursor = asked(ANSWER)
    connection, result = vars(cursor.connection), vars(cursor)["_result"]
    assert connection["_result"] is result
    assert connection["_next_seq_id"] == FIRST
    assert result.unbuffered_active
    assert callable(result._read_row_from_packet)
    assert cursor.fetchone() == ROWS[0]
    assert connection["_next_seq_id"] == FIRST + 1
    assert bytes(connection["_rfile"].peek()) == ANSWER[len(packets([payload(ROWS[0])])) :]


def column(kind: str) -> MysqlColumn:
    return MysqlColumn("c", kind, kind, size=6, precision=10, scale=2)


EDGES: list[bytes | None] = [
    *[
        None,
        b"",
        b"0",
        b"00",
        b"-0",
        b"-00",
        b"007",
        b"-007",
        b"+7",
        b" 7",
        b"7 ",
        b"1_0",
        b"-",
        b"--5",
    ],
    *[b"0.10", b"-0.10", b"00.50", b"-00.5", b".5", b"-.5", b"5.", b"1.2.3", b"1e5", b"-1.5e-300"],
    *[b"18446744073709551615", b"-9223372036854775808", b"9" * 65, b"0" * 30 + b"1", b"1" * 5_000],
    *[b"2024-01-01 00:00:00.100000", b"00:00:00.000000", b"-838:59:59", b"...", b".000", b"0000"],
    *[b"\\N", b"\\", b"a\tb\nc\rd\be\ff\vg\0h", bytes(range(256)), b"\xff\xfb\xfe", b"{}"],
]


def outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (ValueError, OverflowError) as error:
        return str(error)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_of_column_makes_the_same_of_any_text(kind: str) -> None:
    columns = [column("int"), column(kind), column("varchar")]
    plain, compiled = both(columns)
    texts = reader(columns)
    for cell in EDGES:
        row = (b"1", cell, b"\\")
        found = outcome(lambda row=row: compiled.line(payload(row)))
        assert found == outcome(lambda row=row: plain.line(payload(row)))
        assert found == outcome(lambda row=row: copy_line(texts(row))[:-1])


Cells = st.one_of(
    st.none(), st.binary(max_size=300), st.sampled_from(EDGES), st.from_regex(rb"-?[0-9.:\- ]*")
)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[list[MysqlColumn], bytes, int]:
    """Rows of some columns as packets, with a little harm done to them."""
    columns = [column(kind) for kind in draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1))]
    width = len(columns)
    rows = draw(st.lists(st.lists(Cells, min_size=width, max_size=width), max_size=5))
    number = draw(st.integers(0, 255))
    data = packets([*map(payload, rows), draw(st.sampled_from([EOF, KILLED, b""]))], number)
    at = draw(st.integers(0, len(data)))
    harm = draw(st.one_of(st.just(b""), st.binary(min_size=1, max_size=9)))
    return columns, data[:at] + harm + data[at + len(harm) * draw(st.integers(0, 1)) :], number


@given(blocks())
def test_any_block_is_the_same_lines_or_the_same_error_compiled(
    block: tuple[list[MysqlColumn], bytes, int],
) -> None:
    columns, data, number = block
    plain, compiled = both(columns)
    for end in {len(data), len(data) // 2, max(len(data) - 1, 0)}:
        found = outcome(lambda end=end: plain.take(data[:end], number))
        assert outcome(lambda end=end: compiled.take(data[:end], number)) == found
    assert outcome(lambda: compiled.line(data)) == outcome(lambda: plain.line(data))
