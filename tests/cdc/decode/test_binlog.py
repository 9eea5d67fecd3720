"""Events of the binary log, byte by byte, and what is none of them."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.decode import binlog
from cdc.decode.binlogevents import (
    Event,
    Format,
    GtidList,
    Heartbeat,
    Ignored,
    Incident,
    Payload,
    PreviousGtids,
    Query,
    Rotate,
    RowsEvent,
    Stopped,
    TableEvent,
    Transaction,
    XaPrepare,
    Xid,
)
from cdc.decode.gtid import Gtid, Interval, Intervals, MysqlGtid

FORMAT = struct.pack("<H50sIB", 4, b"11.4.5-MariaDB-log", 0, 19) + bytes(40)
ROWS = b"\x12\0\0\0\0\0\x01\0"
XID = struct.pack("<IBB", 1, 3, 2) + b"abcde"


def event(kind: int, body: bytes, *, flags: int = 0, checksum: bool = True) -> bytes:
    size = 19 + len(body) + (4 if checksum else 0)
    data = struct.pack("<IBIIIH", 1_700_000_000, kind, 7, size, 4096, flags) + body
    return data + struct.pack("<I", zlib.crc32(data)) if checksum else data


def compressed(data: bytes) -> bytes:
    return b"\x82" + struct.pack(">H", len(data)) + zlib.compress(data)


EVENTS: list[tuple[int, bytes, Event]] = [
    (4, struct.pack("<Q", 4) + b"binlog.000002", Rotate("binlog.000002", 4)),
    (
        162,
        struct.pack("<QIB", 9, 3, 1 | 32) + bytes(6),
        Transaction(Gtid(3, 7, 9), standalone=True, ddl=True),
    ),
    (
        162,
        struct.pack("<QIB", 9, 3, 64 | 2) + bytes(8) + XID,
        Transaction(
            Gtid(3, 7, 9),
            standalone=False,
            ddl=False,
            prepared=True,
            xid=struct.pack("<III", 1, 3, 2) + b"abcde",
        ),
    ),
    (
        162,
        struct.pack("<QIBB", 9, 3, 32, 4) + bytes(8),
        Transaction(Gtid(3, 7, 9), standalone=False, ddl=True, alter="commit"),
    ),
    (163, struct.pack("<IIIQ", 1, 0, 1, 5), GtidList((Gtid(0, 1, 5),))),
    (
        2,
        struct.pack("<IIBHH", 1, 0, 4, 0, 3) + b"abc" + b"shop\0" + b"BEGIN",
        Query("shop", "BEGIN", 0),
    ),
    (
        165,
        struct.pack("<IIBHH", 1, 0, 0, 1, 0) + b"\0" + compressed(b"DROP TABLE x"),
        Query("", "DROP TABLE x", 1),
    ),
    (16, struct.pack("<Q", 77), Xid(77)),
    (
        38,
        struct.pack("<BIII", 1, 1, 3, 2) + b"abcde",
        XaPrepare(struct.pack("<III", 1, 3, 2) + b"abcde", one_phase=True),
    ),
    (19, struct.pack("<IH", 18, 0) + b"\1\0body", TableEvent(18, b"\1\0body")),
    (23, ROWS + b"\2\3data", RowsEvent(b"I", 18, 2, b"\3", b"\3", b"data", ends=True)),
    (31, ROWS + b"\2\0\2\1\2data", RowsEvent(b"U", 18, 2, b"\1", b"\2", b"data", ends=True)),
    (
        168,
        ROWS + b"\2\3" + compressed(b"x" * 300),
        RowsEvent(b"D", 18, 2, b"\3", b"\3", b"x" * 300, ends=True),
    ),
    (26, b"\1\0\4lost", Incident(1, "lost")),
    (27, b"binlog.000002", Heartbeat("binlog.000002")),
    (3, b"", Stopped()),
    (160, b"INSERT", Ignored("Annotate_rows")),
    (18, b"whatever", Query("", "LOAD DATA", 0)),
    (
        33,
        b"\0" + UUID(int=7).bytes + struct.pack("<Q", 3),
        Transaction(MysqlGtid(UUID(int=7), "", 3), standalone=None, ddl=False),
    ),
    (
        42,
        bytes([2, 80, 0, 0, 0, 2, *([0] * 15), 14, 4, 12, 6, 8]) + b"blue" + bytes(10),
        Transaction(MysqlGtid(UUID(int=7), "blue", 3), standalone=None, ddl=False),
    ),
    (34, b"\0" + bytes(16) + bytes(8), Transaction(None, standalone=None, ddl=False)),
    (
        35,
        struct.pack("<Q16sQQQ", 1, UUID(int=7).bytes, 1, 1, 5),
        PreviousGtids(Intervals({(UUID(int=7), ""): [Interval(1, 4)]})),
    ),
    (
        39,
        ROWS + b"\2\0\2\1\2data",
        RowsEvent(b"U", 18, 2, b"\1", b"\2", b"data", ends=True, parts=True),
    ),
    (40, b"\2\1\0\3\1\x09\0data", Payload(b"data", compressed=True, size=9)),
    (40, b"\2\3\xfc\xff\0\0data", Payload(b"data", compressed=False, size=4)),
    (41, b"\1\1f\2\1\x09\0", Heartbeat("f", 9)),
]


@pytest.mark.parametrize(("kind", "body", "wanted"), EVENTS)
def test_each_event_is_read_as_its_writer_has_it(kind: int, body: bytes, wanted: Event) -> None:
    header, found = binlog.decode(event(kind, body), checksum=True)
    assert found == wanted
    assert header.server == 7
    assert header.end == 4096
    assert binlog.decode(event(kind, body, checksum=False), checksum=False)[1] == wanted


OPEN_ENDED = {2, 3, 4, 18, 19, 23, 27, 31, 33, 34, 39, 40, 41, 160, 162}
"""What ends with a text or rows of any length, or with nothing."""


@pytest.mark.parametrize(("kind", "body", "wanted"), EVENTS)
def test_an_event_that_is_cut_is_one_clear_error(kind: int, body: bytes, wanted: Event) -> None:
    for end in range(len(body)):
        data = event(kind, body[:end])
        if kind not in OPEN_ENDED:
            with pytest.raises(ValueError, match="damaged"):
                binlog.decode(data, checksum=True)
            continue
        with suppress(ValueError):
            found = binlog.decode(data, checksum=True)[1]
            assert found != wanted or isinstance(wanted, (Ignored, Transaction, Query))


def test_a_format_says_whether_what_follows_has_checksums() -> None:
    for algorithm in (0, 1):
        body = FORMAT + bytes([algorithm])
        data = event(15, body)
        if not algorithm:
            data = data[:-4] + bytes(4)
        assert binlog.decode(data, checksum=False)[1] == Format(
            "11.4.5-MariaDB-log", bool(algorithm)
        )
    with pytest.raises(ValueError, match="version 3"):
        binlog.decode(event(15, b"\3\0" + FORMAT[2:] + b"\1"), checksum=False)
    with pytest.raises(ValueError, match="is cut"):
        binlog.decode(event(15, b"\4\0"), checksum=False)


def test_a_flipped_byte_is_found_by_the_checksum() -> None:
    data = bytearray(event(16, struct.pack("<Q", 77)))
    data[20] ^= 1
    with pytest.raises(ValueError, match="checksum of a Xid event"):
        binlog.decode(bytes(data), checksum=True)


@pytest.mark.parametrize("kind", [36, 37, 99])
def test_an_event_nobody_knows_is_named_unless_it_may_be_ignored(kind: int) -> None:
    with pytest.raises(ValueError, match=r"MySQL|kind 99"):
        binlog.decode(event(kind, b"x"), checksum=True)
    assert isinstance(binlog.decode(event(kind, b"x", flags=0x80), checksum=True)[1], Ignored)


def test_rows_with_extra_data_are_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes of extra"):
        binlog.decode(event(30, ROWS + b"\5\0abc\2\3"), checksum=True)


@pytest.mark.parametrize(
    "data",
    [b"\x02\1x", b"\x85\1x", b"\x81\3" + zlib.compress(b"xy"), b"\x81\1" + zlib.compress(b"xy")],
)
def test_what_was_not_compressed_as_said_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="compress"):
        binlog.decode(event(166, ROWS + b"\2\3" + data), checksum=True)


@given(body=st.binary(max_size=200), kind=st.integers(0, 255), checksum=st.booleans())
def test_any_bytes_are_an_event_or_a_value_error(*, body: bytes, kind: int, checksum: bool) -> None:
    for data in (body, event(kind, body, checksum=checksum)):
        try:
            binlog.decode(data, checksum=checksum)
        except ValueError:
            continue
