"""The suite every source passes: subclass `SourceContract` in its test module.

    class TestPostgres(SourceContract):
        @pytest.fixture
        def system(self, pg_database): return a `SourceSystem` with something to capture

A source that also keeps promises of its own adds tests of its own.
"""

# ruff: noqa: S101 - a suite speaks in asserts

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import msgspec
import pytest

from cdc.errors import StateError
from cdc.source import Batch, Progress, Source
from schemas.change import Stamp

__all__ = ["Delivered", "SourceContract", "SourceDriver", "SourceSystem"]

_DEADLINE_S = 30.0
_SILENCE_S = 0.3


class SourceSystem(Protocol):
    """What the suite needs to know of the system behind the source."""

    def source(self) -> Source:
        """Return a source on the same place, not yet open."""
        ...

    def change(self, count: int) -> None:
        """Commit `count` changes, each of them one event of its own."""
        ...


class Delivered(NamedTuple):
    """One event: its stamp, whether it is a snapshot's, and its item as it was handed over."""

    stamp: Stamp
    snapshot: bool
    item: object


class SourceDriver:
    """Drives a source as the worker does, with variables for Kafka.

    What was read and not committed is lost by `kill`; what was committed is what `open` gets.
    """

    def __init__(self, system: SourceSystem) -> None:
        self._system = system
        self.source = system.source()
        self.position: dict[str, Any] | None = None
        self.boundary = Stamp(0, 0)
        self.progress: dict[str, Any] = {}
        self.events: list[Delivered] = []
        self.read: list[Batch] = []

    def open(self) -> None:
        """Open a new source where the last commit left off."""
        self.source = self._system.source()
        self.source.open(self.position, [Progress(k, v) for k, v in self.progress.items()])

    def step(self) -> Batch | None:
        """Read once, commit nothing."""
        batch = self.source.read(0.1)
        if batch is not None:
            self.read.append(batch)
        return batch

    def commit(self) -> None:
        """Store everything read since the last commit, then confirm it."""
        for batch in self.read:
            self.events.extend(delivered(batch))
            self.progress.update({item.key: item.value for item in batch.progress})
            self.position, self.boundary = _stored(batch.upto.encode()), batch.boundary
        self.progress = {key: _stored(value) for key, value in self.progress.items() if value}
        if self.read:
            self.source.confirm(self.read[-1].upto)
        self.read.clear()

    def until(self, condition: Callable[[], bool]) -> None:
        """Read and commit until `condition` holds; fails after 30 s."""
        deadline = time.monotonic() + _DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, self.source.status()
            self.step()
            self.commit()

    def until_events(self, count: int) -> None:
        """Read and commit until there are `count` events."""
        self.until(lambda: len(self.events) >= count)

    def kill(self) -> None:
        """Close without a commit."""
        self.source.close()
        self.read.clear()


def _stored(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def delivered(batch: Batch) -> list[Delivered]:
    """Return the events of a batch, one by one."""
    return [
        Delivered(
            Stamp(rows.origin.incarnation, rows.origin.commit, ordinal), rows.origin.snapshot, item
        )
        for rows in batch.rows
        for item, ordinal in zip(rows.items, rows.ordinals, strict=True)
    ]


class SourceContract:
    """Promises of `cdc.source.Source`, one test each."""

    @pytest.fixture
    def driver(self, system: SourceSystem) -> SourceDriver:
        """Open a source and read what is there at the first start, nothing."""
        driver = SourceDriver(system)
        driver.open()
        driver.until(lambda: driver.position is not None and driver.step() is None)
        return driver

    def test_what_was_there_before_the_first_start_is_delivered(self, system: SourceSystem) -> None:
        """A position of None begins with what the system holds."""
        system.change(5)
        driver = SourceDriver(system)
        driver.open()
        driver.until_events(5)
        driver.source.close()

    def test_every_change_comes_once_under_a_stamp_that_grows(
        self, driver: SourceDriver, system: SourceSystem
    ) -> None:
        """Stamps are a total order, shared by no two events."""
        for count in (1, 20, 3):
            system.change(count)
        driver.until_events(24)
        stamps = [event.stamp for event in driver.events]
        assert stamps == sorted(set(stamps))
        assert len(stamps) == 24
        driver.source.close()

    def test_after_a_restart_nothing_is_lost_and_nothing_repeated(
        self, driver: SourceDriver, system: SourceSystem
    ) -> None:
        """Opened behind the last commit, a source delivers what follows and no more."""
        for number in range(1, 6):
            system.change(3)
            driver.until_events(number * 3)
            driver.kill()
            driver.open()
        stamps = [event.stamp for event in driver.events]
        assert len(stamps) == len(set(stamps)) == 15
        driver.source.close()

    def test_what_was_not_committed_comes_again_the_same(
        self, driver: SourceDriver, system: SourceSystem
    ) -> None:
        """A killed worker's events return under their own stamps."""
        system.change(10)
        lost: list[Delivered] = []
        deadline = time.monotonic() + _DEADLINE_S
        while len(lost) < 10 and time.monotonic() < deadline:
            driver.step()
            lost = [event for batch in driver.read for event in delivered(batch)]
        driver.kill()
        driver.open()
        driver.until_events(10)
        assert driver.events == lost
        driver.source.close()

    def test_a_position_never_goes_back(self, driver: SourceDriver, system: SourceSystem) -> None:
        """Each batch's position covers the one before."""
        positions = []
        for _ in range(5):
            system.change(4)
            for _ in range(5):
                batch = driver.step()
                if batch is not None:
                    positions.append(batch.upto)
            driver.commit()
        for earlier, later in pairwise(positions):
            assert later.covers(earlier)
        driver.source.close()

    def test_a_silent_source_returns_in_time(self, driver: SourceDriver) -> None:
        """`read` comes back in about its timeout with nothing to say."""
        began = time.monotonic()
        for _ in range(5):
            driver.source.read(_SILENCE_S)
        assert time.monotonic() - began < 5 * _SILENCE_S + 2
        driver.source.close()

    def test_a_foreign_position_is_refused(self, driver: SourceDriver) -> None:
        """What another kind of source stored, or a newer version, is `errors.StateError`."""
        driver.kill()
        for foreign in (
            {"version": 1, "gtid": "0-1-5"},
            {**(driver.position or {}), "version": 99},
        ):
            source = driver._system.source()  # noqa: SLF001 - a system is the suite's own
            with pytest.raises(StateError):
                source.open(foreign, [])
            source.close()

    def test_closing_is_safe_at_any_time(self, driver: SourceDriver, system: SourceSystem) -> None:
        """Before open, twice, and with something read."""
        system.source().close()
        system.change(1)
        driver.step()
        driver.source.close()
        driver.source.close()
