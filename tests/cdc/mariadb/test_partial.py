"""Row images with some of their columns: what is missing is filled or absent, never NULL."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc.decode import mysqlvalues as values
from cdc.decode.binlogevents import RowsEvent
from cdc.mariadb.images import image_reader, packed
from cdc.mariadb.partial import has_keys, packed_partly
from schemas.forms import read_pgoutput

READERS = (values.integer(4, unsigned=False), values.prefixed(1, None), values.decimal(10, 2))
ROWS = b"\x00\x07\0\0\0\x02hi\x80\0\0\x01\x32" + b"\x06\x08\0\0\0"


@given(
    st.binary(max_size=60),
    st.sampled_from([b"I", b"U", b"D"]),
    st.integers(0, 7),
    st.integers(0, 7),
)
def test_any_bytes_of_partial_images_are_rows_or_a_value_error(
    data: bytes, kind: bytes, before: int, after: int
) -> None:
    images = (bytes([before]), bytes([after] if kind == b"U" else [before]))
    given = RowsEvent(kind, 1, 3, *images, data, ends=True)
    assert has_keys(given, (0,)) == bool(before & 1 or (kind == b"U" and before == 7))
    try:
        items = packed_partly(given, READERS, (0,))
    except ValueError:
        return
    assert all(read_pgoutput(item) for item in items)


def test_whole_images_are_packed_as_those_that_are_known_to_be() -> None:
    natives = [("signed", 4, 0), ("text", 1, 0), ("decimal", 10, 2)]
    for kind in (b"I", b"U", b"D"):
        given = RowsEvent(kind, 1, 3, b"\x07", b"\x07", ROWS, ends=True)
        assert packed_partly(given, READERS, (0,)) == packed(given, image_reader(READERS, natives))
