"""Virtual time and processes that stop, go on and die at the calls they make to the outside.

Every call into a twin is a step of the process that makes it. A process runs in a thread, but only
while the scheduler lends it the baton, so that one thread runs at a time and the same decisions
give the same history. At a step a process may be suspended (frozen, as by SIGSTOP) or may die,
before the call has its effect or after it; a dead process has no effect on anything any more.
"""

from __future__ import annotations

import functools
import random
import threading
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from cdc.errors import CdcError

_EPOCH_S = 1_800_000_000
_JOIN_S = 20.0


class Killed(BaseException):
    """The process has died: nothing of it runs on but what finds out that it is dead."""


class Violation(AssertionError):
    """An invariant does not hold; `name` is its name."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


class Process:
    """One worker. `state` is running, ended, dead or stopped (with `error`)."""

    def __init__(self, world: World, name: str, work: Callable[[Process], None]) -> None:
        self.world = world
        self.name = name
        self.state = "running"
        self.error: CdcError | None = None
        self.doom: tuple[int, str] | None = None
        self.place = "start"
        self.stop = False
        self.owns: Callable[[], bool] = lambda: True
        self._work = work
        self._budget = 0
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def dead(self) -> bool:
        return self.state != "running"

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self.dead:
                self._work(self)
                self.state = "ended"
        except Killed:
            self.state = "dead"
        except CdcError as error:
            self.state, self.error = "stopped", error
        except BaseException as error:  # noqa: BLE001 - the scheduler raises it again
            self.state = "stopped"
            self.world.crashed(self, error)
        finally:
            self._back.release()

    def run(self, steps: int) -> int:
        """Let the process make `steps` calls; return how many it made."""
        if self.dead:
            return 0
        self._budget = steps
        before, self.world.current = self.world.current, self
        self._go.release()
        self._back.acquire()
        self.world.current = before
        return steps - max(self._budget, 0)

    def kill(self) -> None:
        """End a suspended process where it stands."""
        if not self.dead:
            self.state = "dead"
            self._go.release()
            self._back.acquire()
        self._thread.join(_JOIN_S)

    def before(self, call: str) -> None:
        """Be suspended when the budget is used up; die when it is time."""
        if self.dead:
            raise Killed
        if self._budget <= 0:
            self._back.release()
            self._go.acquire()
            if self.dead:
                raise Killed
        self._budget -= 1
        self.place = call
        self.world.note(self, call)
        if self.doom is not None:
            left, when = self.doom
            self.doom = (left - 1, when)
            if left <= 0 and when == "before":
                self.die()

    def after(self) -> None:
        if self.doom is not None and self.doom[0] < 0:
            self.die()

    def die(self) -> None:
        self.world.kills[self.place] += 1
        self.state = "dead"
        raise Killed


class World:
    """One history: the clock, the processes, the dice for everything the twins decide."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - a reproducible history, no secret
        self.now = 1000.0
        self.steps = 0
        self.current: Process | None = None
        self.processes: list[Process] = []
        self.violation: Violation | None = None
        self.kills: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.trace = 0
        self._broken: str | None = None

    def start(self, name: str, work: Callable[[Process], None]) -> Process:
        process = Process(self, name, work)
        self.processes.append(process)
        return process

    def note(self, process: Process, call: str) -> None:
        self.steps += 1
        self.now += 0.0005
        self.calls[call] += 1
        self.trace = zlib.crc32(f"{process.name} {call} {self.now:.4f}".encode(), self.trace)

    def violated(self, name: str, what: str) -> None:
        """Remember the first violation and end the process that caused it."""
        if self.violation is None:
            self.violation = Violation(name, what)
        if self.current is not None:
            self.current.die()

    def crashed(self, process: Process, error: BaseException) -> None:
        text = "".join(traceback.format_exception(error))
        self._broken = self._broken or f"{process.name} met what no worker expects:\n{text}"

    def check(self) -> None:
        """Raise what a process found."""
        if self.violation is not None:
            raise self.violation
        if self._broken is not None:
            raise RuntimeError(self._broken)

    def end(self) -> None:
        for process in self.processes:
            process.kill()


class Holder:
    """The world the seams lead to; another one for each history."""

    world: World


HERE = Holder()


def call(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a method of a twin's client a step of the process that owns the client."""

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def stepped(self: Any, *given: Any, **named: Any) -> Any:
            process: Process | None = self.process
            if process is None:
                return method(self, *given, **named)
            process.before(name)
            out = method(self, *given, **named)
            process.after()
            return out

        return stepped

    return wrap


class Clock:
    """Stands for the module `time` in the product."""

    @staticmethod
    def monotonic() -> float:
        return HERE.world.now

    @staticmethod
    def time() -> float:
        return HERE.world.now + _EPOCH_S

    @staticmethod
    def time_ns() -> int:
        return int((HERE.world.now + _EPOCH_S) * 1e9)

    @staticmethod
    def sleep(seconds: float) -> None:
        world = HERE.world
        if world.current is not None:
            world.current.before("sleep")
        world.now += max(seconds, 0.0)
