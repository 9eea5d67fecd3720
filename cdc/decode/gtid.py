"""Global transaction ids: MariaDB's one place per domain, MySQL's sets of intervals per server.

    MariaDB   0-1-2734,7-3-12              domain-server-sequence; a domain is one stream of commits
    MySQL     3e11…9562:1-5:8:blue:1-3     server uuid, intervals, and those of a tag (MySQL 8.3)

Both are values: what advances is a new one. Sources: MariaDB documentation, "Global Transaction
ID"; MySQL 8.4 reference manual, "GTID Format and Storage".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, Self
from uuid import UUID

__all__ = ["Domains", "Gtid", "Gtids", "Interval", "Intervals", "MysqlGtid"]

_U32, _U64 = 1 << 32, 1 << 64
_TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_DIGITS = re.compile(r"[0-9]{1,20}")


def _number(text: str, below: int) -> int:
    if _DIGITS.fullmatch(text) is None or int(text) >= below:
        raise ValueError(f"{text!r} is no number of a global transaction id")
    return int(text)


class Gtid(NamedTuple):
    """One transaction of MariaDB: `sequence` grows within `domain`, whichever server wrote it."""

    domain: int
    server: int
    sequence: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id `text` names. Raises `ValueError` when it is none."""
        parts = text.split("-")
        if len(parts) != 3:
            raise ValueError(f"{text!r} is no global transaction id: domain-server-sequence")
        domain, server, sequence = parts
        return cls(_number(domain, _U32), _number(server, _U32), _number(sequence, _U64))

    def __str__(self) -> str:
        return f"{self.domain}-{self.server}-{self.sequence}"


class Domains:
    """A MariaDB position: the last transaction of each domain, and all before it."""

    __slots__ = ("_last",)

    def __init__(self, last: Iterable[Gtid] = ()) -> None:
        self._last = {gtid.domain: gtid for gtid in last}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "0-1-5,7-2-3"; empty is the beginning. Raises `ValueError`."""
        found = [Gtid.parse(part.strip()) for part in text.split(",")] if text.strip() else []
        if len({gtid.domain for gtid in found}) != len(found):
            raise ValueError(f"{text!r} names a domain twice")
        return cls(found)

    def __str__(self) -> str:
        return ",".join(str(gtid) for _, gtid in sorted(self._last.items()))

    def __bool__(self) -> bool:
        return bool(self._last)

    def __repr__(self) -> str:
        return f"Domains({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Domains) and self._last == other._last

    def __hash__(self) -> int:
        return hash(str(self))

    def contains(self, gtid: Gtid) -> bool:
        """Tell whether `gtid` lies at or before this position."""
        last = self._last.get(gtid.domain)
        return last is not None and gtid.sequence <= last.sequence

    def names(self, gtid: str) -> bool:
        """Tell whether the transaction called `gtid` lies at or before this position."""
        return self.contains(Gtid.parse(gtid))

    def covers(self, other: Domains) -> bool:
        """Tell whether everything in `other` lies at or before this position."""
        return all(self.contains(gtid) for gtid in other._last.values())

    def advanced(self, gtid: Gtid) -> Self:
        """Return the position behind `gtid`. Raises `ValueError` when it is behind it already."""
        if self.contains(gtid):
            raise ValueError(f"{gtid} comes at or before {self}")
        return type(self)([*self._last.values(), gtid])

    def noted(self) -> str:
        """See `Gtids`: the other domains stand where they stood."""
        return str(self)

    def way_back(self, _: str, noted: str) -> Self:
        """See `Gtids`."""
        return self.parse(noted)


class Gtids(Protocol):
    """What was executed up to a place of the log, whichever server's log it is."""

    def contains(self, gtid: Any) -> bool:
        """Tell whether one transaction is in it."""
        ...

    def names(self, gtid: str) -> bool:
        """Tell whether the one called `gtid` is in it."""
        ...

    def covers(self, other: Any) -> bool:
        """Tell whether everything in `other`, of the same kind, is in it."""
        ...

    def advanced(self, gtid: Any) -> Self:
        """Return what was executed with one more. Raises `ValueError` when it has it already."""
        ...

    def noted(self) -> str:
        """Return what has to be kept to come back here, to the transaction that follows."""
        ...

    def way_back(self, gtid: str, noted: str) -> Self:
        """Return the position from which a log sends the transaction called `gtid` next.

        It is in here, and was `noted` as following it.
        """
        ...


class MysqlGtid(NamedTuple):
    """One transaction of MySQL: counted per server, and there per tag."""

    server: UUID
    tag: str
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id `text` names. Raises `ValueError` when it is none."""
        server, *rest = text.split(":")
        if len(rest) not in (1, 2):
            raise ValueError(f"{text!r} is no global transaction id: uuid:number, uuid:tag:number")
        tag = rest[0].lower() if len(rest) > 1 else ""
        if tag and _TAG.fullmatch(tag) is None:
            raise ValueError(f"{tag!r} is no tag")
        return cls(UUID(server), tag, _number(rest[-1], 1 << 63))

    def __str__(self) -> str:
        return ":".join(filter(None, (str(self.server), self.tag, str(self.number))))


class Interval(NamedTuple):
    """Transactions `first` to `last`, both in it."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


Owner = tuple[UUID, str]


class Intervals:
    """A MySQL GTID set: per server uuid and tag, the transactions that were executed."""

    __slots__ = ("_sets",)

    def __init__(self, sets: Mapping[Owner, Iterable[Interval]] | None = None) -> None:
        merged = {owner: _merged(intervals) for owner, intervals in (sets or {}).items()}
        self._sets = {owner: found for owner, found in merged.items() if found}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "uuid:1-5:7,uuid:tag:1-3"; empty is the empty set. Raises `ValueError`."""
        sets: dict[Owner, list[Interval]] = {}
        for part in "".join(text.split()).split(","):
            if part:
                _read_server(part, sets)
        return cls(sets)

    def __str__(self) -> str:
        servers: dict[UUID, list[str]] = {}
        for (server, tag), intervals in sorted(self._sets.items()):
            found = servers.setdefault(server, [])
            found += [*filter(None, [tag]), *map(str, intervals)]
        return ",".join(f"{server}:{':'.join(parts)}" for server, parts in servers.items())

    def __repr__(self) -> str:
        return f"Intervals({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intervals) and self._sets == other._sets

    def __hash__(self) -> int:
        return hash(str(self))

    def __bool__(self) -> bool:
        return bool(self._sets)

    def parts(self) -> list[tuple[Owner, tuple[Interval, ...]]]:
        """Return what the set has, by server and tag."""
        return sorted(self._sets.items())

    def contains(self, gtid: MysqlGtid) -> bool:
        """Tell whether one transaction is in the set."""
        known = self._sets.get((gtid.server, gtid.tag), ())
        return any(first <= gtid.number <= last for first, last in known)

    def names(self, gtid: str) -> bool:
        """Tell whether the transaction called `gtid` is in the set."""
        return self.contains(MysqlGtid.parse(gtid))

    def covers(self, other: Intervals) -> bool:
        """Tell whether every transaction of `other` is in this set."""
        return all(
            any(mine.first <= first and last <= mine.last for mine in self._sets.get(owner, ()))
            for owner, intervals in other._sets.items()
            for first, last in intervals
        )

    def advanced(self, gtid: MysqlGtid) -> Self:
        """Return the set with one more transaction. Raises `ValueError` when it has it."""
        if self.contains(gtid):
            raise ValueError(f"{gtid} is in the set already")
        server, tag, number = gtid
        known = self._sets.get((server, tag), ())
        return type(self)({**self._sets, (server, tag): [*known, Interval(number, number)]})

    def noted(self) -> str:
        """See `Gtids`: nothing, the transaction's own id is enough."""
        return ""

    def way_back(self, gtid: str, _: str) -> Self:
        """See `Gtids`: a server sends whatever a set lacks, the oldest first."""
        server, tag, number = MysqlGtid.parse(gtid)
        left: list[Interval] = []
        for first, last in self._sets.get((server, tag), ()):
            cut = (Interval(first, min(last, number - 1)), Interval(max(first, number + 1), last))
            left += [part for part in cut if part.first <= part.last]
        return type(self)({**self._sets, (server, tag): left})


def _read_server(part: str, sets: dict[Owner, list[Interval]]) -> None:
    """Read one server's part of a set: its uuid, intervals, tags and their intervals."""
    name, *pieces = part.split(":")
    server, tag, counted = UUID(name), "", 0
    for piece in pieces:
        lowered = piece.lower()
        if _TAG.fullmatch(lowered):
            tag = lowered
            continue
        sets.setdefault((server, tag), []).append(_interval(piece))
        counted += 1
    if not counted:
        raise ValueError(f"{part!r} names no transaction")


def _interval(text: str) -> Interval:
    first, dash, last = text.partition("-")
    found = Interval(_number(first, 1 << 63), _number(last if dash else first, 1 << 63))
    if not 1 <= found.first <= found.last:
        raise ValueError(f"{text!r} is no interval of transactions")
    return found


def _merged(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return the same transactions as disjoint intervals that do not touch, in order."""
    out: list[Interval] = []
    for first, last in sorted(intervals):
        if out and first <= out[-1].last + 1:
            out[-1] = Interval(out[-1].first, max(out[-1].last, last))
        else:
            out.append(Interval(first, last))
    return tuple(out)
