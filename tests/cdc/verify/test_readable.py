"""Rows that a server joined to one text, and lines compared before they are taken apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from cdc.verify.compare import Pair, differing
from cdc.verify.forms import form_of
from cdc.verify.readable import Piece, Row, cells_of, lines_of
from schemas.table import Type


def test_joined_rows_are_taken_apart_as_lines_of_copy() -> None:
    found = lines_of(b"1\ta\\b\n2\t\x01", 2, 2, 1)
    assert found == [b"1\ta\\\\b", b"2\t\\N"]
    assert [cells_of(line) for line in found] == [(b"1", b"a\\b"), (b"2", None)]


def test_no_rows_are_no_lines() -> None:
    assert lines_of(b"", 0, 2, 0) == []
    assert lines_of(b"", 1, 1, 0) == [b""]


@pytest.mark.parametrize("text", [b"1\ta\tb\n2\tc", b"1\ta\nb\n2\tc", b"1\t\x01\n2\tc", b"1\ta"])
def test_a_text_whose_cells_cannot_be_told_is_refused(text: bytes) -> None:
    assert lines_of(text, 2, 2, 0) is None


class Side:
    """Lines of a table of its own."""

    engine = "any"

    def __init__(self, *lines: bytes) -> None:
        self._lines = lines

    def open(self) -> None: ...

    def close(self) -> None: ...

    def types(self) -> Sequence[str]:
        return []

    def rows(self, _piece: Piece) -> Iterator[Row]:
        raise AssertionError("lines are enough")

    def find(self, _keys: Sequence[Row]) -> Iterator[Row]:
        raise AssertionError("nobody looks here")

    def lines(self, _piece: Piece) -> Sequence[bytes]:
        return self._lines


def test_lines_that_differ_are_compared_cell_by_cell() -> None:
    ours = Side(b"1\t1.10", b"2\t2", b"3\t\\N", b"4\t4")
    theirs = Side(b"1\t1.1", b"2\t3", b"3\t\\N", b"5\t5")
    kinds = Type("int64"), Type("decimal", precision=12, scale=2)
    pair = Pair(ours, theirs, 1, forms=[form_of(kind) for kind in kinds])
    [found] = differing(pair, [Piece()])
    assert (found.ours, found.theirs) == (4, 4)
    assert sorted(found.keys) == [(b"2",), (b"4",), (b"5",)]
