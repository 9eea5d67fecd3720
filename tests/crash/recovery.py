"""How long until the next committed effect in the target, after each kind of loss.

The clock starts when the worker is killed, or when the server accepts connections again, or when
the owner freezes; it stops when a row written after that moment is in the target. A killed worker
is started again at once, as an orchestrator does; of two `cdc run` one replaces the other.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

from cdc.local.process import Server
from crash.scenario import SINGLE, Scenario, Setting, outside
from crash.stage import Stage

BARS_S = {"worker killed": 10.0, "Postgres restarted": 5.0, "broker restarted": 10.0}
FROZEN = "frozen owner replaced"
BARS_S[FROZEN] = 30.0
DEADLINE_S = 90.0


@dataclass
class Times:
    """Seconds, by what was lost."""

    taken: dict[str, list[float]] = field(default_factory=dict)

    def add(self, what: str, seconds: float) -> None:
        self.taken.setdefault(what, []).append(round(seconds, 2))

    def summary(self) -> dict[str, dict[str, float]]:
        """Return median, p99 (the largest of fewer than a hundred), the bar and how many."""
        return {
            what: {
                "median": round(statistics.median(seconds), 2),
                "p99": sorted(seconds)[max(0, -(-len(seconds) * 99 // 100) - 1)],
                "bar": BARS_S[what],
                "times": len(seconds),
            }
            for what, seconds in self.taken.items()
        }


class Pulse(threading.Thread):
    """Writes a row with its moment every 20 ms, around outages of the source."""

    def __init__(self, url: str) -> None:
        super().__init__(name="pulse", daemon=True)
        self._url = url
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.02):
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    while not self._over.wait(0.02):
                        connection.execute(
                            "insert into plain (id, happened) values"
                            " (nextval('versions') + 500000000, clock_timestamp())"
                        )
            except psycopg.OperationalError:
                continue

    def end(self) -> None:
        self._over.set()
        self.join()


class Clock:
    """Knows the target: when does it show a row written after a moment?"""

    def __init__(self, target: str) -> None:
        self._target = target

    def effect_after(self, moment: float) -> float:
        """Wait for it; return the seconds since `moment`, which is in Unix time."""
        deadline = time.monotonic() + DEADLINE_S
        query = "select 1 from plain where happened > to_timestamp(%s) limit 1"
        while time.monotonic() < deadline:
            try:
                with psycopg.connect(self._target, autocommit=True) as connection:
                    while time.monotonic() < deadline:
                        if connection.execute(query, (moment,)).fetchone():
                            return time.time() - moment
                        time.sleep(0.01)
            except psycopg.OperationalError:
                continue
        raise TimeoutError(f"no effect within {DEADLINE_S:.0f} s")


def measure(stage: Stage, folder: Path, rounds: int) -> Times:
    """Lose each thing `rounds` times (workers three times as often) and take the times."""
    times = Times()
    with Scenario(stage, Setting(layouts=(SINGLE,)), folder) as scenario:
        scenario.wait_for_slots()
        clock, pulse = Clock(scenario.targets["one"]), Pulse(scenario.source)
        pulse.start()
        try:
            clock.effect_after(time.time())
            for number in range(6 * rounds):
                seat = ("source/bank", "sink/one")[number % 2]
                times.add("worker killed", _killed(scenario, seat, clock))
            for _ in range(rounds):
                for server in (stage.source.server, stage.target.server):
                    times.add("Postgres restarted", _restarted(server, clock))
                times.add("broker restarted", _restarted(stage.kafka.server, clock))
        finally:
            pulse.end()
    return times


def _killed(scenario: Scenario, seat: str, clock: Clock) -> float:
    time.sleep(1.0)  # a worker in its stride, not one that has only just started
    moment = time.time()
    while not scenario.crew.workers[seat].send(signal.SIGKILL):
        moment = time.time()
    return clock.effect_after(moment)


def _restarted(server: Server, clock: Clock) -> float:
    server.kill()
    server.start()
    return clock.effect_after(time.time())


def measure_frozen(stage: Stage, folder: Path, rounds: int, times: Times) -> None:
    """Freeze the machine of the source's owner; another one replaces it."""
    for _ in range(rounds):
        scenario = Scenario(stage, Setting(layouts=(SINGLE,)), folder)
        runs = [_supervisor(scenario, number) for number in (1, 2)]
        pulse = Pulse(scenario.source)
        pulse.start()
        try:
            clock = Clock(scenario.targets["one"])
            clock.effect_after(time.time())
            frozen = _tree(_owner(runs, f"source {scenario.called(SINGLE)}"))
            moment = time.time()
            _signal_all(frozen, signal.SIGSTOP)
            times.add(FROZEN, clock.effect_after(moment))
            _signal_all(frozen, signal.SIGCONT)
        finally:
            pulse.end()
            for run in runs:
                _end(run)


def _supervisor(scenario: Scenario, number: int) -> subprocess.Popen[bytes]:
    with (scenario.folder / f"run-{scenario.name}-{number}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "cdc", "run", "--config", str(scenario.config)],
            cwd=scenario.folder,
            env={**outside(), "PYTHONPATH": str(scenario.setting.code)},
            stdout=log,
            stderr=log,
        )


def _owner(runs: list[subprocess.Popen[bytes]], words: str) -> int:
    for run in runs:
        for child in psutil.Process(run.pid).children(recursive=True):
            if words in " ".join(child.cmdline()):
                return run.pid
    raise LookupError(f"nobody runs {words}")


def _tree(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def _signal_all(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        if process.is_running():
            process.send_signal(number)


def _end(run: subprocess.Popen[bytes]) -> None:
    processes = _tree(run.pid) if run.poll() is None else []
    run.terminate()
    try:
        run.wait(15)
    except subprocess.TimeoutExpired:
        _signal_all(processes, signal.SIGKILL)
        run.wait()


def recovery(folder: Path, rounds: int = 3) -> dict[str, dict[str, float]]:
    """Return all recovery times in seconds, summed up."""
    with Stage() as stage:
        times = measure(stage, folder, rounds)
        measure_frozen(stage, folder, rounds, times)
    return times.summary()
