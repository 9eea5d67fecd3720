"""The eighteen bugs: what each does, where it is provoked, and what the checker must call it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MUTANTS", "Mutant"]


@dataclass(frozen=True)
class Mutant:
    """`name` is that of its patch; `expected` are the names of which one must be reported."""

    name: str
    scenario: str
    expected: tuple[str, ...]


MUTANTS = (
    Mutant("confirm-before-commit", "killed-before-commit", ("confirmed-ahead",)),
    Mutant("event-lsn-filter", "interleaved", ("lost-write",)),
    Mutant("cursor-outside-transaction", "sink-killed-after-commit", ("duplicate-effect",)),
    Mutant("dedup-by-key", "statements", ("convergence",)),
    Mutant("absent-to-null", "statements", ("value-fidelity",)),
    Mutant("deletes-before-inserts", "statements", ("convergence",)),
    Mutant("snapshot-row-wins", "changed-while-read", ("snapshot-cut",)),
    Mutant("keepalive-in-flight", "killed-before-commit", ("confirmed-ahead",)),
    Mutant("no-compare-and-set", "two-sinks", ("duplicate-effect",)),
    Mutant("producer-reused", "answer-lost", ("duplicate",)),
    Mutant("prepared-rows-early", "statements", ("aborted-read",)),
    Mutant("unknown-event-skipped", "strange-message", ("lost-write",)),
    Mutant("snapshot-without-visibility", "half-committed", ("snapshot-cut",)),
    Mutant("positions-to-end-of-partition", "hidden-positions", ("duplicate",)),
    Mutant("confirmed-before-stored", "statements", ("confirmed-ahead",)),
    Mutant("truncate-without-barrier", "truncated-in-four", ("convergence",)),
    Mutant("ordinals-over-raw-rows", "streamed-savepoint", ("lost-write",)),
    Mutant("key-change-drops-toast", "statements", ("value-fidelity",)),
)
