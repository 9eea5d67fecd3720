"""Rows of an event: whole ones are packed, and one that is cut is one clear error."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.decode import mysqlvalues as values
from cdc.decode.binlogevents import RowsEvent
from cdc.decode.mysqltypes import Native, hexed
from cdc.mariadb.images import Images, image_reader, is_whole, packed
from schemas.change import Op
from schemas.executor import SWITCH
from schemas.forms import Read, read_pgoutput

READERS = (values.integer(4, unsigned=False), values.prefixed(1, None), values.decimal(10, 2))
NATIVES: list[Native] = [("signed", 4, 0), ("text", 1, 0), ("decimal", 10, 2)]
ROW = b"\x00\x07\0\0\0\x02hi\x80\0\0\x01\x32"
NULLS = b"\x06\x08\0\0\0"


@pytest.fixture(params=["plain", "compiled"])
def images(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Images:
    monkeypatch.setenv(SWITCH, request.param)
    return image_reader(READERS, NATIVES)


def event(kind: bytes, data: bytes, width: int = 3, bitmap: bytes = b"\x07") -> RowsEvent:
    return RowsEvent(kind, 1, width, bitmap, bitmap, data, ends=True)


def test_inserts_updates_and_deletes_are_packed(images: Images) -> None:
    seven, eight = [b"7", b"hi", b"1.50"], [b"8", None, None]
    found = {kind: packed(event(kind, ROW + NULLS), images) for kind in (b"I", b"U", b"D")}
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
def test_rows_that_are_cut_are_one_clear_error(kind: bytes, images: Images) -> None:
    data = ROW + NULLS
    ends = {0, len(ROW), len(data)} if kind != b"U" else {0, len(data)}
    for end in range(len(data) + 1):
        if end in ends:
            packed(event(kind, data[:end]), images)
        else:
            with pytest.raises(ValueError, match="ends behind"):
                packed(event(kind, data[:end]), images)


def both(natives: Sequence[Native], readers: tuple[values.Read, ...]) -> list[Images]:
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for executor in ("plain", "compiled"):
            patch.setenv(SWITCH, executor)
            found.append(image_reader(readers, natives))
    return found


def outcome(images: Images, data: bytes, kind: bytes) -> list[bytes] | str:
    """What becomes of an event: its rows, or the error."""
    bitmap = ((1 << images.width) - 1).to_bytes(2, "little")
    try:
        return packed(RowsEvent(kind, 1, images.width, bitmap, bitmap, data, ends=True), images)
    except ValueError as error:
        return str(error)


DECIMALS = [(1, 0), (1, 1), (10, 2), (9, 9), (18, 0), (18, 9), (18, 18), (19, 2), (65, 30)]
COLUMNS: dict[str, tuple[Native, values.Read]] = {
    **{
        f"{sign} of {size}": (
            (sign, size, 0),
            values.integer(size, unsigned=sign == "unsigned"),
        )
        for size in (1, 2, 3, 4, 8)
        for sign in ("signed", "unsigned")
    },
    **{
        f"decimal({precision},{scale})": (
            ("decimal", precision, scale),
            values.decimal(precision, scale),
        )
        for precision, scale in DECIMALS
    },
    **{
        f"{kind}({digits})": ((kind, digits, 0), values.moment(kind, digits))
        for kind in ("date", "time", "datetime", "timestamp")
        for digits in ((0,) if kind == "date" else range(7))
    },
    "text": (("text", 1, 0), values.prefixed(1, None)),
    "long text": (("text", 4, 0), values.prefixed(4, None)),
    "bytes": (("bytes", 2, 0), values.prefixed(2, hexed)),
    "year": (("", 0, 0), values.year),
    "enum": (("", 0, 0), values.enumerated(1, [b"a", b"b"])),
}


@given(
    st.sampled_from(sorted(COLUMNS)),
    st.binary(min_size=4, max_size=4),
    st.binary(max_size=60),
    st.sampled_from([b"I", b"U", b"D"]),
)
def test_any_bytes_are_the_same_rows_or_the_same_error_compiled(
    name: str, head: bytes, rest: bytes, kind: bytes
) -> None:
    native, read = COLUMNS[name]
    ends = [(("signed", 1, 0), values.integer(1, unsigned=False))]
    natives, readers = zip(*[*ends, (native, read), (native, read), *ends], strict=True)
    plain, compiled = both(natives, readers)
    data = b"\0" + head + rest
    found = outcome(plain, data, kind)
    assert outcome(compiled, data, kind) == found
    if not isinstance(found, str):
        assert all(read_pgoutput(item) for item in found)


@pytest.mark.parametrize("name", COLUMNS)
def test_the_limits_of_a_type_are_the_same_compiled(name: str) -> None:
    native, read = COLUMNS[name]
    plain, compiled = both([native], (read,))
    edges = (b"\0", b"\xff", b"\x7f", b"\x80", b"\x01")
    for first, others in product(edges, edges):
        data = b"\0" + first + others * 40
        for end in range(len(data)):
            assert outcome(compiled, data[:end], b"I") == outcome(plain, data[:end], b"I")


def test_rows_of_no_columns_are_refused() -> None:
    for images in both([], ()):
        with pytest.raises(ValueError, match="0 columns"):
            packed(event(b"I", b"", width=0, bitmap=b""), images)


def test_images_of_some_columns_are_not_whole() -> None:
    assert is_whole(event(b"U", b"", bitmap=b"\x07"))
    assert not is_whole(event(b"U", b"", bitmap=b"\x05"))
    with pytest.raises(ValueError, match="2 columns where the table has 3"):
        packed(event(b"I", b"", width=2), image_reader(READERS, NATIVES))
