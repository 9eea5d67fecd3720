"""The suite of what shows beside a target only: a worker that is killed, another sink, `cdc drop`.

    class TestPostgres(TargetContract, ProcessContract):
        @pytest.fixture
        def system(self, …): return a `PlacedSystem` over an empty place

It holds for targets that keep rows and cursors in one transaction of the target.
"""

# ruff: noqa: S101 - a suite speaks in asserts

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

import msgspec
import pytest

from cdc.connector import Context
from sinks.target import Barrier, Target
from sinks.testing_cursors import EMPTIED, ITEMS, PLACE, TargetSystem, cursor, span, upsert

__all__ = ["PlacedSystem", "ProcessContract", "work"]

_ONE, _TWO = (b"1", b"pen", b"1.50"), (b"2", b"cup", None)
_KILLED_S = 60


class PlacedSystem(TargetSystem, Protocol):
    """What the suite needs to know more: how anybody else comes to the same place.

    `module` is the target's own; `options` are those of its block in a pipeline file, which let
    two workers in; `config` is what the module made of them.
    """

    module: ModuleType
    context: Context
    options: Mapping[str, object]
    config: Any


def work() -> None:
    """Be a worker that applies twice, or stands at a truncation; what it is comes as JSON."""
    deed, name, pipeline, sink, options = json.load(sys.stdin)
    module = import_module(name)
    config = module.Config.model_validate(options)
    target: Target = module.create(Context(pipeline, sink), config)
    target.open()
    target.prepare(ITEMS)
    target.apply(upsert(_ONE), [span(None, 5)])
    if deed == "apply":
        target.apply(upsert(_TWO), [span(5, 9)])
    else:
        target.meet(Barrier(ITEMS, EMPTIED, snapshot=False, spans=[span(5, 9)], partitions=1))


def _killed(system: PlacedSystem, deed: str, failpoint: str) -> None:
    """Have a worker do a deed, and die at a failpoint on the way."""
    context = system.context
    named = (deed, system.module.__name__, context.pipeline, context.name)
    script = "from sinks.testing_processes import work; work()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps([*named, system.options], default=str).encode(),
        env={**os.environ, "CDC_FAILPOINTS": failpoint},
        capture_output=True,
        check=False,
        timeout=_KILLED_S,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


class ProcessContract:
    """Promises of a target about what others do, one test each."""

    def watch(self, system: PlacedSystem) -> None:
        """Have the system count the rows that are written, where it can (`writes`)."""

    def writes(self, system: PlacedSystem) -> int | None:  # noqa: ARG002
        """Return how many rows were written since `watch`; None where nobody counts."""
        return None

    @pytest.mark.parametrize(
        ("point", "applied"),
        [
            ("sink.before_stage", 1),
            ("sink.before_cursor", 1),
            ("sink.before_commit", 1),
            ("sink.after_commit", 2),
        ],
    )
    def test_a_worker_killed_anywhere_leaves_rows_and_cursor_together(
        self, system: PlacedSystem, point: str, applied: int
    ) -> None:
        """The next one goes on from there, and each row is written once."""
        self.watch(system)
        _killed(system, "apply", f"{point}=kill:2")
        assert len(system.rows(ITEMS.table)) == applied
        target = _opened(system)
        assert target.cursors([PLACE]) == {PLACE: cursor({1: 5, 2: 9}[applied])}
        if applied == 1:
            target.apply(upsert(_TWO), [span(5, 9)])
        assert system.rows(ITEMS.table) == [_ONE, _TWO]
        assert self.writes(system) in (None, 2)

    def test_a_worker_killed_while_it_truncates_has_truncated_nothing(
        self, system: PlacedSystem
    ) -> None:
        """The table is emptied and the cursor moves over the truncation, or neither (R8)."""
        _killed(system, "meet", "sink.before_release=kill")
        assert system.rows(ITEMS.table) == [_ONE]
        assert _opened(system).cursors([PLACE]) == {PLACE: cursor(5)}

    def test_dropping_a_sink_forgets_its_cursors_alone(self, system: PlacedSystem) -> None:
        """A dry run says what would go, and where nothing was nothing is said."""

        def dropped(*, dry_run: bool) -> int:
            return len(list(system.module.drop(system.context, system.config, dry_run=dry_run)))

        assert dropped(dry_run=False) == 0
        target = _opened(system)
        target.apply(upsert(_ONE), [span(None, 5)])
        assert dropped(dry_run=True) == 1
        assert target.cursors([PLACE]) == {PLACE: cursor(5)}
        assert dropped(dry_run=False) == 1
        assert target.cursors([PLACE]) == {PLACE: None}
        assert system.rows(ITEMS.table) == [_ONE]

    def test_two_sinks_may_share_a_place(self, system: PlacedSystem) -> None:
        """Each has cursors of its own."""
        context = msgspec.structs.replace(system.context, name="other")
        other: Target = system.module.create(context, system.config)
        other.open()
        _opened(system).apply([], [span(None, 5)])
        other.apply([], [span(None, 3)])
        assert other.cursors([PLACE]) == {PLACE: cursor(3)}
        other.close()


def _opened(system: PlacedSystem) -> Target:
    """Return a target that the system closes, ready for the suite's table."""
    target = system.connect()
    target.open()
    target.prepare(ITEMS)
    return target
