"""Run histories by hand or from a test: prints the seed, steps, kills and distinct states.

    PYTHONPATH=.:tests PYTHONHASHSEED=0 .venv/bin/python -m simulation.run --seed 7 --steps 1000000

Exit status 1 and the violation when an invariant does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Iterator
from unittest import mock

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.internal.conjecture import providers
from hypothesis.stateful import run_state_machine_as_test

from simulation.machine import Simulation, Totals
from simulation.seams import twins
from simulation.world import Violation

_DECISIONS = 40
_AT_ONCE = 50


@contextlib.contextmanager
def seed_alone() -> Iterator[None]:
    """Keep Hypothesis from drawing constants it finds in the code under test.

    They would make a history depend on which modules are loaded, and from which folder.
    """
    found = mock.patch.object(providers, "_get_local_constants", providers.Constants)
    with found, mock.patch.object(providers, "CONSTANTS_CACHE", {}):
        yield


def simulate(number: int, histories: int, *, shrink: bool = False) -> Totals:
    """Run about `histories` histories of one seed; raises `world.Violation`."""
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]
    chosen = settings(
        max_examples=histories,
        stateful_step_count=_DECISIONS,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )

    class Machine(Simulation):
        totals = Totals()

    with twins(), seed_alone():
        run_state_machine_as_test(seed(number)(Machine), settings=chosen)
    return Machine.totals


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    given = os.environ.get("SIMULATION_SEED")
    drawn = int(given) if given else random.SystemRandom().randrange(1 << 32)
    parser.add_argument("--seed", type=int, default=drawn)
    parser.add_argument("--steps", type=int, default=100_000)
    return parser.parse_args()


def main() -> int:
    """Run until there are enough steps, or an invariant is broken."""
    asked = _arguments()
    shrink = bool(os.environ.get("SIMULATION_SHRINK"))
    print(f"SIMULATION_SEED={asked.seed}", flush=True)  # noqa: T201
    total, began, part = Totals(), time.process_time(), 0
    while total.steps < asked.steps:
        try:
            total.add(simulate(asked.seed + part, _AT_ONCE, shrink=shrink))
        except Violation as violation:
            print(f"violated: {violation}")  # noqa: T201
            traceback.print_exc()
            return 1
        part += 1
    seconds = round(time.process_time() - began, 1)
    print(json.dumps({"seed": asked.seed, "cpu_seconds": seconds, **total.told()}))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
