"""The simulation finds seeded bugs by itself, and names what they break.

Each is one of the patches of `tests/crash/mutants`, applied to a copy of the shipped packages.
Caught means: an invariant named here was reported within the steps given; a crash, an import error
or a time-out is not caught. The copy without a patch passes the same seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crash.mutants.patching import copy_of_code

TESTS = Path(__file__).parents[1]
SEED = 7
STEPS = 100_000

EXPECTED = {
    "confirm-before-commit": {"stored", "confirmed"},
    "confirmed-before-stored": {"stored"},
    "cursor-outside-transaction": {"cursor"},
    "event-lsn-filter": {"no loss", "one cut", "exactly once"},
    "keepalive-in-flight": {"stored", "confirmed"},
    "no-compare-and-set": {"monotone", "cursor"},
}
"""Patch → the invariants that may be reported first, as `checker` names them."""


def simulated(folder: Path, patch: str) -> subprocess.CompletedProcess[str]:
    code = copy_of_code(folder, patch)
    command = [sys.executable, "-m", "simulation.run", "--seed", str(SEED), "--steps", str(STEPS)]
    environment = {**os.environ, "PYTHONPATH": f"{code}:{TESTS}", "PYTHONHASHSEED": "0"}
    return subprocess.run(
        command, env=environment, cwd=code, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("patch", EXPECTED)
def test_a_seeded_bug_is_found_and_named(patch: str, tmp_path: Path) -> None:
    run = simulated(tmp_path, patch)
    told = [line for line in run.stdout.splitlines() if line.startswith("violated: ")]
    assert run.returncode == 1, run.stdout + run.stderr
    assert told, run.stdout + run.stderr
    assert told[0].split(": ")[1] in EXPECTED[patch], told


def test_the_shipped_code_passes_the_same_histories(tmp_path: Path) -> None:
    run = simulated(tmp_path, "")
    assert run.returncode == 0, run.stdout + run.stderr
