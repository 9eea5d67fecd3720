"""A storm: real servers, one load captured in two layouts, misfortunes in lanes, and the checker.

python tests/crash/storm.py --kills 50 --changes 120000 --seconds 150

The same load is captured twice: with one partition per table and one worker, and with four
partitions and three workers. A kill is a SIGKILL of a worker or of a server.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cdc.failpoints import FAILPOINTS
from crash.checker import INVARIANTS, check
from crash.deeds import COPY_ROWS, Deeds
from crash.evidence import Anomaly, Evidence
from crash.misfortunes import Misfortunes
from crash.scenario import ROOT, SINGLE, SPREAD, Scenario, Setting
from crash.stage import Stage
from crash.workload import Writer

LANES = ("source/bank", "source/quad", "sink/one", "sink/four/0", "sink/four/1", "sink/four/2")
WEATHER = (
    *("kill broker", "kill source", "kill target", "kill registry"),
    *("freeze broker", "freeze source", "freeze target", "freeze registry"),
    *(f"{what} {where}" for what in ("cut", "stall", "slow") for where in ("broker", "target")),
    *("cut source", "stall source", "slow source", "errors registry"),
    *("full broker", "crowd target", "rebalance four"),
)
SPECIALS = (
    *("replace source/bank", "usurp source/quad", "freeze sink/one"),
    *("freeze source/quad", "usurp source/bank", "freeze sink/four/1", "replace source/quad"),
)


@dataclass
class Plan:
    """How much, how rough, and how long at least; `weather` is what befalls servers and lines."""

    kills: int = 56
    changes: int = 100_000
    seconds: int = 100
    weather: int = 10
    specials: int = 3
    copies: int = 1
    failpoints: bool = True
    writers: int = 4
    seed: int = 1
    settle_s: float = 150.0
    code: Path = ROOT

    @staticmethod
    def every_weather() -> tuple[str, ...]:
        """Return all that can befall servers and lines."""
        return WEATHER

    def lanes(self) -> dict[str, list[str]]:
        """Return what each lane brings, in order; the last is the weather's."""
        chance = random.Random(self.seed)  # noqa: S311 - a storm must repeat
        weather = list(WEATHER[:4])
        while len(weather) < self.weather:
            rest = list(WEATHER[4:])
            chance.shuffle(rest)
            weather += rest
        weather = weather[: self.weather]
        dying = sum(name.startswith(("kill", "rebalance")) for name in weather)
        points = self._points() if self.failpoints else []
        left = self.kills - dying - 2 * len(points)
        lanes = {lane: [f"kill {lane}"] * (-(-left // len(LANES))) for lane in LANES}
        for point in points:
            lanes[point.partition("@")[2]].append(point)
        for number in range(self.specials):
            special = SPECIALS[number % len(SPECIALS)]
            lanes[special.partition(" ")[2]].append(special)
        for names in (*lanes.values(), weather):
            chance.shuffle(names)
        return {**lanes, "weather": weather}

    def _points(self) -> list[str]:
        out = []
        for number, point in enumerate(FAILPOINTS):
            of_sink = point.startswith("sink.")
            victim = ("sink/four/0", "sink/one") if of_sink else ("source/bank", "source/quad")
            # Only several workers have a barrier to release; the one alone has every table.
            fixed = {"sink.before_release": 0, "sink.before_letters": 1, "sink.after_letters": 1}
            chosen = victim[fixed.get(point, number % 2)]
            out.append(f"failpoint {point}@{chosen}")
        return out


@dataclass
class Report:
    """What happened, and what was found broken: nothing, it is hoped."""

    changes: int = 0
    events: int = 0
    kills: int = 0
    misfortunes: Counter[str] = field(default_factory=Counter)
    deeds: Counter[str] = field(default_factory=Counter)
    looks: int = 0
    slot_samples: int = 0
    dead: int = 0
    seconds: float = 0.0
    broken: list[Anomaly] = field(default_factory=list)

    def verdicts(self) -> dict[str, int]:
        """Return how often each invariant was found broken."""
        found = Counter(anomaly.invariant for anomaly in self.broken)
        return {name: found[name] for name in INVARIANTS}

    def lines(self) -> Iterator[str]:
        yield f"changes committed at the source   {self.changes:>10,}"
        yield f"events read from the topics       {self.events:>10,}"
        yield f"processes killed                  {self.kills:>10,}"
        for name, times in sorted((self.misfortunes + self.deeds).items()):
            yield f"  {name:<31} {times:>10,}"
        yield f"looks at the targets              {self.looks:>10,}"
        yield f"looks at the slots                {self.slot_samples:>10,}"
        yield f"dead letters                      {self.dead:>10,}"
        yield f"seconds                           {self.seconds:>10.1f}"
        for name, times in self.verdicts().items():
            yield f"{name:<33} {times:>10,}"
        yield from (f"{a.invariant}: {a.detail[:1500]}" for a in self.broken)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "broken": [list(anomaly) for anomaly in self.broken]}


class Storm:
    """One storm on a stage; `run` returns its report."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._report = Report()

    def run(self, stage: Stage | None = None) -> Report:
        begun = time.monotonic()
        if stage is None:
            with Stage() as own:
                self._play(own)
        else:
            self._play(stage)
        self._report.seconds = time.monotonic() - begun
        return self._report

    def _play(self, stage: Stage) -> None:
        settle_s = self._plan.settle_s
        setting = Setting(code=self._plan.code, settle_s=settle_s, grace_s=settle_s)
        with Scenario(stage, setting, self._folder) as scenario:
            self._rage(scenario)
            scenario.settle()
            evidence = scenario.evidence()
        self._sum_up(evidence)

    def _rage(self, scenario: Scenario) -> None:
        plan = self._plan
        per_s = max(1, plan.changes - COPY_ROWS * plan.copies) / plan.seconds / plan.writers
        writers: list[Writer | Deeds] = [
            Writer(scenario.source, number + 1, per_s, plan.seed) for number in range(plan.writers)
        ]
        writers.append(Deeds(scenario.source, plan.seed, plan.copies))
        for writer in writers:
            writer.start()
        try:
            scenario.wait_for_slots()
            self._bring_all(scenario)
            self._wait_for_changes(writers)
        finally:
            for writer in writers:
                writer.end()
            for writer in writers:
                writer.join()
        for writer in writers:
            if writer.failure is not None:
                raise writer.failure
        self._report.changes = sum(writer.changes for writer in writers)
        self._report.deeds = (
            Counter(writers[-1].done) if isinstance(writers[-1], Deeds) else Counter()
        )

    def _bring_all(self, scenario: Scenario) -> None:
        """Bring every lane's misfortunes at the same time, and ask for backfills meanwhile."""
        misfortunes = Misfortunes(scenario, self._plan.seed)
        with ThreadPoolExecutor(len(LANES) + 1) as pool:
            lanes = [pool.submit(_lane, misfortunes, n) for n in self._plan.lanes().values()]
            for layout, table in ((SINGLE, "plain"), (SPREAD, "toasted"), (SINGLE, "accounts")):
                if scenario.backfill(layout, table):
                    self._report.misfortunes[f"backfill {layout.source}"] += 1
        for lane in lanes:
            lane.result()
        self._report.misfortunes += misfortunes.happened
        self._report.kills = misfortunes.kills

    def _wait_for_changes(self, writers: list[Writer | Deeds]) -> None:
        deadline = time.monotonic() + 4 * self._plan.seconds
        while sum(w.changes for w in writers) < self._plan.changes:
            assert time.monotonic() < deadline, "the writers are too slow"
            assert not any(w.failure for w in writers), [w.failure for w in writers]
            time.sleep(0.1)

    def _sum_up(self, evidence: Evidence) -> None:
        report = self._report
        report.events = sum(r.op != "" for flow in evidence.flows for r in flow.records)
        report.looks = sum(len(flow.cuts) for flow in evidence.flows)
        report.slot_samples = sum(len(flow.slots) for flow in evidence.flows)
        report.dead = sum(len(flow.dead) for flow in evidence.flows)
        report.broken = check(evidence)


def _lane(misfortunes: Misfortunes, names: Sequence[str]) -> None:
    for name in names:
        misfortunes.bring(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in asdict(Plan()).items():
        kind = type(default) if not isinstance(default, Path) else Path
        if isinstance(default, bool):
            parser.add_argument(f"--no-{name}", dest=name, action="store_false")
        else:
            parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    plan = Plan(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory(prefix="tailrace-storm-") as folder:
        report = Storm(plan, Path(folder)).run()
    for line in report.lines():
        sys.stdout.write(f"{line}\n")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
