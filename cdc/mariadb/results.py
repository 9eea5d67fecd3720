"""Rows of a query, straight from the connection's stream: packets in, lines of COPY text out.

    server ══▶ the driver's buffer ─▶ take() ─▶ lines, of all rows that lie there whole
                                  └─▶ the driver ─▶ line(), of one that does not; the end; errors

The driver runs the query, reads what its columns are, and all that is no whole row in its buffer:
a row cut by the buffer's end, one of more than 16 MB, what ends the rows, an error amid them, a
connection that is lost. So its errors and deadlines stay its own, and so does its state, which is
told where the next packet begins. Memory is that of one block, or of one row where that is larger.

One reader is made per query. `_Plain` is the reference; the same is done in C
(schemas/_results.pyx) where that was built.

Sources: MySQL and MariaDB documentation, "Protocol::Packet", "Text Resultset Row"; PyMySQL 1.1 and
1.2, `Connection._read_packet` and `MySQLResult`, of which parts that are not public are used here
and in `connection.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import pymysql
from pymysql.constants import CR
from pymysql.cursors import SSCursor
from pymysql.protocol import MysqlPacket

from cdc.decode.mysqltypes import MysqlColumn, printed, text
from schemas.executor import compiled
from schemas.forms import copy_line

__all__ = ["Results", "lines", "result_reader"]

_Make = Callable[[bytes], bytes] | None

_HEAD, _LONGEST = 4, 0xFFFFFF
_NULL = 0xFB
_EOF_SIZE = 9
_SIZE_BYTES = {0xFC: 2, 0xFD: 3, 0xFE: 8}
_UNREADABLE = (ValueError, OverflowError, AssertionError, IndexError, struct.error)
"""What a row raises, and the driver for a packet that is none."""


class Results(Protocol):
    """Reads the rows of one query."""

    width: int

    def take(self, block: bytes, number: int) -> tuple[list[bytes], int, int]:
        """Return the lines of the whole rows that begin `block`, their size, and what comes next.

        `number` is that of the first packet. Whatever is no row, or not whole, is left alone.
        Raises `ValueError` for a row that cannot be read.
        """
        ...

    def line(self, row: bytes) -> bytes:
        """Return the line of one row, whose packets' heads are cut out. Raises as `take` does."""
        ...


def result_reader(columns: Sequence[MysqlColumn]) -> Results:
    """Return what reads rows of these columns: compiled where that was built."""
    makes = tuple(map(text, columns))
    extension = compiled("schemas._results")
    if extension is None:
        return _Plain(makes)
    found: Results = extension.ResultReader(tuple(map(printed, columns)), makes)
    return found


def lines(cursor: SSCursor, columns: Sequence[MysqlColumn]) -> Iterator[list[bytes]]:
    """Yield the rows of what `cursor` asked for (`selecting.asked`) as COPY lines, as they come.

    Raises as the driver does; for a row that cannot be read `pymysql.InternalError`.
    """
    reader = result_reader(columns)
    vars(cursor)["_result"]._read_row_from_packet = MysqlPacket.get_all_data  # noqa: SLF001
    while found := _next(cursor, reader):
        yield found


def _next(cursor: SSCursor, reader: Results) -> list[bytes]:
    """Return one row, and those that came with it; none at the end."""
    try:
        row: Any = cursor.fetchone()
        if row is None:
            return []
        first = reader.line(row)
        connection = vars(cursor.connection)
        found, size, number = reader.take(_at_hand(connection), connection["_next_seq_id"])
        connection["_rfile"].read(size)
        connection["_next_seq_id"] = number
    except _UNREADABLE as error:
        text = f"a row that came cannot be read: {error}"
        raise pymysql.InternalError(CR.CR_MALFORMED_PACKET, text) from error
    return [first, *found]


def _at_hand(connection: dict[str, Any]) -> bytes:
    """Return what the driver has read of the stream and not used; it waits where that is nothing.

    An error is left to the driver: it reads next, meets it again, and tells it in its own way.
    """
    with suppress(OSError):
        return bytes(connection["_rfile"].peek())
    return b""


class _Plain:
    """The readable reader."""

    def __init__(self, makes: tuple[_Make, ...]) -> None:
        self.width = len(makes)
        self._makes = makes

    def take(self, block: bytes, number: int) -> tuple[list[bytes], int, int]:
        found, at = [], 0
        while len(block) - at >= _HEAD and block[at + 3] == number:
            size = int.from_bytes(block[at : at + 3], "little")
            row = block[at + _HEAD : at + _HEAD + size]
            if size == _LONGEST or len(row) < size or not _is_row(row):
                break
            found.append(self.line(row))
            at += _HEAD + size
            number = (number + 1) % 256
        return found, at, number

    def line(self, row: bytes) -> bytes:
        cells: list[bytes | None] = []
        at = 0
        for place, make in enumerate(self._makes):
            if at >= len(row):
                raise ValueError(f"a row ends behind {place} of {self.width} columns")
            size = row[at]
            at += 1
            if size == _NULL:
                cells.append(None)
                continue
            if size > _NULL:
                size, at = _long_size(row, at, place)
            if size > len(row) - at:
                raise ValueError(f"column {place} of a row has {size} bytes of {len(row) - at}")
            cell = row[at : at + size]
            cells.append(cell if make is None else make(cell))
            at += size
        if at != len(row):
            raise ValueError(f"a row of {self.width} columns ends at byte {at} of {len(row)}")
        return copy_line(cells)[:-1]


def _is_row(packet: bytes) -> bool:
    if packet.startswith(b"\xfe"):
        return len(packet) >= _EOF_SIZE
    return not packet.startswith(b"\xff")


def _long_size(row: bytes, at: int, place: int) -> tuple[int, int]:
    """Return a size of several bytes, whose first is before `at`, and the offset behind it."""
    more = _SIZE_BYTES.get(row[at - 1], 0)
    if not more or more > len(row) - at:
        raise ValueError(f"column {place} of a row has no size")
    return int.from_bytes(row[at : at + more], "little"), at + more
