"""What must hold at every step, told from the twins alone and never from the workers.

exactly once    what a committed reader finds is what the source committed: each change once,
                in commit order, nothing that was rolled back
no loss         a committed position has everything before it in the topics
confirmed       the slot is told no place before Kafka has committed everything up to it
stored          … and the position that says so
one cut         a table that is read has the rows of the source at the position's place
cursor          the target holds the records before its cursors, all of them and no others
monotone        no position and no cursor goes back
consistent      a target that has read the snapshot shows a state the source once had (R12)
quiescence      at rest topics, target and source are equal, and nobody had to help
"""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_reader

from schemas.avro import raw_schema
from simulation.broker import Broker, Log, Record, Txn
from simulation.database import TABLES, Database, Op
from simulation.database import Txn as Commit
from simulation.target import Server
from simulation.world import World

SOURCE, SINK, PIPELINE = "shop", "mirror", "p"
POSITIONS = f"{PIPELINE}.positions"
_OIDS = {name: oid for oid, name in TABLES.items()}

Image = dict[int, tuple[Any, ...]]

HOLE = ("hole",)
"""A row that lacks a value, since it was gone when it was to be read again (R6): what removed it
follows, and until then nobody can tell what a target should have there."""
Stamp = tuple[int, int, int]


def oid_of(topic: str) -> int | None:
    """Return the table whose changes `topic` carries."""
    head, _, name = topic.rpartition(".")
    return _OIDS.get(name) if head == f"{SOURCE}.public" else None


def play(image: Image, change: dict[str, Any]) -> None:
    """Do to `image` what a record says; a value that was not sent stays as it was."""
    op, after = change["op"], change["after"]
    if op == "t":
        image.clear()
    elif op == "d":
        image.pop(change["before"]["id"], None)
    else:
        old = image.get(after["id"], HOLE)
        if not change["absent_after"]:
            image[after["id"]] = (after["v"], after["big"])
        else:
            image[after["id"]] = HOLE if old is HOLE else (after["v"], old[1])


def expected(commit: Commit) -> list[tuple[int, Stamp, tuple[Any, ...]]]:
    """Return (table, stamp, change) of every stream record a transaction becomes."""
    out: list[tuple[int, Stamp, tuple[Any, ...]]] = []
    ordinal = 0
    for op in commit.survivors():
        if op.kind == "M":
            continue
        ordinal += 1
        stamp = (commit.commit_lsn, ordinal, 0)
        out += [(op.oid, (*stamp[:2], sub), what) for sub, what in _changes(op)]
    return out


def _changes(op: Op) -> list[tuple[int, tuple[Any, ...]]]:
    if op.kind == "T":
        return [(0, ("t",))]
    if op.new is None:
        return [(0, ("d", op.old[0] if op.old else 0))]
    told = (op.new[0], op.new[1])
    if op.old is not None and op.old[0] != op.new[0]:
        return [(0, ("d", op.old[0])), (2, ("c", *told))]
    return [(0, ("c" if op.old is None else "u", *told))]


def _told(change: dict[str, Any]) -> tuple[Any, ...]:
    if change["op"] == "t":
        return ("t",)
    if change["op"] == "d":
        return ("d", change["before"]["id"])
    return (change["op"], change["after"]["id"], change["after"]["v"])


class Checker:
    """Hears of every commit of the database, of Kafka and of the target."""

    def __init__(self, world: World, database: Database, broker: Broker, target: Server) -> None:
        self.world, self.database, self.broker, self.target = world, database, broker, target
        self.schemas: dict[int, dict[str, Any]] = {}
        self.commits: list[Commit] = []
        self.states: list[tuple[int, dict[int, Image]]] = []
        self.source: dict[int, Image] = {oid: {} for oid in TABLES}
        self.topics: dict[tuple[str, int], Image] = {}
        self.applied: dict[tuple[str, int], tuple[int, Image]] = {}
        self.reading: set[str] = set()
        self.read_to: dict[tuple[str, int], int] = {}
        self.read_at = 1 << 62
        self.position: dict[str, Any] = {}
        self._parsed: dict[int, Any] = {}
        self._expected: dict[tuple[int, Stamp], tuple[Any, ...]] = {}
        self._order: list[tuple[int, Stamp]] = []
        self._published: dict[tuple[int, Stamp], set[int]] = {}
        self._checked = 0
        self._last: dict[tuple[str, int], Stamp] = {}
        database.logged = self.logged
        database.confirming = self.confirming
        broker.committed = self.committed
        broker.letter = self.letter
        target.committed = self.landed

    def decode(self, value: bytes) -> dict[str, Any]:
        identity = int.from_bytes(value[1:5], "big")
        if identity not in self._parsed:
            self._parsed[identity] = parse_schema(raw_schema(self.schemas[identity]))
        record: Any = schemaless_reader(BytesIO(value[5:]), self._parsed[identity], None)
        return dict(record)

    # The source has committed

    def logged(self, commit: Commit) -> None:
        self.commits.append(commit)
        for oid, stamp, what in expected(commit):
            self._expected[oid, stamp] = what
            self._order.append((oid, stamp))
        for op in commit.survivors():
            if op.kind != "M":
                _replay(self.source[op.oid], op)
        state = {oid: dict(image) for oid, image in self.source.items()}
        self.states.append((commit.commit_lsn, state))

    def state_at(self, lsn: int) -> dict[int, Image]:
        """Return what the source held when everything up to the commit at `lsn` had committed."""
        found: dict[int, Image] = {oid: {} for oid in TABLES}
        for commit, state in self.states:
            if commit > lsn:
                break
            found = state
        return found

    # Kafka has committed

    def committed(self, txn: Txn) -> None:
        for log, offset in txn.records:
            record = log.records[offset]
            if log.topic == POSITIONS:
                self._position(record)
            elif record.value is not None and oid_of(log.topic) is not None:
                self._record(log, offset, self.decode(record.value))

    def _record(self, log: Log, offset: int, change: dict[str, Any]) -> None:
        place = (log.topic, log.number)
        play(self.topics.setdefault(place, {}), change)
        source = change["source"]
        if source["snapshot"] != "false":
            self.read_to[place] = offset + 1
            return
        oid, stamp = oid_of(log.topic) or 0, (source["commit"], source["ordinal"], source["sub"])
        what = f"{log.topic}[{log.number}]@{offset} {_told(change)} {stamp}"
        if self._expected.get((oid, stamp)) != _told(change):
            wanted = self._expected.get((oid, stamp))
            self.world.violated("exactly once", f"{what} was never committed: {wanted}")
        if stamp <= self._last.get(place, (0, 0, 0)):
            self.world.violated("exactly once", f"{what} comes behind {self._last[place]}")
        self._last[place] = stamp
        self._published.setdefault((oid, stamp), set()).add(log.number)

    def letter(self, value: bytes) -> None:
        """Check a dead letter: nothing here can be one but what stands for a hole."""
        change = self.decode(value)
        key = (change["after"] or {}).get("id")
        gone = any(op.old and op.old[0] == key for c in self.commits for op in c.survivors())
        if not (change["absent_after"] and gone):
            self.world.violated("poison", f"a dead letter: {change}")

    def _position(self, record: Record) -> None:
        name, _, rest = (record.key or b"").decode().partition("/")
        if name != SOURCE:
            return
        if rest.startswith("chunk/"):
            (self.reading.discard if record.value is None else self.reading.add)(rest)
        elif not rest and record.value is not None:
            self._moved(json.loads(record.value)["position"])

    def _moved(self, position: dict[str, Any]) -> None:
        fields = ("incarnation", "commit", "ordinal", "confirmed_lsn")
        was, now = self.position, position
        if was and [was[name] for name in fields] > [now[name] for name in fields]:
            self.world.violated("monotone", f"the position went from {was} to {now}")
        self.position = position
        if self.reading or position["creating"]:
            self.read_at = 1 << 62
        else:
            self.read_at = min(self.read_at, position["complete"])
        if position["creating"] or self.database.slot is None:
            return
        self._whole((position["commit"], position["ordinal"], 9))
        if position["commit"] <= position["complete"] and not self.reading:
            self._one_cut(max(position["complete"], self.database.slot.point - 1))

    def _whole(self, upto: Stamp) -> None:
        """Check that everything up to a position was published."""
        slot = self.database.slot
        while slot is not None and self._checked < len(self._order):
            oid, stamp = self._order[self._checked]
            if stamp > upto:
                return
            self._checked += 1
            if stamp[0] >= slot.point:
                self._is_there(oid, stamp)

    def _is_there(self, oid: int, stamp: Stamp) -> None:
        there = self._published.get((oid, stamp), set())
        whole = len(self.broker.topics[f"{SOURCE}.public.{TABLES[oid]}"]) if there else 1
        if len(there) < (whole if self._expected[oid, stamp] == ("t",) else 1):
            self.world.violated("no loss", f"{TABLES[oid]} {stamp} is not there: {there}")

    def _one_cut(self, lsn: int) -> None:
        wanted = self.state_at(lsn)
        for oid, image in self.in_topics().items():
            if _brief(image) != _brief(wanted[oid], without=image):
                what = f"{TABLES[oid]} at {lsn}: {_brief(image)} for {_brief(wanted[oid])}"
                self.world.violated("one cut", what)

    def in_topics(self) -> dict[int, Image]:
        out: dict[int, Image] = {oid: {} for oid in TABLES}
        for (topic, _), image in self.topics.items():
            out[oid_of(topic) or 0].update(image)
        return out

    # The slot is told

    def confirming(self, lsn: int) -> None:
        point = self.database.slot.point if self.database.slot else 0
        for commit in reversed(self.commits):
            if commit.commit_lsn < point:
                break
            if commit.commit_lsn < lsn:
                missing = [e for e in expected(commit) if (e[0], e[1]) not in self._published]
                if missing:
                    self.world.violated("confirmed", f"{lsn} is confirmed without {missing}")
        if lsn > self.position.get("confirmed_lsn", 0):
            self.world.violated("stored", f"{lsn} is confirmed, stored is {self.position}")

    # The target has committed

    def landed(self) -> None:
        wanted: dict[int, Image] = {oid: {} for oid in TABLES}
        for place, stored in self.target.cursors.items():
            wanted[oid_of(place[0]) or 0].update(self._folded(place, stored[1]))
        found = self.in_target()
        for oid, image in wanted.items():
            if _whole(found[oid], image) != _whole(image, image):
                what = f"{found[oid]} is not what the cursors say: {image}"
                self.world.violated("cursor", f"{TABLES[oid]}: {what}")
        self._consistent(wanted)

    def _folded(self, place: tuple[str, int], end: int) -> Image:
        start, image = self.applied.get(place, (0, {}))
        if end < start:
            self.world.violated("monotone", f"the cursor of {place} went from {start} to {end}")
        log = self.broker.topics[place[0]][place[1]]
        for _, record in log.committed(start, end):
            if record.value is not None:
                play(image, self.decode(record.value))
        self.applied[place] = (end, image)
        return image

    def in_target(self) -> dict[int, Image]:
        out: dict[int, Image] = {oid: {} for oid in TABLES}
        for table, rows in self.target.tables.items():
            cells = [
                [c.decode() if isinstance(c, bytes) else None for c in r] for r in rows.values()
            ]
            out[_OIDS[table.name]] = {int(row[0] or 0): (row[1], row[2]) for row in cells}
        return out

    def _consistent(self, found: dict[int, Image]) -> None:
        cursors = self.target.cursors
        behind = [place for place, end in self.read_to.items() if end > _offset(cursors, place)]
        seen = {oid: _brief(image) for oid, image in found.items()}
        newest = max((row[3] or 0 for row in cursors.values()), default=0)
        if behind or newest < self.read_at:
            return
        wanted = self.state_at(newest)
        if seen != {oid: _brief(image, without=found[oid]) for oid, image in wanted.items()}:
            self.world.violated("consistent", f"{seen} at {newest}, the source had {wanted}")

    # At rest

    def at_rest(self) -> bool:
        """Tell whether everything has arrived."""
        return self.in_topics() == self.source and self.in_target() == self.source


def _offset(cursors: Any, place: tuple[str, int]) -> int:
    return int(cursors[place][1]) if place in cursors else 0


def _whole(image: Image, holes: Image) -> Image:
    return {key: row for key, row in image.items() if holes.get(key) is not HOLE}


def _brief(image: Image, without: Image | None = None) -> dict[int, Any]:
    """Leave `big` out, since one that was read again may be newer, and the holes of `without`."""
    holes = image if without is None else without
    return {key: row[0] for key, row in image.items() if holes.get(key) is not HOLE}


def _replay(image: Image, op: Op) -> None:
    if op.kind == "T":
        image.clear()
    if op.old is not None:
        image.pop(op.old[0], None)
    if op.new is not None:
        image[op.new[0]] = (op.new[1], op.new[2])
