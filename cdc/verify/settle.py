"""Keys in doubt → what is lost, and what was only late.

A row that differed is looked at again once the sink has passed the place of the source's log at
which it was seen. It is lost when the source still has what it had, and the target something else:

    source's row ── place of the log ── the sink passes it ── target's row ── source's row again
       A                                                          B               A       lost
       A                                                          A                       late
       A                                                          B               C       moves

One look is proof where the log stood still meanwhile. Where it did not, somebody may have written
C and A again between two reads; so such a key must be found lost three times running. A key that
moves at each of ten looks is none of both: it is counted, and no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from cdc.verify.compare import Pair
from cdc.verify.readable import ReadableSource, Row

__all__ = ["Difference", "Settled", "differences", "settle"]

_PROOF = 3
_LOOKS = 10


class Difference(msgspec.Struct, frozen=True):
    """A key whose rows differ: `ours` and `theirs` are the rows, None where there is none."""

    key: Row
    ours: Row | None
    theirs: Row | None

    @property
    def kind(self) -> str:
        """`missing` or `extra` in the target, or `different`."""
        if self.theirs is None:
            return "missing"
        return "extra" if self.ours is None else "different"


class Settled(msgspec.Struct):
    """What became of keys in doubt."""

    lost: list[Difference]
    late: int
    moving: int


def differences(pair: Pair, keys: Sequence[Row]) -> list[Difference]:
    """Return which of `keys` have different rows now; the source is read last."""
    theirs = pair.by_key(pair.theirs.find(keys))
    ours = pair.by_key(pair.ours.find(keys))
    pairs = [(key, ours.get(key), theirs.get(key)) for key in keys]
    return [Difference(key, mine, its) for key, mine, its in pairs if not pair.same(mine, its)]


def settle(
    pair: Pair, source: ReadableSource, keys: Sequence[Row], passed: Callable[[Any], None]
) -> Settled:
    """Look at `keys` until it is known what each of them is.

    `passed` waits until the sink has applied all up to a place, and raises `errors.Unavailable`
    when it does not.
    """
    lost: list[Difference] = []
    seen = pair.by_key(pair.ours.find(keys))
    counts = dict.fromkeys(keys, 0)
    for _ in range(_LOOKS):
        if not counts:
            break
        here = source.here()
        passed(here)
        found = differences(pair, list(counts))
        stood_still = source.here() == here
        counts = {d.key: counts[d.key] + 1 if seen.get(d.key) == d.ours else 0 for d in found}
        proven = [d for d in found if stood_still or counts[d.key] >= _PROOF]
        lost += proven
        seen = {d.key: d.ours for d in found if d.ours is not None}
        for difference in proven:
            del counts[difference.key]
    return Settled(lost, len(keys) - len(lost) - len(counts), len(counts))
