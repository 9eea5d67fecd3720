"""The loops of the workers against twins of the outside, with a crash possible at every step.

The code that runs is the shipped one: the source loop, the session with its stream, transactions
and snapshot, the publisher, the sink loop with its cuts, the target's transaction and cursors.
What it talks to is played in memory: slot and log (`database`, `walsender`, `catalog`), Kafka
(`broker`), the registry (`seams`) and the target (`target`), with a virtual clock (`world`).
`machine` lets Hypothesis decide what happens, `checker` says what must hold at every step.

The seed is printed, and the same seed repeats the same histories; the tests take SEED unless told
otherwise, `python -m simulation.run` by itself draws a new one:

    SIMULATION_SEED=815 .venv/bin/python -m pytest -s tests/simulation/test_simulation.py

On a failure Hypothesis prints the decisions that led to
it; with SIMULATION_SHRINK=1 it looks for fewer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.run import simulate

ROOT = Path(__file__).parents[2]
SEED = "4711"
STEPS = 100_000


@pytest.mark.timeout(280)
def test_no_history_of_a_hundred_thousand_steps_breaks_an_invariant() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "simulation.run", "--steps", str(STEPS)],
        env={
            "SIMULATION_SEED": SEED,
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "PYTHONHASHSEED": "0",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stdout.write(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["steps"] >= STEPS
    assert told["kills"] >= 100
    assert told["distinct_states"] >= 300
    assert told["straight_copies"] >= 100


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = (simulate(4711, histories=4) for _ in range(2))
    assert first.steps > 1000
    assert (first.steps, first.trace) == (second.steps, second.trace)
