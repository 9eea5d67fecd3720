"""Rows of an event: whole ones are packed, and one that is cut is one clear error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.decode import mysqlvalues as values
from cdc.decode.binlogevents import RowsEvent
from cdc.mariadb.images import is_whole, packed
from schemas.change import Op
from schemas.forms import Read, read_pgoutput

READERS = (values.integer(4, unsigned=False), values.prefixed(1, None), values.decimal(10, 2))
ROW = b"\x00\x07\0\0\0\x02hi\x80\0\0\x01\x32"
NULLS = b"\x06\x08\0\0\0"


def event(kind: bytes, data: bytes, width: int = 3, bitmap: bytes = b"\x07") -> RowsEvent:
    return RowsEvent(kind, 1, width, bitmap, bitmap, data, ends=True)


def test_inserts_updates_and_deletes_are_packed() -> None:
    seven, eight = [b"7", b"hi", b"1.50"], [b"8", None, None]
    found = {kind: packed(event(kind, ROW + NULLS), READERS) for kind in (b"I", b"U", b"D")}
    assert [read_pgoutput(item) for item in found[b"I"]] == [
        Read(Op.CREATE, None, seven),
        Read(Op.CREATE, None, eight),
    ]
    assert [read_pgoutput(item) for item in found[b"U"]] == [Read(Op.UPDATE, seven, eight)]
    assert [read_pgoutput(item) for item in found[b"D"]] == [
        Read(Op.DELETE, seven, None),
        Read(Op.DELETE, eight, None),
    ]


@pytest.mark.parametrize("kind", [b"I", b"U", b"D"])
def test_rows_that_are_cut_are_one_clear_error(kind: bytes) -> None:
    data = ROW + NULLS
    ends = {0, len(ROW), len(data)} if kind != b"U" else {0, len(data)}
    for end in range(len(data) + 1):
        if end in ends:
            packed(event(kind, data[:end]), READERS)
        else:
            with pytest.raises(ValueError, match="ends behind"):
                packed(event(kind, data[:end]), READERS)


@given(st.binary(max_size=60), st.sampled_from([b"I", b"U", b"D"]))
def test_any_bytes_are_rows_or_a_value_error(data: bytes, kind: bytes) -> None:
    try:
        items = packed(event(kind, data), READERS)
    except ValueError:
        return
    assert all(read_pgoutput(item) for item in items)


def test_images_of_some_columns_are_not_whole() -> None:
    assert is_whole(event(b"U", b"", bitmap=b"\x07"))
    assert not is_whole(event(b"U", b"", bitmap=b"\x05"))
    with pytest.raises(ValueError, match="2 columns where the table has 3"):
        packed(event(b"I", b"", width=2), READERS)
