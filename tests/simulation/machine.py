"""Histories: an application writes, workers run, freeze, are replaced and die, replies get lost.

Hypothesis decides what happens next; the twins decide the small things by dice whose seed it
draws, so that a history is its decisions and nothing else. Each history ends in quiescence: no
more faults, one worker on each side, and everything has to arrive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cdc.errors import Fenced
from cdc.worker import Command
from simulation.broker import Broker, Owner
from simulation.checker import POSITIONS, Checker
from simulation.database import TABLES, Database, Op, Txn
from simulation.seams import Desk, sink_worker, source_worker
from simulation.target import Server
from simulation.walsender import Walsender
from simulation.world import HERE, Process, World

_KEYS = 7
_OPEN = 3
_REST = 400
_ROUNDS = 60
_NEIGHBOUR = b'{"version": 1, "position": {}, "boundary": [1, 1], "ts_ms": 0}'


class Totals:
    """What all histories of a run come to."""

    def __init__(self) -> None:
        self.histories = 0
        self.steps = 0
        self.kills: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.states: set[int] = set()
        self.commits = 0
        self.trace = 0

    def add(self, other: Totals) -> None:
        self.histories += other.histories
        self.steps += other.steps
        self.kills += other.kills
        self.calls += other.calls
        self.states |= other.states
        self.commits += other.commits

    def told(self) -> dict[str, int]:
        return {
            "histories": self.histories,
            "steps": self.steps,
            "kills": self.kills.total(),
            "killed_at": len(self.kills),
            "distinct_states": len(self.states),
            "source_commits": self.commits,
            "straight_copies": self.calls["target.fill"],
        }


class Side:
    """The workers of one kind: the present one, and those it was meant to replace."""

    def __init__(self, world: World, name: str, work: Callable[[Desk], object]) -> None:
        self.world, self.name = world, name
        self._work = work
        self.desk = Desk()
        self.now: Process | None = None
        self.frozen: list[Process] = []
        self.rivals = False

    def start(self) -> Process:
        if self.now is None or self.now.dead:
            self.now = self.world.start(self.name, self._work(self.desk))  # type: ignore[arg-type]
            self.desk.rewind()
        return self.now

    def run(self, steps: int) -> None:
        process = self.start()
        process.run(steps)
        self.judge(process)

    def judge(self, process: Process) -> None:
        """A worker stops for good only when fenced: by another one, or by its time-out.

        What it then says is its own affair: it may meet the successor's traces first.
        """
        self.world.check()
        error, process.error = process.error, None
        fenced = not process.owns() or (isinstance(error, Fenced) and self.rivals)
        if error is not None and not fenced:
            self.world.violated("no operator", f"{process.name} stopped: {error!r} {error}")
            self.world.check()

    def replace(self) -> None:
        """Freeze the present worker and start another one beside it."""
        if self.now is not None and not self.now.dead:
            self.frozen.append(self.now)
            self.now = None
            self.rivals = True

    def thaw(self, steps: int) -> None:
        for process in self.frozen:
            process.run(steps)
            self.world.check()  # how it stops is its own affair: it owns nothing any more

    def bury(self) -> None:
        for process in self.frozen:
            process.kill()


class Application:
    """Writes to the source: up to three transactions at once."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._open: list[Txn] = []
        self._made = 0

    def act(self) -> None:
        dice = self.database.world.dice
        if len(self._open) < _OPEN and (not self._open or dice.random() < 0.2):
            self._open.append(self.database.begin())
        txn = dice.choice(self._open)
        chance = dice.random()
        if chance < 0.62:
            self.write(txn)
        elif chance < 0.68:
            self.database.savepoint(txn)
        elif chance < 0.73:
            self.database.roll_back_to_savepoint(txn)
        elif chance < 0.78:
            self._open.remove(txn)
            self.database.abort(txn)
        else:
            self._open.remove(txn)
            self.database.commit(txn, visible=dice.random() < 0.7)
        if dice.random() < 0.5:
            self.database.show_all()

    def write(self, txn: Txn) -> None:
        database, dice = self.database, self.database.world.dice
        oid = dice.choice(list(TABLES))
        if dice.random() < 0.03:
            if database.untouched(txn, oid):
                database.write(txn, Op("T", oid))
            return
        key = dice.randrange(_KEYS)
        if not database.free(txn, oid, key):
            return
        self._made += 1
        rows, text = database.seen_by(txn, oid), f"v{self._made}"
        old = rows.get(key)
        if old is None:
            database.write(txn, Op("I", oid, None, (key, text, f"big{self._made}")))
        elif dice.random() < 0.3:
            database.write(txn, Op("D", oid, old))
        else:
            self._update(txn, oid, old, text)

    def _update(self, txn: Txn, oid: int, old: tuple[int, str, str], text: str) -> None:
        database, dice = self.database, self.database.world.dice
        big = old[2] if dice.random() < 0.6 else f"big{self._made}"
        key = old[0]
        if dice.random() < 0.25:
            moved = dice.randrange(_KEYS)
            if moved not in database.seen_by(txn, oid) and database.free(txn, oid, moved):
                key = moved
        database.write(txn, Op("U", oid, old, (key, text, big)))

    def finish(self) -> None:
        for txn in self._open:
            self.database.commit(txn)
        self._open = []
        self.database.show_all()


class Simulation(RuleBasedStateMachine):
    """One history. `totals` are those of the run it belongs to."""

    totals = Totals()

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.world = world = HERE.world = World(seed)
        world.database = self.database = Database(world)  # type: ignore[attr-defined]
        world.broker = self.broker = Broker(world)  # type: ignore[attr-defined]
        world.target = self.target = Server(world)  # type: ignore[attr-defined]
        self.checker = Checker(world, self.database, self.broker, self.target)
        world.checker = self.checker  # type: ignore[attr-defined]
        self.broker.create(POSITIONS, 1)
        self.application = Application(self.database)
        self.source = Side(world, "source", source_worker)
        self.sink = Side(world, "sink", sink_worker)
        for _ in range(12):
            self.application.act()

    @rule(actions=st.integers(1, 12))
    def write(self, actions: int) -> None:
        for _ in range(actions):
            self.application.act()

    @rule(steps=st.integers(1, 60))
    def run_source(self, steps: int) -> None:
        self.source.run(steps)

    @rule(steps=st.integers(1, 60))
    def run_sink(self, steps: int) -> None:
        self.sink.run(steps)

    @rule(steps=st.integers(10, 60), actions=st.integers(1, 6))
    def run_all(self, steps: int, actions: int) -> None:
        for _ in range(2):
            self.source.run(steps)
            self.sink.run(steps)
            self.write(actions)

    @rule(left=st.integers(0, 40), when=st.sampled_from(("before", "after")))
    def kill_source(self, left: int, when: str) -> None:
        self._kill(self.source, left, when)

    @rule(left=st.integers(0, 40), when=st.sampled_from(("before", "after")))
    def kill_sink(self, left: int, when: str) -> None:
        self._kill(self.sink, left, when)

    def _kill(self, side: Side, left: int, when: str) -> None:
        side.start().doom = (left, when)
        side.run(left + 2)

    @rule(which=st.sampled_from(("source", "sink")), steps=st.integers(1, 60))
    def replace(self, which: str, steps: int) -> None:
        side: Side = getattr(self, which)
        side.replace()
        side.run(steps)

    @precondition(lambda self: self.source.frozen or self.sink.frozen)
    @rule(steps=st.integers(1, 40))
    def thaw(self, steps: int) -> None:
        self.source.thaw(steps)
        self.sink.thaw(steps)

    @rule(outcome=st.sampled_from(("unanswered", "undecided")))
    def lose_end_of_transaction(self, outcome: str) -> None:
        self.broker.next_commit = outcome

    @rule(outcome=st.sampled_from(("lost before", "lost behind")))
    def lose_commit(self, outcome: str) -> None:
        self.target.next_commit = outcome

    @rule()
    def cut_the_stream(self) -> None:
        slot = self.database.slot
        if slot is not None and isinstance(slot.reader, Walsender):
            slot.reader.release()

    @rule(seconds=st.sampled_from((0.2, 1.0, 4.0, 20.0)))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(table=st.sampled_from(sorted(TABLES.values())))
    def backfill(self, table: str) -> None:
        self.source.desk.requests.append(Command("backfill", {"table": f"public.{table}"}))

    @rule(ends=st.booleans())
    def neighbour(self, ends: bool) -> None:  # noqa: FBT001 - Hypothesis draws it
        """Another source writes its position into the same partition."""
        owner = self.broker.owners.setdefault("neighbour", Owner())
        log = self.broker.topics[POSITIONS][0]
        log.append(b"neighbour", _NEIGHBOUR, self.broker.open(owner))
        if ends:
            self.broker.end(owner, "committed")

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()
            self.totals.states.add(self._state())

    def _state(self) -> int:
        """Return a number that tells places of a history apart, without its clock."""
        position, slot = self.checker.position, self.database.slot
        logs = [(log.stable, len(log.records)) for ls in self.broker.topics.values() for log in ls]
        places = [(p.name, p.state, p.place) for p in self.world.processes if not p.dead]
        cursors = sorted((place, row[1]) for place, row in self.target.cursors.items())
        confirmed = slot.confirmed if slot is not None else 0
        done = (position.get("commit"), position.get("ordinal"), sorted(self.checker.reading))
        return hash((self.database.lsn, str(logs), str(places), str(cursors), confirmed, str(done)))

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if self.world.violation is None:
                self.come_to_rest()
        finally:
            self.world.end()
            self._count()

    def _count(self) -> None:
        totals = self.totals
        totals.histories += 1
        totals.steps += self.world.steps
        totals.kills += self.world.kills
        totals.calls += self.world.calls
        totals.commits += len(self.checker.commits)
        totals.trace = hash((totals.trace, self.world.trace))

    def come_to_rest(self) -> None:
        """No more faults: everything has to arrive by itself."""
        self.source.bury()
        self.sink.bury()
        self.application.finish()
        self.broker.next_commit = self.target.next_commit = "answered"
        self.world.now += 40.0
        self.broker.advance()
        for _ in range(_ROUNDS):
            for side in (self.source, self.sink):
                side.run(_REST // 4)
            if self.checker.at_rest() and not self.checker.reading:
                return
        what = f"source {self.checker.source} topics {self.checker.in_topics()} "
        self.world.violated("quiescence", what + f"target {self.checker.in_target()}")
        self.world.check()
