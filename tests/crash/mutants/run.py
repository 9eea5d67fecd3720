"""Eighteen seeded bugs, each run through a scenario that provokes it and judged by the checker.

python tests/crash/mutants/run.py [--only NAME]... [--list] [--json FILE]

A bug is caught when the checker names the expected invariant. Workers that crash, cannot be
imported or never finish count as not caught: a checker is believed for what it sees, not for what
happens to break. The same scenarios with the code as it is must leave nothing to report.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from cdc.local import LocalStack
from crash.checker import check
from crash.evidence import Anomaly, Flow
from crash.mutants.catalogue import MUTANTS, Mutant
from crash.mutants.gather import gathered
from crash.mutants.ground import Broken, Ground, Servers
from crash.mutants.patching import ROOT, PatchError, copy_of_code
from crash.mutants.scenarios import SCENARIOS
from crash.samplers import SlotSampler

__all__ = ["CONTROL", "Outcome", "Trial", "attempts", "make_ready", "run", "trials"]

CONTROL = "control"
JOBS = 3
HEAD = f"{'bug':<30} {'scenario':<26} {'expected':<18} {'reported':<60} {'s':>6}"
TABLES = ("plain", "toasted", "reborn", "bulk")


@dataclass(frozen=True)
class Trial:
    """One run: a mutant, or the code as it is, in one scenario."""

    mutant: str
    scenario: str
    expected: tuple[str, ...] = ()
    code: Path = ROOT


@dataclass(frozen=True)
class Outcome:
    """`reported` are the invariants the checker named; `detail` its examples, or why none."""

    mutant: str
    scenario: str
    expected: tuple[str, ...]
    reported: tuple[str, ...]
    seconds: float
    passed: bool
    detail: str = ""


def trials(mutants: Sequence[Mutant], code: Path = ROOT) -> list[Trial]:
    """Return the mutants' trials and, for each scenario they need, the one of the control."""
    scenarios = dict.fromkeys(mutant.scenario for mutant in mutants)
    controls = [Trial(CONTROL, scenario, code=code) for scenario in scenarios]
    return [*(Trial(m.name, m.scenario, m.expected, code) for m in mutants), *controls]


def attempt(stack: Servers, trial: Trial) -> Outcome:
    """Run one trial on a pipeline and databases of its own."""
    started = time.monotonic()
    found: list[Anomaly] = []
    wrong = ""
    with tempfile.TemporaryDirectory(prefix="tailrace-mutant-") as place, ExitStack() as cleanup:
        code, folder = Path(place) / "code", Path(place) / "run"
        folder.mkdir()
        try:
            copy_of_code(code, "" if trial.mutant == CONTROL else trial.mutant, trial.code)
            ground = Ground(stack, code, folder)
            cleanup.callback(ground.close)
            found = judged(ground, trial)
            wrong = ground.crashes()
        except (Broken, PatchError) as error:
            wrong = str(error)
    names = tuple(dict.fromkeys(anomaly.invariant for anomaly in found))
    seconds = time.monotonic() - started
    passed = not wrong and bool(set(names) & set(trial.expected) if trial.expected else not names)
    detail = wrong or "\n".join(f"{a.invariant}: {a.detail}" for a in found)
    return Outcome(
        trial.mutant, trial.scenario, trial.expected, names, round(seconds, 1), passed, detail
    )


def judged(ground: Ground, trial: Trial) -> list[Anomaly]:
    """Play the scenario and return what the checker finds in what it left."""
    kafka, registry = ground.stack.kafka.bootstrap, ground.stack.registry.url
    sampler = SlotSampler(ground.source_url, kafka, (ground.name, ground.name))
    sampler.start()
    try:
        SCENARIOS[trial.scenario](ground)
    finally:
        sampler.end()
    ground.stop_workers()
    flow = Flow(ground.name, ground.floor, ground.partitions, ground.alone, TABLES)
    urls = (ground.source_url, ground.target_url)
    return check(gathered(urls, (kafka, registry), flow, sampler.samples))


def make_ready(server: str) -> None:
    """Make the role that owns the target's tables."""
    with psycopg.connect(server, autocommit=True) as connection:
        if connection.execute("select from pg_roles where rolname = 'sinker'").rowcount == 0:
            connection.execute("create role sinker")


def attempts(stack: Servers, chosen: Sequence[Trial], jobs: int = JOBS) -> Iterator[Outcome]:
    """Run trials, a few at a time; yield each outcome as it comes."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda trial: attempt(stack, trial), chosen)


def run(chosen: Sequence[Trial], jobs: int = JOBS) -> Iterator[Outcome]:
    """Run trials on a stack of their own."""
    with LocalStack() as stack:
        make_ready(stack.postgres.url)
        with psycopg.connect(stack.postgres.url, autocommit=True) as connection:
            # A scenario names a standby that is away: only who asks for it may wait for it.
            connection.execute("alter system set synchronous_commit = local")
            connection.execute("select pg_reload_conf()")
        yield from attempts(stack, chosen, jobs)


def line(outcome: Outcome) -> str:
    """Return a line of the table."""
    expected = " or ".join(outcome.expected) or "nothing"
    reported = ", ".join(outcome.reported) or "nothing"
    verdict = ("caught" if outcome.expected else "clean") if outcome.passed else "NO"
    names = f"{outcome.mutant:<30} {outcome.scenario:<26} {expected:<18}"
    return f"{names} {reported:<60} {outcome.seconds:>6.1f}  {verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("build/mutants.json"))
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--code", type=Path, default=ROOT, help="another checkout to put bugs in")
    options = parser.parse_args()
    names = {CONTROL, *(mutant.name for mutant in MUTANTS)}
    if unknown := set(options.only) - names:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    mutants = [m for m in MUTANTS if not options.only or m.name in options.only]
    chosen = trials(mutants or MUTANTS, options.code)
    if CONTROL in options.only and not mutants:
        chosen = [trial for trial in chosen if trial.mutant == CONTROL]
    if options.list:
        for trial in chosen:
            sys.stdout.write(f"{trial.mutant:<30} {trial.scenario}\n")
        return 0
    return report(chosen, options.jobs, options.json)


def report(chosen: Sequence[Trial], jobs: int, file: Path) -> int:
    """Run, print the table, write the file; 0 when every bug was caught and the control clean."""
    outcomes = []
    sys.stdout.write(f"{HEAD}\n")
    for outcome in run(chosen, jobs):
        outcomes.append(outcome)
        sys.stdout.write(f"{line(outcome)}\n")
        if not outcome.passed:
            sys.stdout.write(f"    {outcome.detail}\n".replace("\n", "\n    ").rstrip(" "))
        sys.stdout.flush()
    bugs = [outcome for outcome in outcomes if outcome.expected]
    controls = [outcome for outcome in outcomes if not outcome.expected]
    caught, clean = sum(o.passed for o in bugs), sum(o.passed for o in controls)
    sys.stdout.write(f"{caught} of {len(bugs)} bugs caught, ")
    sys.stdout.write(f"the control clean in {clean} of {len(controls)} scenarios\n")
    file.parent.mkdir(exist_ok=True)
    written = {"caught": caught, "bugs": len(bugs), "outcomes": [asdict(o) for o in outcomes]}
    file.write_text(json.dumps(written, indent=1), encoding="utf-8")
    return 0 if caught == len(bugs) and clean == len(controls) else 1


if __name__ == "__main__":
    sys.exit(main())
