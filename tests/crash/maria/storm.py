"""A storm between two MariaDB servers, judged by the same checker as the one of PostgreSQL.

python tests/crash/maria/storm.py --rounds 6 --spread

Lanes bring misfortunes at the same time: to the source's worker, to the sink's, to the servers and
the lines to them. What the checker asks of slots, poison and truncations has nothing to judge here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from crash.checker import INVARIANTS, check
from crash.evidence import Anomaly
from crash.maria.scenario import Scenario
from crash.maria.workload import Writer
from crash.misfortunes import Misfortunes
from crash.scenario import SINGLE, SPREAD
from crash.stage import Stage

SOURCE = (
    "failpoint publish.before_commit@{}",
    "kill {}",
    "failpoint publish.after_commit@{}",
    "replace {}",
    "failpoint source.after_confirm@{}",
    "failpoint publish.before_position@{}",
)
SINK = (
    "failpoint sink.before_commit@{}",
    "kill {}",
    "failpoint sink.after_commit@{}",
    "freeze {}",
    "failpoint sink.before_cursor@{}",
    "failpoint sink.before_stage@{}",
)
SERVERS = ("kill source", "kill target", "kill source", "cut source", "kill target", "kill broker")
LINES = ("stall target", "cut target", "freeze source", "stall source", "freeze target")
LOOKS = 15
"""How often a target must have moved before our eyes; the writers go on until then."""


@dataclass
class Plan:
    """How long: misfortunes of each lane, in the order above, over and over; changes a second."""

    rounds: int = 3
    spread: bool = False
    writers: int = 2
    per_s: int = 600
    lines: bool = False

    def lanes(self) -> list[list[str]]:
        """Return what each lane brings."""
        layouts = (SINGLE, SPREAD) if self.spread else (SINGLE,)
        lanes = [_repeated(SERVERS + LINES if self.lines else SERVERS, self.rounds)]
        for layout in layouts:
            for name, _ in layout.seats(layout.source):
                deeds = SOURCE if name.startswith("source/") else SINK
                lanes.append([deed.format(name) for deed in _repeated(deeds, self.rounds)])
        return lanes


def _repeated(names: Sequence[str], count: int) -> list[str]:
    return [names[number % len(names)] for number in range(count)]


@dataclass
class Report:
    """What happened, and what was found broken: nothing, it is hoped."""

    changes: int = 0
    events: int = 0
    looks: int = 0
    kills: int = 0
    misfortunes: Counter[str] = field(default_factory=Counter)
    broken: list[Anomaly] = field(default_factory=list)

    def verdicts(self) -> dict[str, int]:
        """Return how often each invariant was found broken."""
        found = Counter(anomaly.invariant for anomaly in self.broken)
        return {name: found[name] for name in INVARIANTS}

    def lines(self) -> list[str]:
        facts = {
            "changes committed at the source": self.changes,
            "events read from the topics": self.events,
            "looks at the targets": self.looks,
            "processes killed": self.kills,
            **self.misfortunes,
            **self.verdicts(),
        }
        told = [f"{name:<40} {count:>9,}" for name, count in facts.items()]
        return [*told, *(f"{a.invariant}: {a.detail[:1500]}" for a in self.broken)]


def rage(plan: Plan, folder: Path) -> Report:
    """Play one storm on servers of its own and return its report."""
    layouts = (SINGLE, SPREAD) if plan.spread else (SINGLE,)
    with Stage(mariadb=True) as stage, Scenario(stage, layouts, folder) as scenario:
        report = Report()
        scenario.wait_for_positions()
        per_s = plan.per_s / plan.writers
        writers = [Writer(scenario.source, n + 1, per_s) for n in range(plan.writers)]
        for writer in writers:
            writer.start()
        misfortunes = Misfortunes(scenario, seed=1)
        lanes = plan.lanes()
        with ThreadPoolExecutor(len(lanes)) as pool:
            played = [pool.submit(_lane, misfortunes, names) for names in lanes]
        for lane in played:
            lane.result()
        scenario.wait_for_looks(LOOKS)
        for writer in writers:
            writer.end()
        scenario.settle()
        evidence = scenario.evidence()
    report.changes = sum(writer.changes for writer in writers)
    report.events = sum(r.op != "" for flow in evidence.flows for r in flow.records)
    report.looks = sum(len(flow.cuts) for flow in evidence.flows)
    report.kills, report.misfortunes = misfortunes.kills, misfortunes.happened
    report.broken = check(evidence)
    return report


def _lane(misfortunes: Misfortunes, names: Sequence[str]) -> None:
    for name in names:
        misfortunes.bring(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="misfortunes of each lane")
    parser.add_argument("--per-s", type=int, default=1_000, help="changes a second")
    parser.add_argument("--spread", action="store_true", help="also 4 partitions and 3 workers")
    given = parser.parse_args()
    plan = Plan(given.rounds, spread=given.spread, writers=4, per_s=given.per_s, lines=True)
    with tempfile.TemporaryDirectory(prefix="tailrace-storm-") as folder:
        report = rage(plan, Path(folder))
    sys.stdout.write("\n".join([*report.lines(), ""]))
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
