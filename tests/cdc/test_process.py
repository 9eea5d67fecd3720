"""A worker's process is set up for many records in two threads."""

from __future__ import annotations

import gc
import sys

from cdc.process import tune


def test_a_worker_seldom_looks_for_cycles_and_its_threads_take_turns_quickly() -> None:
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    try:
        tune()
        assert gc.get_threshold()[0] >= 10_000
        assert gc.get_freeze_count() > 0
        assert sys.getswitchinterval() <= 0.001
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()
        sys.setswitchinterval(interval)
