"""Snapshots while the stream runs: chunks between watermarks, shared by all SQL sources.

    stream  ── T1 ── T2 ─────── T3 ── (mark) ── T4 ──▶       a chunk's rows leave at its mark,
    chunk          [read in snapshot S]  │                   but for keys a delivered transaction
                                         └─▶ the rest      touched that S could not see

Why it is right. The log delivers a commit before snapshots can see it (measured), so "touched
between two marks" is not the rule. A row of a chunk read in S is left out exactly when some
transaction delivered before the mark touched its key, old or new, and is not visible in S:

* touched and visible in S: the chunk's row is at least as new as what was delivered; it leaves.
* touched, delivered, not visible in S: the chunk's row is older than what was delivered; it stays
  behind, and what was delivered stands.
* delivered after the mark: it comes behind the chunk's row and overwrites it. Such a transaction
  is never visible in S, for the mark is written after S was taken and the log is in commit order.

For this every key touched is remembered from before S was taken until a later snapshot sees its
transaction; and a table's first chunk waits until all that was delivered before the remembering
began is visible. A truncation or a new shape that passes meanwhile spoils the chunk: it is read
again. The low mark of the published algorithm (DBLog) has no part in this rule and is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from cdc.source import Progress
from schemas.table import TableId

__all__ = ["Job", "Jobs", "Key", "Touched", "Visible", "mark_of"]

_CROWD = 20_000

Key = tuple[object, ...]
"""The text cells of a row's key columns."""

Visible = Callable[[int], bool]
"""Tells whether a transaction's effects are in a snapshot."""


class Job(msgspec.Struct):
    """What is left to read of one table.

    `after` is the key of the last row that left, None at the beginning. `settle` says that
    transactions may still write to the table that the log will not report: they must end first.
    `attempt` counts the starts of a table that is not resumable inside; something of it may have
    left before when it is not 0.
    """

    table: TableId
    where: str = ""
    after: tuple[str, ...] | None = None
    done: int = 0
    estimate: int = 0
    settle: bool = False
    attempt: int = 0

    def progress(self) -> Progress:
        """Return this job as what is stored for its table."""
        value = {"version": 1, **msgspec.to_builtins(self)}
        return Progress(f"chunk/{self.table}", value)


class Jobs:
    """The tables still to be read, in order, and the progress not yet handed to Kafka."""

    def __init__(self, stored: Iterable[Progress] = ()) -> None:
        self._jobs: dict[TableId, Job] = {}
        self.progress: list[Progress] = []
        for item in stored:
            if item.key.startswith("chunk/") and item.value is not None:
                job = msgspec.convert(item.value, Job)
                self._jobs[job.table] = job

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def get(self, table: TableId) -> Job | None:
        """Return the job of `table`, None when it is not being read."""
        return self._jobs.get(table)

    def add(self, job: Job) -> None:
        """Read `job.table` from the beginning, also when it was being read already.

        What was still to be read of it stays to be read: a part never takes the place of the
        whole, nor of another part.
        """
        old = self._jobs.pop(job.table, None)
        if old is not None:
            job.settle = job.settle or old.settle
            job.attempt = max(job.attempt, old.attempt)
            job.where = _either(job.where, old.where)
        self._jobs[job.table] = job
        self.progress.append(job.progress())

    def met(self, table: TableId) -> None:
        """Note that a change of `table` leaves before the table was read.

        Read whole in one snapshot, which holds that change too, it has to begin with a truncation.
        """
        job = self._jobs.get(table)
        if job is not None and not job.attempt:
            job.attempt = 1
            self.moved(job)

    def moved(self, job: Job) -> None:
        """Store how far `job` has come."""
        self.progress.append(job.progress())

    def finish(self, job: Job) -> None:
        """Forget `job`: its table is read."""
        self._jobs.pop(job.table, None)
        self.progress.append(Progress(f"chunk/{job.table}", None))

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return table → (rows done, rows estimated)."""
        return {str(job.table): (job.done, max(job.done, job.estimate)) for job in self}


def _either(one: str, other: str) -> str:
    """Return a condition for the rows of both; empty stands for all rows."""
    if not one or not other or one == other:
        return one and other
    return f"({one}) OR ({other})"


class Touched:
    """The keys that delivered transactions touched, of the tables being read."""

    def __init__(self) -> None:
        self._keys: dict[TableId, dict[Key, int]] = {}
        self._whole: dict[TableId, int] = {}
        self._recent: list[int] = []
        self._before: dict[TableId, list[int]] = {}

    def watch(self, table: TableId) -> None:
        """Remember what touches `table` from here on, and what may have touched it just before."""
        if table not in self._keys:
            self._keys[table] = {}
            self._before[table] = list(self._recent)

    def unwatch(self, table: TableId) -> None:
        """Forget `table`."""
        self._keys.pop(table, None)
        self._before.pop(table, None)
        self._whole.pop(table, None)

    def watches(self, table: TableId) -> bool:
        """Tell whether `table` is being watched."""
        return table in self._keys

    def expect(self, transactions: Iterable[int]) -> None:
        """Take `transactions` as delivered in an earlier life, whatever they touched."""
        self._recent.extend(transactions)

    def delivered(self, transaction: int) -> None:
        """A transaction was delivered, whatever it touched."""
        self._recent.append(transaction)

    def touch(self, table: TableId, keys: Iterable[Key], transaction: int) -> None:
        """`transaction` touched `keys` of a watched table.

        The last one to touch a key is remembered: row locks make it the last to become visible.
        """
        known = self._keys[table]
        for key in keys:
            known[key] = transaction

    def touch_all(self, table: TableId, transaction: int) -> None:
        """`transaction` emptied or reshaped a watched table."""
        self._whole[table] = transaction

    def settled(self, table: TableId, visible: Visible) -> bool:
        """Tell whether all that was delivered before `watch` is visible."""
        before = self._before.get(table, [])
        self._before[table] = [transaction for transaction in before if not visible(transaction)]
        return not self._before[table]

    def unseen(self, visible: Visible) -> int:
        """Forget delivered transactions that are visible; return how many are not."""
        self._recent = [transaction for transaction in self._recent if not visible(transaction)]
        return len(self._recent)

    def crowded(self) -> bool:
        """Tell whether it is time to ask a snapshot which deliveries need not be remembered."""
        return len(self._recent) > _CROWD

    def stale(self, table: TableId, visible: Visible) -> set[Key] | None:
        """Return the keys whose rows a snapshot has too old; None when it has all too old."""
        whole = self._whole.get(table)
        if whole is not None and not visible(whole):
            return None
        return {key for key, seen in self._keys.get(table, {}).items() if not visible(seen)}

    def forget(self, visible: Visible) -> None:
        """Forget what every later snapshot sees."""
        self.unseen(visible)
        for table, keys in self._keys.items():
            self._keys[table] = {key: seen for key, seen in keys.items() if not visible(seen)}
        self._whole = {t: seen for t, seen in self._whole.items() if not visible(seen)}


def mark_of(content: bytes) -> dict[str, Any] | None:
    """Return what a watermark says, None when the message is none of ours."""
    try:
        found = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
    return found if "chunk" in found else None
