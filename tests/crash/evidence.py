"""What the checker is given: nothing of it was written by the workers' own memory.

`Entry` is a line of the journal that triggers wrote at the source, `Record` a committed record that
an independent consumer read, `Effect` a line of the audit that triggers wrote in the target. A
`Flow` is one source with its topics and its sink; several flows may share one journal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

Row = dict[str, str | None]
"""Column → PostgreSQL's text of its value; a long text is `md5:` and its hash."""

Place = tuple[int, int, int, int]
"""(incarnation, commit, ordinal, sub): what no two records of a source share."""


class Anomaly(NamedTuple):
    """One broken invariant, by its short name, with what shows it."""

    invariant: str
    detail: str


class Entry(NamedTuple):
    """One change that was committed at the source. `pair` joins the two halves of a key change;
    `kept` says that the large column was left as it was; a truncation has the key ''.
    """

    number: int
    table: str
    key: str
    version: int | None
    op: str
    xid: int
    row: Row | None
    pair: int | None
    kept: bool


class Record(NamedTuple):
    """One committed record; a tombstone has the op '' and neither version nor place."""

    table: str
    partition: int
    offset: int
    op: str
    raw_key: bytes
    key: str
    version: int | None
    xid: int
    place: Place | None
    row: Row | None
    absent: tuple[str, ...]

    @property
    def where(self) -> tuple[str, int, int]:
        """(table, partition, offset)."""
        return self.table, self.partition, self.offset


class Effect(NamedTuple):
    """One row changed in the target, in the order it happened to its key."""

    table: str
    key: str
    version: int | None
    op: str


class Stored(NamedTuple):
    """One record of the positions topic."""

    incarnation: int
    commit: int
    ordinal: int
    confirmed: int


class SlotSample(NamedTuple):
    """The slot as it was, then the newest position Kafka had committed by then (LSNs)."""

    confirmed: int
    stored: int


class CutSample(NamedTuple):
    """The target in one snapshot: next offset by partition of the bank, (version, balance) by id"""

    cursors: dict[int, int]
    accounts: dict[str, tuple[int, int]]


class Stand(NamedTuple):
    """A row as it stands at the end: its version, and a hash of all its columns' text."""

    version: int
    digest: str


class Dead(NamedTuple):
    """One dead letter."""

    table: str
    key: str
    value: str


@dataclass(frozen=True)
class Floor:
    """A snapshot taken when the slot existed: what it does not see must be in the stream."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Floor:
        """Read PostgreSQL's `xmin:xmax:xid,xid`."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(x) for x in running.split(",") if x))

    def sees(self, xid: int) -> bool:
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)


@dataclass
class Flow:
    """One source, its topics, its sink. `one_worker`: the target moves in consistent cuts."""

    name: str
    floor: Floor
    partitions: int = 1
    one_worker: bool = True
    tables: tuple[str, ...] = ()
    records: list[Record] = field(default_factory=list)
    positions: list[Stored] = field(default_factory=list)
    slots: list[SlotSample] = field(default_factory=list)
    cuts: list[CutSample] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    source_rows: dict[str, dict[str, Stand]] = field(default_factory=dict)
    target_rows: dict[str, dict[str, Stand]] = field(default_factory=dict)


@dataclass
class Evidence:
    """All of it. `observed` holds what the storm saw broken while it raged (fencing, waits)."""

    journal: list[Entry]
    flows: list[Flow]
    observed: list[Anomaly] = field(default_factory=list)
