"""Black-box checks after a storm: every invariant of the design is one function with a name.

The checker knows nothing of the workers. What it is given (`crash.evidence`) was written by
triggers at both ends, read by a consumer of its own, or sampled from outside while the storm raged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from crash import stream_checks, target_checks
from crash.evidence import Anomaly, Evidence
from crash.matching import Matched

CHECKS: tuple[tuple[str, Callable[[Matched], Iterator[str]]], ...] = (
    ("lost-write", stream_checks.lost_write),
    ("aborted-read", stream_checks.aborted_read),
    ("duplicate", stream_checks.duplicate),
    ("key-order", stream_checks.key_order),
    ("key-change-order", stream_checks.key_change_order),
    ("nonmonotonic-send", stream_checks.nonmonotonic_send),
    ("monotone-position", stream_checks.monotone_position),
    ("confirmed-ahead", stream_checks.confirmed_ahead),
    ("snapshot-cut", stream_checks.snapshot_cut),
    ("tombstones", stream_checks.tombstones),
    ("value-fidelity", stream_checks.value_fidelity),
    ("value-fidelity", target_checks.row_fidelity),
    ("convergence", target_checks.convergence),
    ("duplicate-effect", target_checks.duplicate_effect),
    ("effect-order", target_checks.effect_order),
    ("offset-with-data", target_checks.offset_with_data),
    ("consistent-cut", target_checks.consistent_cut),
    ("poison-isolated", target_checks.poison_isolated),
)
OBSERVED = ("fencing", "fail-closed", "bounded-wal", "convergence")
"""Invariants that are seen while the storm rages: exit codes, waits, the slot."""

INVARIANTS = tuple(dict.fromkeys([*(name for name, _ in CHECKS), *OBSERVED]))
MOST = 5


def check(evidence: Evidence) -> list[Anomaly]:
    """Return every broken invariant, at most `MOST` examples of each; empty when all hold."""
    out = list(evidence.observed)
    for flow in evidence.flows:
        found = Matched(evidence.journal, flow)
        for name, broken in CHECKS:
            out += _first(name, flow.name, broken(found))
    return out


def _first(name: str, flow: str, broken: Iterator[str]) -> Iterator[Anomaly]:
    count = 0
    for count, detail in enumerate(broken, 1):
        if count <= MOST:
            yield Anomaly(name, f"{flow}: {detail}")
    if count > MOST:
        yield Anomaly(name, f"{flow}: {count} in all")
