"""The long proof, in slices: each is a storm of its own; the sums are kept in build/soak.json.

    make soak                  # slices until 1,000 kills and 10 million events are behind us
    make soak SLICE=4          # four slices more, then stop: the next call goes on from there
    make soak ARGS=--fresh     # forget what was kept, begin anew

A slice has servers, databases and a seed of its own, so that a machine may be switched off between
two of them. Memory and recovery are measured once, by the first slice that finds them missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crash.checker import INVARIANTS
from crash.memory import measure_memory
from crash.recovery import recovery
from crash.scenario import ROOT
from crash.stage import Stage
from crash.storm import Plan, Report, Storm

KEPT = ROOT / "build" / "soak.json"
WANTED_KILLS = 1000
WANTED_EVENTS = 10_000_000
MEMORY_EVENTS = 3_000_000
SUMS = ("changes", "events", "kills", "looks", "slot_samples", "dead", "seconds")


def empty() -> dict[str, Any]:
    return {
        "slices": 0,
        **dict.fromkeys(SUMS, 0),
        "misfortunes": {},
        "deeds": {},
        "verdicts": dict.fromkeys(INVARIANTS, 0),
        "broken": [],
        "memory": {},
        "recovery": {},
    }


def load(path: Path) -> dict[str, Any]:
    return {**empty(), **json.loads(path.read_text())} if path.exists() else empty()


def save(kept: dict[str, Any], path: Path) -> None:
    """Write the whole file, or nothing of it: a soak may be killed itself."""
    path.parent.mkdir(exist_ok=True)
    half = path.with_suffix(".part")
    half.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    half.replace(path)


def add(kept: dict[str, Any], report: Report) -> None:
    """Add one slice's report to the sums."""
    kept["slices"] += 1
    for name in SUMS:
        kept[name] = round(kept[name] + getattr(report, name), 1)
    for name in ("misfortunes", "deeds"):
        kept[name] = dict(Counter(kept[name]) + getattr(report, name))
    for name, times in report.verdicts().items():
        kept["verdicts"][name] = kept["verdicts"].get(name, 0) + times
    kept["broken"] += [list(anomaly) for anomaly in report.broken]
    kept["measured"] = time.strftime("%Y-%m-%d", time.gmtime())


def is_done(kept: dict[str, Any]) -> bool:
    return bool(kept["kills"] >= WANTED_KILLS and kept["events"] >= WANTED_EVENTS)


def one_slice(kept: dict[str, Any], plan: Plan) -> None:
    with tempfile.TemporaryDirectory(prefix="tailrace-soak-") as folder:
        report = Storm(plan, Path(folder)).run()
    add(kept, report)
    for line in report.lines():
        sys.stdout.write(f"{line}\n")


def measured_once(kept: dict[str, Any], path: Path, name: str, act: Callable[[Path], Any]) -> None:
    if kept[name]:
        return
    with tempfile.TemporaryDirectory(prefix="tailrace-soak-") as folder:
        kept[name] = act(Path(folder))
    save(kept, path)
    sys.stdout.write(f"{name}: {json.dumps(kept[name])}\n")


def memory(folder: Path) -> dict[str, dict[str, float]]:
    with Stage() as stage:
        return measure_memory(stage, folder, MEMORY_EVENTS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=0, help="how many; 0: until all is done")
    parser.add_argument("--kills", type=int, default=60, help="of one slice")
    parser.add_argument("--changes", type=int, default=300_000, help="of one slice")
    parser.add_argument("--seconds", type=int, default=180, help="of one slice's load, at least")
    parser.add_argument("--fresh", action="store_true", help="forget what was kept")
    parser.add_argument("--only-storms", action="store_true", help="no memory, no recovery")
    given = parser.parse_args()
    if given.fresh:
        KEPT.unlink(missing_ok=True)
    kept = load(KEPT)
    if not given.only_storms:
        measured_once(kept, KEPT, "recovery", recovery)
        measured_once(kept, KEPT, "memory", memory)
    begun = kept["slices"]
    while kept["slices"] - begun < given.slices if given.slices else not is_done(kept):
        plan = Plan(
            kills=given.kills,
            changes=given.changes,
            seconds=given.seconds,
            weather=len(Plan.every_weather()),
            specials=7,
            copies=3,
            seed=kept["slices"] + 1,
        )
        one_slice(kept, plan)
        save(kept, KEPT)
        sys.stdout.write(f"so far: {kept['kills']:,} kills, {kept['events']:,} events\n\n")
        sys.stdout.flush()
    return 1 if any(kept["verdicts"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
