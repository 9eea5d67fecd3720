"""Two sides of a table → the keys in doubt: whose rows differed when they were looked at.

    pieces ──┬─▶ source: sums ──┐
             └─▶ target: sums ──┴─ equal? ─ no ─▶ key and hash of each row, both sides ─▶ keys

Both sides work at once, each over a connection of its own, a few pieces ahead. Where the servers
cannot hash alike, rows are read instead and compared here: as lines first, since to find equal
lines is ten times faster than to take rows apart. Memory holds a few pieces of each side.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import msgspec

from cdc.verify.readable import Hashing, Lined, Piece, Readable, Row, cells_of

__all__ = ["Form", "Found", "Pair", "differing", "unequal"]

_AHEAD = 4

_T = TypeVar("_T")
_V = TypeVar("_V")
Form = Callable[[bytes], bytes]
"""Text of a value → the same for every text of that value."""


class Pair(msgspec.Struct):
    """The two sides of a table; `width` is the number of key columns.

    `hashing` are the same sides where both servers hash rows alike. `forms` bring cells to what can
    be compared, one for each column; none where the texts themselves can. `sorted_alike` says that
    both sides have about the same rows between two keys.
    """

    ours: Readable
    theirs: Readable
    width: int
    hashing: tuple[Hashing, Hashing] | None = None
    forms: Sequence[Form | None] = ()
    sorted_alike: bool = True

    def by_key(self, rows: Iterable[Row]) -> dict[Row, Row]:
        """Return rows by their keys, which are in the form both sides share."""
        width = self.width
        if not any(self.forms[:width]):
            return {row[:width]: row for row in rows}
        return {self._normal(row[:width]): row for row in rows}

    def same(self, ours: Row | None, theirs: Row | None) -> bool:
        """Tell whether two rows of a key are equal; texts that differ may be the same value."""
        if ours == theirs:
            return True
        if ours is None or theirs is None or len(ours) != len(theirs):
            return False
        if not any(self.forms) or len(ours) != len(self.forms):
            return False
        cells = zip(ours, theirs, self.forms, strict=True)
        return all(one == other or _equal(one, other, form) for one, other, form in cells)

    def normalised(self, rows: Iterable[Row]) -> Iterator[tuple[Row, Row]]:
        """Yield key and whole row, all of it in the form both sides share."""
        for row in rows:
            normal = self._normal(row) if any(self.forms) else row
            yield normal[: self.width], normal

    def _normal(self, row: Row) -> Row:
        if len(row) > len(self.forms):
            return row
        cells = zip(row, self.forms, strict=False)
        return tuple([c if c is None or form is None else form(c) for c, form in cells])


def _equal(one: bytes | None, other: bytes | None, form: Form | None) -> bool:
    """Tell whether two texts that differ are one value."""
    if one is None or other is None or form is None:
        return False
    return form(one) == form(other)


class Found(msgspec.Struct):
    """What a piece gave: rows on both sides, and the keys in doubt."""

    ours: int
    theirs: int
    keys: list[Row]


class _Side:
    """One side's thread: what is asked of a connection waits its turn there."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)

    def ask(self, call: Callable[[Piece], _T], piece: Piece) -> Future[_T]:
        return self._thread.submit(call, piece)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


def differing(pair: Pair, pieces: Iterable[Piece]) -> Generator[Found, None, None]:
    """Yield what each piece gave, in order. Raises as the sides do."""
    with closing(_Side("ours")) as ours, closing(_Side("theirs")) as theirs:
        if pair.hashing is None:
            yield from _compared(pair, (ours, theirs), pieces)
            return
        one, other = pair.hashing
        for piece, sums, those in _walk((ours, theirs), (one.sums, other.sums), pieces):
            keys: list[Row] = []
            if sums != those:
                hashes = ours.ask(_hashes_of(one), piece), theirs.ask(_hashes_of(other), piece)
                keys = unequal(hashes[0].result(), hashes[1].result(), operator.eq)
            yield Found(sums.rows, those.rows, keys)


def _compared(pair: Pair, sides: tuple[_Side, _Side], pieces: Iterable[Piece]) -> Iterator[Found]:
    """Compare rows: as whole lines where both sides give these, and what is left cell by cell."""
    if isinstance(pair.ours, Lined) and isinstance(pair.theirs, Lined):
        for _, lines, others in _walk(sides, (pair.ours.lines, pair.theirs.lines), pieces):
            yield Found(len(lines), len(others), _unlike(pair, set(lines), set(others)))
        return
    rows = _rows_of(pair, pair.ours), _rows_of(pair, pair.theirs)
    for _, mine, its in _walk(sides, rows, pieces):
        yield Found(len(mine), len(its), unequal(mine, its, pair.same))


def _unlike(pair: Pair, ours: set[bytes], theirs: set[bytes]) -> list[Row]:
    mine, its = (pair.by_key(map(cells_of, lines)) for lines in (ours - theirs, theirs - ours))
    return unequal(mine, its, pair.same)


def _walk(
    sides: tuple[_Side, _Side],
    calls: tuple[Callable[[Piece], _T], Callable[[Piece], _T]],
    pieces: Iterable[Piece],
) -> Iterator[tuple[Piece, _T, _T]]:
    """Ask both sides about piece after piece, a few ahead, and yield the answers."""
    asked: deque[tuple[Piece, Future[_T], Future[_T]]] = deque()
    for piece in pieces:
        asked.append((piece, sides[0].ask(calls[0], piece), sides[1].ask(calls[1], piece)))
        if len(asked) == _AHEAD:
            first, mine, its = asked.popleft()
            yield first, mine.result(), its.result()
    for last, mine, its in asked:
        yield last, mine.result(), its.result()


def _rows_of(pair: Pair, side: Readable) -> Callable[[Piece], dict[Row, Row]]:
    return lambda piece: pair.by_key(side.rows(piece))


def _hashes_of(side: Hashing) -> Callable[[Piece], dict[Row, bytes | None]]:
    return lambda piece: dict(side.hashes(piece))


def unequal(
    ours: dict[Row, _V], theirs: dict[Row, _V], same: Callable[[_V, _V], bool]
) -> list[Row]:
    """Return the keys whose values differ, or that are on one side alone."""
    doubtful = [
        key
        for key, mine in ours.items()
        if key not in theirs or (theirs[key] != mine and not same(mine, theirs[key]))
    ]
    return doubtful + [key for key in theirs if key not in ours]
