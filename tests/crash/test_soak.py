"""A soak goes on where it was left, and the README says what it found."""

from __future__ import annotations

from pathlib import Path

from crash.checker import INVARIANTS
from crash.evidence import Anomaly
from crash.memory import slope
from crash.recovery import Times
from crash.section import markdown
from crash.soak import add, empty, is_done, load, save
from crash.storm import Plan, Report
from readme import README, section


def test_slices_add_up_over_a_stop(tmp_path: Path) -> None:
    kept, path = empty(), tmp_path / "build" / "soak.json"
    add(kept, Report(kills=600, events=6_000_000))
    save(kept, path)
    again = load(path)
    assert not is_done(again)
    add(again, Report(kills=500, events=5_000_000, broken=[Anomaly("duplicate", "x")]))
    assert is_done(again)
    assert (again["slices"], again["kills"], again["verdicts"]["duplicate"]) == (2, 1100, 1)
    assert again["broken"] == [["duplicate", "x"]]


def test_the_section_counts_each_invariant_once(tmp_path: Path) -> None:
    kept = empty()
    broken = [Anomaly(name, "") for name in INVARIANTS]
    add(kept, Report(kills=50, events=200_000, broken=broken))
    path = tmp_path / "soak.json"
    save(kept, path)
    counts = [line.split("|")[-2] for line in markdown(path).splitlines() if line.startswith("| ")]
    assert sum(int(count) for count in counts if count.strip().isdigit()) == len(INVARIANTS)


def test_the_readme_says_of_the_proof_what_was_counted() -> None:
    assert section(README.read_text("utf-8"), "proof") == markdown()


def test_the_slope_is_that_of_the_warm_part() -> None:
    warming = [(x / 10, 50.0 + 10 * x) for x in range(4)]
    assert slope([*warming, *[(x / 10, 100.0 + 2 * x / 10) for x in range(4, 11)]]) < 2.01
    assert slope([(x / 10, 100.0 + 2 * x / 10) for x in range(11)]) > 1.99


def test_the_p99_of_few_times_is_the_longest() -> None:
    times = Times()
    for seconds in (1.0, 3.0, 2.0):
        times.add("worker killed", seconds)
    assert times.summary()["worker killed"] == {"median": 2.0, "p99": 3.0, "bar": 10.0, "times": 3}


def test_a_plan_kills_as_often_as_it_was_asked_to() -> None:
    lanes = Plan(kills=50).lanes()
    brought = [name for names in lanes.values() for name in names]
    kills = sum(name.startswith(("kill", "rebalance")) for name in brought)
    assert kills + 2 * sum(name.startswith("failpoint") for name in brought) >= 50
