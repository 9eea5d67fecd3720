"""The eighteen bugs: what each does, where it is provoked, and what the checker must call it.

Where the shipped code has a second belt, the bug shows where only the first would have held:

* A slot that is told too much is caught by the worker at its next start (R3). So what is looked
  at is the slot beside the positions topic, from outside, and not only what is lost afterwards.
* Stale positions would be caught by the same comparison. What the source tells the server of how
  far it is, is held back meanwhile, as on a slow link, so that the slot is as old as they are.
* Repetitions in the topics are dropped by the sink (R5): they are looked for in the topics.
* Values missing from the create of a key change are taken from the old row by the sink (R6). The
  bug makes them NULL, as a source does that knows no other way to say "not sent".

Bugs are put into the plain executor, which is what these workers run.
"""

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
    Mutant("confirmed-before-stored", "killed-before-storing", ("confirmed-ahead",)),
    Mutant("truncate-without-barrier", "truncated-in-four", ("convergence",)),
    Mutant("ordinals-over-raw-rows", "streamed-savepoint", ("lost-write",)),
    Mutant("key-change-drops-toast", "statements", ("value-fidelity",)),
)
