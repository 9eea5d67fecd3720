"""Which record of a topic is which entry of the journal: found once, asked by every check."""

from __future__ import annotations

from collections import defaultdict

from crash.evidence import Entry, Flow, Record

LOW = 1 << 32
Name = tuple[str, str, str, int | None, int, int]
Where = tuple[str, int, int]


class Matched:
    """`entry` gives a record's entry; `lost` and `surplus` are what has no partner.

    A record is recognised by table, key, op, version and transaction; a truncation is written to
    each partition once.
    """

    def __init__(self, journal: list[Entry], flow: Flow) -> None:
        self.flow = flow
        self.journal = [entry for entry in journal if entry.table in flow.tables]
        self.entry: dict[Where, Entry] = {}
        self.surplus: list[Record] = []
        self.changes = [r for r in flow.records if r.op in {"c", "u", "d", "t"}]
        self._match()

    def _match(self) -> None:
        waiting: dict[Name, list[Entry]] = defaultdict(list)
        for entry in reversed(self.journal):
            for partition in range(self.flow.partitions) if entry.op == "t" else (-1,):
                xid = entry.xid % LOW
                name = (entry.table, entry.key, entry.op, entry.version, xid, partition)
                waiting[name].append(entry)
        for record in self.changes:
            partition = record.partition if record.op == "t" else -1
            version = None if record.op == "d" else record.version
            name = (record.table, record.key, record.op, version, record.xid, partition)
            if found := waiting.get(name):
                self.entry[record.where] = found.pop()
            else:
                self.surplus.append(record)
        self.lost = [
            entry
            for entries in waiting.values()
            for entry in entries
            if not self.flow.floor.sees(entry.xid)
        ]

    def partner(self, record: Record) -> Entry | None:
        """Return the entry of a record; None for a snapshot's row and for what has none."""
        return self.entry.get(record.where)

    def by_key(self) -> dict[tuple[str, str], list[Entry]]:
        """Return the journal's entries of each key, in their order."""
        out: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in self.journal:
            out[entry.table, entry.key].append(entry)
        return out

    def by_partition(self) -> dict[tuple[str, int], list[Record]]:
        """Return the records of each partition, in their order."""
        out: dict[tuple[str, int], list[Record]] = defaultdict(list)
        for record in self.flow.records:
            out[record.table, record.partition].append(record)
        return out
