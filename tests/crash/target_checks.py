"""What must hold of a target: each function is one invariant and yields what breaks it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from crash.evidence import CutSample, Record, Stand
from crash.matching import Matched

ACCOUNTS = 50
BANK = ACCOUNTS * 1000
REFUSED, POISON = "refused", "poison"


def convergence(found: Matched) -> Iterator[str]:
    """In the end, with nobody's help, the target has the source's rows."""
    for table, theirs, key, ours in _pairs(found):
        if ours is None:
            yield f"{table} {key} is missing, version {theirs and theirs.version}"
        elif theirs is None:
            yield f"{table} {key} is too much, version {ours.version}"
        elif ours.version != theirs.version:
            yield f"{table} {key} has version {ours.version}, the source {theirs.version}"


def row_fidelity(found: Matched) -> Iterator[str]:
    """A row of the source's version has all of its values."""
    for table, theirs, key, ours in _pairs(found):
        if ours is None or theirs is None or ours.version != theirs.version:
            continue
        if ours.digest != theirs.digest:
            yield f"the target's {table} {key} differs at version {ours.version}"


def _pairs(found: Matched) -> Iterator[tuple[str, Stand | None, str, Stand | None]]:
    poisoned = _poisoned(found)
    for table in found.flow.tables:
        theirs, ours = found.flow.source_rows.get(table, {}), found.flow.target_rows.get(table, {})
        for key in theirs.keys() | ours.keys():
            if table != REFUSED or key not in poisoned:
                yield table, theirs.get(key), key, ours.get(key)


def _poisoned(found: Matched) -> set[str]:
    entries = (e for e in found.journal if e.table == REFUSED and e.row)
    return {e.key for e in entries if (e.row or {}).get("value") == POISON}


def duplicate_effect(found: Matched) -> Iterator[str]:
    """No change is applied more often than the topics hold it."""
    held = Counter((r.table, r.key, r.version) for r in found.flow.records if r.op in "cur")
    seen = Counter((e.table, e.key, e.version) for e in found.flow.effects if e.op != "d")
    for (table, key, version), times in (seen - held).items():
        yield f"{table} {key} version {version}: {times} times too often"


def effect_order(found: Matched) -> Iterator[str]:
    """No older version is applied over a newer one."""
    newest: dict[tuple[str, str], int] = {}
    for effect in found.flow.effects:
        if effect.op == "d" or effect.version is None:
            continue
        name = (effect.table, effect.key)
        if effect.version < newest.get(name, 0):
            yield f"{effect.table} {effect.key}: {effect.version} over {newest[name]}"
        newest[name] = max(effect.version, newest.get(name, 0))


def offset_with_data(found: Matched) -> Iterator[str]:
    """At every look, the bank is what the records below the stored offsets make of it."""
    folds = {p: _Fold(r) for (t, p), r in found.by_partition().items() if t == "accounts"}
    before: dict[int, int] = {}
    for sample in found.flow.cuts:
        if any(sample.cursors.get(p, 0) < offset for p, offset in before.items()):
            yield f"the cursors went back from {before} to {sample.cursors}"
            return
        before = sample.cursors
        expected: dict[str, int] = {}
        for partition, fold in folds.items():
            expected |= fold.upto(sample.cursors.get(partition, 0))
        seen = {key: version for key, (version, _) in sample.accounts.items()}
        if seen != expected:
            wrong = [k for k in seen.keys() | expected.keys() if seen.get(k) != expected.get(k)]
            example = f"{wrong[0]} is {seen.get(wrong[0])}, not {expected.get(wrong[0])}"
            yield f"{len(wrong)} accounts at {sample.cursors}: {example}"


class _Fold:
    """The versions a partition's records leave behind, up to an offset that only grows."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records
        self._next = 0
        self._state: dict[str, int] = {}

    def upto(self, offset: int) -> dict[str, int]:
        while self._next < len(self._records) and self._records[self._next].offset < offset:
            record = self._records[self._next]
            if record.op in {"c", "u", "r"}:
                self._state[record.key] = record.version or 0
            self._next += 1
        return self._state


def consistent_cut(found: Matched) -> Iterator[str]:
    """A reader of the target never saw part of a transfer (R12)."""
    if not found.flow.one_worker:
        return
    whole = [sample for sample in found.flow.cuts if len(sample.accounts) == ACCOUNTS]
    if found.flow.cuts and not whole:
        yield "the bank was never read whole"
    for sample in whole:
        total = sum(balance for _, balance in sample.accounts.values())
        if total != BANK:
            yield f"the bank's sum was {total}"


def torn(samples: list[CutSample]) -> int:
    """Count the looks that were whole, for the report."""
    return sum(len(sample.accounts) == ACCOUNTS for sample in samples)


def poison_isolated(found: Matched) -> Iterator[str]:
    """What the target can never take is a dead letter, and nothing else is."""
    poisoned = _poisoned(found)
    letters = {dead.key for dead in found.flow.dead if dead.table == REFUSED}
    held = {r.key for r in found.flow.records if r.table == REFUSED and r.op != ""}
    for key in sorted((poisoned & held) - letters):
        yield f"{REFUSED} {key} has no dead letter"
    for key in sorted(poisoned & found.flow.target_rows.get(REFUSED, {}).keys()):
        yield f"{REFUSED} {key} was applied"
    removed = {(e.table, e.key) for e in found.journal if e.op == "d"}
    for dead in found.flow.dead:
        # An update without its large value, whose row was gone before it could be read again.
        if (dead.table, dead.key) in removed and dead.table == "toasted":
            continue
        if dead.table != REFUSED or dead.key not in poisoned:
            yield f"dead letter for {dead.table} {dead.key}"
