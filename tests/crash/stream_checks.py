"""What must hold of the topics: each function is one invariant and yields what breaks it.

The words are those of Jepsen's Kafka workload where it has them: lost-write, aborted-read,
duplicate, nonmonotonic-send.
"""

from __future__ import annotations

from collections.abc import Iterator

from crash.evidence import Entry, Record, Row
from crash.matching import LOW, Matched

DELETED = -1
LARGE = "big"
"""The one column whose value the log leaves out when it is kept."""


def lost_write(found: Matched) -> Iterator[str]:
    """Every committed change is in the topics."""
    for entry in found.lost:
        yield f"{entry.table} {entry.key} {entry.op} version {entry.version} xid {entry.xid}"


def aborted_read(found: Matched) -> Iterator[str]:
    """Nothing is in the topics that was rolled back, or never written."""
    known = _known(found)
    versions = {name[:3] for name in known}
    for record in found.flow.records:
        name = _name(record)
        if (record.op == "r" and name[:3] not in versions) or (
            record.op in {"c", "u", "d"} and name not in known
        ):
            yield _shown(record)


def duplicate(found: Matched) -> Iterator[str]:
    """No change is in the topics twice."""
    known = _known(found)
    for record in found.surplus:
        if _name(record) in known or record.op == "t":
            yield _shown(record)


def _known(found: Matched) -> set[tuple[str, str, int | None, int]]:
    return {(e.table, e.key, e.version, e.xid % LOW) for e in found.journal}


def _name(record: Record) -> tuple[str, str, int | None, int]:
    version = None if record.op == "d" else record.version
    return record.table, record.key, version, record.xid


def key_order(found: Matched) -> Iterator[str]:
    """The changes of one key come in the order they were made."""
    newest: dict[tuple[str, str], int] = {}
    for record in found.changes:
        entry = found.partner(record)
        if entry is None or record.op == "t":
            continue
        name = (record.table, record.key)
        if entry.number < newest.get(name, 0):
            yield f"{_shown(record)} after a later change"
        newest[name] = max(entry.number, newest.get(name, 0))


def key_change_order(found: Matched) -> Iterator[str]:
    """A key change is the old key's delete, then the new key's create, at one place."""
    halves: dict[int, dict[str, Record]] = {}
    for record in found.changes:
        entry = found.partner(record)
        if entry is not None and entry.pair is not None:
            halves.setdefault(entry.pair, {})[record.op] = record
    for half in halves.values():
        if len(half) < 2:
            continue
        gone, made = half["d"], half["c"]
        together = gone.partition == made.partition
        if together and gone.offset > made.offset:
            yield f"create before delete: {_shown(made)}"
        if gone.place is None or made.place is None or gone.place[:3] != made.place[:3]:
            yield f"two places: {_shown(gone)} {_shown(made)}"
        elif gone.place[3] >= made.place[3]:
            yield f"create is placed before delete: {_shown(made)}"


def nonmonotonic_send(found: Matched) -> Iterator[str]:
    """Within a partition the place in the source's log never goes back."""
    for records in found.by_partition().values():
        before = (0, 0, 0, 0)
        for record in records:
            if record.place is None or record.op == "r":
                continue
            if record.place <= before:
                yield f"{_shown(record)} at {record.place} after {before}"
            before = max(before, record.place)


def monotone_position(found: Matched) -> Iterator[str]:
    """The stored position never goes back."""
    for before, after in zip(found.flow.positions, found.flow.positions[1:], strict=False):
        if after[:3] < before[:3] or after.confirmed < before.confirmed:
            yield f"{after} after {before}"


def confirmed_ahead(found: Matched) -> Iterator[str]:
    """The slot was never told to forget what Kafka had not committed."""
    for sample in found.flow.slots:
        if sample.confirmed > sample.stored:
            yield f"confirmed {sample.confirmed:X}, stored {sample.stored:X}"


def snapshot_cut(found: Matched) -> Iterator[str]:
    """A row read by a snapshot is the newest of its key in the stream around it, not older."""
    for records in found.by_partition().values():
        state: dict[str, int] = {}
        for record in records:
            if record.op == "t":
                state = dict.fromkeys(state, DELETED)
            elif record.op == "d":
                state[record.key] = DELETED
            elif record.op in {"c", "u"}:
                state[record.key] = record.version or 0
            elif record.op == "r":
                newest = state.get(record.key, record.version)
                if newest != record.version:
                    what = "its removal" if newest == DELETED else f"version {newest}"
                    yield f"{_shown(record)} after {what}"
                state[record.key] = record.version or 0


def tombstones(found: Matched) -> Iterator[str]:
    """A delete, and nothing else, is followed by the tombstone of its key."""
    for records in found.by_partition().values():
        owed: dict[bytes, Record] = {}
        for record in records:
            if record.op == "":
                if owed.pop(record.raw_key, None) is None:
                    yield f"nothing was deleted before {_shown(record)}"
            elif before := owed.pop(record.raw_key, None):
                yield f"no tombstone after {_shown(before)}"
            if record.op == "d":
                owed[record.raw_key] = record
        for record in owed.values():
            yield f"no tombstone after {_shown(record)}"


def value_fidelity(found: Matched) -> Iterator[str]:
    """Each event has the columns and the values the row had; absent is only what was kept."""
    history = found.by_key()
    versions = {(e.table, e.key, e.version): e for e in found.journal if e.op != "d"}
    for record in found.flow.records:
        if record.op == "r":
            entry = versions.get((record.table, record.key, record.version))
        else:
            entry = found.partner(record)
        if entry is None or entry.row is None or record.row is None:
            continue
        later = (e for e in history[record.table, record.key] if e.number > entry.number)
        for column in _different(record, entry, entry.row, record.row):
            if not _excused(column, record, entry, later):
                value = record.row.get(column, "(no such column)")
                yield f"{_shown(record)} {column}: {value}, was {entry.row.get(column)}"


def _different(record: Record, entry: Entry, was: Row, row: Row) -> list[str]:
    """Return the columns that differ; a snapshot may read a row after its table was altered."""
    names = was.keys() & row.keys() if record.op == "r" else was.keys() | row.keys()
    wrong = [c for c in names if was.get(c) != row.get(c) or c not in row or c not in was]
    return [*(c for c in wrong if c not in record.absent), *(c for c in record.absent if c in was)]


def _excused(column: str, record: Record, entry: Entry, later: Iterator[Entry]) -> bool:
    """Tell whether a kept large value is rightly absent, or rightly one of a later version.

    The log does not carry it, so where it must be whole it is read again by the key. A create
    lacks it only when its row was gone by then.
    """
    if not entry.kept or column != LARGE:
        return False
    if column in record.absent:
        return record.op == "u" or any(e.op == "d" for e in later)
    value = (record.row or {}).get(column)
    return any(e.row is not None and e.row.get(column) == value for e in later)


def _shown(record: Record) -> str:
    op = record.op or "tombstone"
    place = f"{record.table}[{record.partition}]@{record.offset}"
    return f"{place} {op} {record.key} version {record.version} xid {record.xid}"
