"""The workers of a scenario as an orchestrator runs them: each a process, started again at once.

`cdc source NAME --take-over` and `cdc sink NAME --worker N`, from whichever checkout the scenario
names. A worker that ends by itself is news; one that ends for an operator is broken convergence.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdc.local.process import end_of_log
from cdc.process import SUPERVISOR_PID
from crash.evidence import Anomaly

FENCED = 5
FOR_OPERATOR = (2, 3)
PAUSE_S = 0.5


@dataclass
class Launch:
    """How a crew starts its processes: whose code, which pipeline file, what environment."""

    code: Path
    config: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, arguments: Sequence[str], log: Path, failpoints: str = "") -> Process:
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.code),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONFAULTHANDLER": "1",  # SIGABRT says where it stood
            SUPERVISOR_PID: str(os.getpid()),  # no worker outlives us
            **self.environment,
        }
        environment.pop("CDC_FAILPOINTS", None)
        if failpoints:
            environment["CDC_FAILPOINTS"] = failpoints
        with log.open("ab") as said:
            return Process(
                [sys.executable, "-m", "cdc", "-c", str(self.config), *arguments],
                cwd=self.folder,
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        """Where a process of this name writes."""
        return self.folder / f"{name.replace('/', '-')}.log"


Process = subprocess.Popen


class Worker:
    """One seat: its arguments, its present process, and how the ones before it ended."""

    def __init__(self, name: str, arguments: Sequence[str], launch: Launch) -> None:
        self.name = name
        self._arguments = arguments
        self._launch = launch
        self.process: Process[bytes] | None = None
        self.lock = threading.RLock()
        self.ended: Counter[int] = Counter()
        self.due = 0.0
        self.failpoints = ""
        self.starts = 0

    def start(self) -> None:
        """Start the process, armed with the failpoints asked for, for this once."""
        armed, self.failpoints = self.failpoints, ""
        self.starts += 1
        self.process = self._launch.start(self._arguments, self._log(), armed)

    def _log(self, before: int = 0) -> Path:
        """Where the present process writes, or the one that many `before` it."""
        return self._launch.log(f"{self.name}/{self.starts - before}")

    def tick(self) -> int | None:
        """Start what is down and due; return the exit code of what has just ended."""
        with self.lock:
            if self.process is not None:
                code = self.process.poll()
                if code is None:
                    return None
                self.process = None
                self.ended[code] += 1
                self.due = time.monotonic() + (0 if code == -signal.SIGKILL else PAUSE_S)
                return code
            if time.monotonic() >= self.due:
                self.start()
            return None

    def send(self, number: int) -> bool:
        """Send a signal to the process, if there is one."""
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                return False
            self.process.send_signal(number)
            return True

    def swap(self) -> Process[bytes] | None:
        """Start another process in this seat and return the old one, which goes on as it may."""
        with self.lock:
            old, self.process = self.process, None
            self.start()
            return old

    def state(self) -> str:
        """What the present process last said of itself, "" when it has said nothing."""
        lines = self._log().read_text(errors="replace").splitlines()
        told = (json.loads(line) for line in reversed(lines) if line.startswith('{"state"'))
        return next((str(record["state"]) for record in told), "")

    def tail(self, lines: int = 12) -> str:
        """The ends of what the last two processes said."""
        logs = [self._log(1), self._log()]
        return "\n".join(f"--- {log.stem}\n{end_of_log(log, lines)}" for log in logs)


class Crew(threading.Thread):
    """All workers of a scenario, kept running until `end`."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        super().__init__(name="crew", daemon=True)
        self.workers = {worker.name: worker for worker in workers}
        self.stopped: list[Anomaly] = []
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.02):
            for worker in self.workers.values():
                code = worker.tick()
                if code in FOR_OPERATOR:
                    said = worker.tail()[-400:]
                    self.stopped.append(Anomaly("convergence", f"exit code {code}: {said}"))

    def end(self) -> None:
        """Ask all to end, wait, kill what is left."""
        self._over.set()
        self.join()
        for worker in self.workers.values():
            worker.send(signal.SIGCONT)
            worker.send(signal.SIGTERM)
        for worker in self.workers.values():
            if worker.process is not None:
                _reap(worker.process)

    def tails(self) -> str:
        return "\n".join(worker.tail() for worker in self.workers.values())


def _reap(process: Process[bytes], patience_s: float = 12.0) -> int:
    try:
        return process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def fenced(process: Process[bytes], within_s: float, disturbed: Callable[[], bool]) -> str:
    """Wait for a replaced process to end; what is wrong with how it did, '' when nothing is.

    Time in which the servers are `disturbed` does not count: nobody can take over from anybody.
    """
    deadline = time.monotonic() + within_s
    while process.poll() is None:
        if disturbed():
            deadline = time.monotonic() + within_s
        if time.monotonic() > deadline:
            process.send_signal(signal.SIGABRT)
            _reap(process)
            return f"the replaced owner still ran after {within_s:.0f} s of calm"
        time.sleep(0.05)
    # SIGKILL: another misfortune found it first.
    code = process.returncode
    return "" if code in {FENCED, -signal.SIGKILL} else f"the replaced owner ended with {code}"
