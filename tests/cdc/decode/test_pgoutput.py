"""pgoutput's messages by the letter of the protocol, and what is none of them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.decode import pgoutput
from cdc.decode.lsn import format_lsn, parse_lsn
from schemas.table import TableId

MOMENT = 831_168_000_000_000
MOMENT_1970 = MOMENT + 946_684_800_000_000
KINDS = b"BCRYOTMSEcAIUDXbPK"


def text(value: str) -> bytes:
    return value.encode() + b"\0"


RELATION = (
    b"R"
    + struct.pack(">I", 16385)
    + text("public")
    + text("odd item")
    + b"d"
    + struct.pack(">H", 2)
    + b"\x01"
    + text("id")
    + struct.pack(">Ii", 23, -1)
    + b"\x00"
    + text("price")
    + struct.pack(">Ii", 1700, 655366)
)

MESSAGES = {
    b"B" + struct.pack(">QqI", 0x16B374D8, MOMENT, 731): pgoutput.Begin(
        0x16B374D8, MOMENT_1970, 731
    ),
    b"C\0" + struct.pack(">QQq", 1, 2, MOMENT): pgoutput.Commit(1, 2, MOMENT_1970),
    RELATION: pgoutput.Relation(
        16385,
        TableId("public", "odd item"),
        "d",
        (
            pgoutput.RelationColumn("id", 23, -1, identity=True),
            pgoutput.RelationColumn("price", 1700, 655366, identity=False),
        ),
    ),
    b"Y" + struct.pack(">I", 99) + text("") + text("int4"): pgoutput.TypeName(
        99, "pg_catalog", "int4"
    ),
    b"O" + struct.pack(">Q", 5) + text("elsewhere"): pgoutput.Origin(5, "elsewhere"),
    b"T" + struct.pack(">IBII", 2, 3, 16385, 16390): pgoutput.Truncate((16385, 16390)),
    b"M\1" + struct.pack(">Q", 9) + text("p") + struct.pack(">I", 2) + b"\0x": (
        pgoutput.LogicalMessage(transactional=True, lsn=9, prefix="p", content=b"\0x")
    ),
    b"S" + struct.pack(">IB", 731, 1): pgoutput.StreamStart(731, first=True),
    b"E": pgoutput.StreamStop(),
    b"c" + struct.pack(">IBQQq", 731, 0, 1, 2, MOMENT): pgoutput.StreamCommit(
        731, 1, 2, MOMENT_1970
    ),
    b"A" + struct.pack(">II", 731, 732): pgoutput.StreamAbort(731, 732),
}


@pytest.mark.parametrize("data", MESSAGES, ids=lambda data: chr(data[0]))
def test_each_message_is_read_as_the_manual_has_it(data: bytes) -> None:
    assert pgoutput.decode(data) == MESSAGES[data]


@pytest.mark.parametrize("data", MESSAGES, ids=lambda data: chr(data[0]))
def test_a_message_that_is_cut_or_too_long_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="bytes too many"):
        pgoutput.decode(data + b"\0")
    for end in range(1, len(data)):
        with pytest.raises(ValueError, match=r"wanted|has no end|too many"):
            pgoutput.decode(data[:end])


@pytest.mark.parametrize("data", [d for d in MESSAGES if d[:1] in b"RYTM"], ids=lambda d: chr(d[0]))
def test_inside_a_stream_a_message_carries_its_xid(data: bytes) -> None:
    streamed = data[:1] + struct.pack(">I", 731) + data[1:]
    assert pgoutput.decode(streamed, streamed=True) == MESSAGES[data]


@pytest.mark.parametrize("data", [b"", b"X", b"\0", b"bprepare", b"I\0\0\0\1N\0\0"])
def test_an_unknown_kind_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ValueError, match="is not known"):
        pgoutput.decode(data)


@given(st.sampled_from(list(KINDS)), st.binary(max_size=200), st.booleans())
def test_no_bytes_raise_anything_but_value_error(
    kind: int,
    rest: bytes,
    streamed: bool,  # noqa: FBT001 - drawn
) -> None:
    try:
        pgoutput.decode(bytes([kind]) + rest, streamed=streamed)
    except ValueError:
        return


@given(st.integers(min_value=0, max_value=(1 << 64) - 1))
def test_a_log_sequence_number_survives_its_text(lsn: int) -> None:
    assert parse_lsn(format_lsn(lsn)) == lsn


@pytest.mark.parametrize("wrong", ["", "16", "16/", "/16", "16/123456789", "G/0", "0/0 "])
def test_what_is_no_log_sequence_number_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="no log sequence number"):
        parse_lsn(wrong)
