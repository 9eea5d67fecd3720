"""What a storm does: to workers, to servers, to the lines between them, and to what they lean on.

A misfortune is `VERB VICTIM`. A server that is killed comes back on its port and its data after a
moment. Several lanes bring misfortunes at the same time; each victim belongs to one lane, so that
no two meet in one process.
"""

from __future__ import annotations

import random
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import psycopg

from cdc.kafka import DEADLINE_S
from cdc.local.process import Server
from crash.crew import Worker, fenced
from crash.evidence import Anomaly
from crash.scenario import Scenario
from crash.stage import SINKER

FENCED_S = DEADLINE_S + 15.0
"""A replaced owner may be inside one wait on the broker that began before the calm."""

START_S = 60.0
OWNED_S = 60.0
AT_WORK = ("snapshot", "streaming")
REACHED_S = 40.0
RELEASE = "sink.before_release"
"""Passed by whichever worker completes a barrier: seldom by one worker alone."""


class Misfortunes:
    """Brings each misfortune by its name, counts what really happened and how many died."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self._stage = scenario.stage
        self._random = random.Random(seed)  # noqa: S311 - a storm must repeat
        self._servers: dict[str, Server] = {
            "broker": self._stage.kafka.server,
            "registry": self._stage.registry.server,
            "source": self._stage.source.server,
            "target": self._stage.target.server,
        }
        self._lock = threading.Lock()
        self._at_work: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self.kills = 0

    def bring(self, name: str) -> None:
        """Let it happen, a random moment from now."""
        verb, _, victim = name.partition(" ")
        acts: dict[str, Callable[[str], bool]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "replace": self._replace,
            "usurp": self._usurp,
            "failpoint": self._failpoint,
            "cut": self._cut,
            "stall": self._stall,
            "slow": self._slow,
            "errors": self._errors,
            "full": self._full,
            "crowd": self._crowd,
            "rebalance": self._rebalance,
        }
        with self._lock:
            self._at_work[victim] += 1
        happened = acts[verb](victim)
        with self._lock:
            self._at_work[victim] -= 1
            self.happened[name] += happened

    def _disturbed(self) -> bool:
        """Tell whether a server that a source needs, or the line to it, is in trouble now."""
        with self._lock:
            return any(self._at_work[server] for server in ("broker", "registry", "source"))

    def _pause(self, least: float, most: float) -> None:
        time.sleep(self._random.uniform(least, most))

    def _worker(self, victim: str) -> Worker:
        """Wait until the worker's process has been there for a moment and return its seat."""
        worker = self._scenario.crew.workers[victim]
        deadline = time.monotonic() + START_S
        while worker.process is None and time.monotonic() < deadline:
            time.sleep(0.02)
        self._pause(0.8, 3.0)
        return worker

    def _died(self) -> bool:
        with self._lock:
            self.kills += 1
        return True

    def _kill(self, victim: str) -> bool:
        if victim in self._servers:
            return self._kill_server(self._servers[victim])
        return self._worker(victim).send(signal.SIGKILL) and self._died()

    def _kill_server(self, server: Server) -> bool:
        self._pause(1.0, 4.0)
        server.kill()
        self._pause(0.0, 1.5)
        server.start()
        return self._died()

    def _failpoint(self, point: str) -> bool:
        """Start a worker that kills itself at a named point; True when it died there."""
        name, _, victim = point.partition("@")
        worker = self._worker(victim)
        before = worker.ended[-signal.SIGKILL]
        passage = 1 if name == RELEASE else self._random.choice((1, 2, 5))
        worker.failpoints = f"{name}=kill:{passage}"
        worker.send(signal.SIGKILL)
        deadline = time.monotonic() + REACHED_S
        while worker.ended[-signal.SIGKILL] < before + 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        self._died()
        return worker.ended[-signal.SIGKILL] >= before + 2 and self._died()

    def _freeze(self, victim: str) -> bool:
        """SIGSTOP, and SIGCONT when others have given it up: connections stay open meanwhile."""
        if victim in self._servers:
            server = self._servers[victim]
            server.pause()
            self._pause(1.0, 6.0)
            server.resume()
            return True
        worker = self._worker(victim)
        stopped = worker.send(signal.SIGSTOP)
        self._pause(6.0, 9.0)
        worker.send(signal.SIGCONT)
        return stopped

    def _replace(self, victim: str) -> bool:
        """Freeze an owner, start its replacement, then let the frozen one go on.

        One that has yet to say that the source is its own may say so later: that is no owner.
        """
        worker = self._worker(victim)
        if not (self._owns(worker) and worker.send(signal.SIGSTOP)):
            return False
        old = worker.swap()
        self._pause(4.0, 8.0)
        if old is None:
            return False
        old.send_signal(signal.SIGCONT)
        self._judge(worker, fenced(old, FENCED_S, self._disturbed))
        return True

    def _usurp(self, victim: str) -> bool:
        """Start a second owner of a source while the first is at work."""
        worker = self._worker(victim)
        if not self._owns(worker):
            return False
        old = worker.swap()
        if old is None:
            return False
        self._judge(worker, fenced(old, FENCED_S, self._disturbed))
        return True

    def _owns(self, worker: Worker) -> bool:
        """Wait until a source's worker is past its take-over."""
        deadline = time.monotonic() + OWNED_S
        while worker.state() not in AT_WORK and time.monotonic() < deadline:
            time.sleep(0.05)
        return worker.state() in AT_WORK

    def _judge(self, worker: Worker, wrong: str) -> None:
        if wrong:
            found = Anomaly("fencing", f"{worker.name}: {wrong}\n{worker.tail(40)[-8000:]}")
            self._scenario.observed.append(found)

    def _cut(self, victim: str) -> bool:
        with self._healed(victim):
            self._stage.proxies[victim].cut()
            self._pause(0.2, 3.0)
        return True

    def _stall(self, victim: str) -> bool:
        with self._healed(victim):
            self._stage.proxies[victim].stall()
            self._pause(1.0, 6.0)
        return True

    def _slow(self, victim: str) -> bool:
        with self._healed(victim):
            self._stage.proxies[victim].slow(200_000)
            self._pause(2.0, 5.0)
        return True

    def _errors(self, victim: str) -> bool:
        with self._healed(victim):
            self._stage.proxies[victim].answer_500()
            self._pause(2.0, 5.0)
        return True

    @contextmanager
    def _healed(self, victim: str) -> Iterator[None]:
        self._pause(0.5, 2.0)
        try:
            yield
        finally:
            self._stage.proxies[victim].heal()

    def _full(self, victim: str) -> bool:
        """Let no file grow: the broker's disk refuses writes, and it gives up; then there is room.

        A limit on file sizes works for every user, and on the running process.
        """
        server = self._servers[victim]
        assert server.pid is not None
        process = psutil.Process(server.pid)
        process.rlimit(psutil.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        deadline = time.monotonic() + 20
        while server.running and time.monotonic() < deadline:
            time.sleep(0.05)
        gave_up = not server.running
        if gave_up:
            server.wait(1)
            server.start()
        else:
            process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        return True

    def _crowd(self, _victim: str) -> bool:
        """Leave the sinks no connection to the target, and end those they have."""
        with psycopg.connect(self._stage.target.url, autocommit=True) as connection:
            connection.execute(f"alter role {SINKER} connection limit 0")
            ending = "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s"
            connection.execute(ending, (SINKER,))
            self._pause(1.0, 4.0)
            connection.execute(f"alter role {SINKER} connection limit -1")
        return True

    def _rebalance(self, sink: str) -> bool:
        """Let one more worker join the sink's group and leave it again, in mid-batch."""
        arguments = ["sink", sink, "--worker", "9"]
        launch = self._scenario.launch
        process = launch.start(arguments, launch.log(f"sink/{sink}/9"))
        self._pause(4.0, 7.0)
        process.kill()
        process.wait()
        return self._died()
