"""What a storm does to the processes: SIGKILL of workers and servers, and a worker frozen.

A server that is killed comes back on its port and its data after a moment. A frozen worker keeps
its connections and its transactional id, and goes on as if nothing had happened 20 s later: by
then the broker has aborted its transaction and PostgreSQL has ended its walsender.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import psutil

from cdc.local import LocalStack
from cdc.local.process import Server, end_of_log
from fix_pipeline import wait_until

FROZEN_S = 20.0
WORKERS = {"source": ("source", "bank"), "sink one": ("sink", "one"), "sink two": ("sink", "two")}


class Misfortunes:
    """Brings each misfortune by its name, and counts what really happened."""

    def __init__(self, stack: LocalStack, workers: Server, chance: random.Random) -> None:
        self._workers = workers
        self._random = chance
        self._servers = {"broker": stack.kafka.server, "postgres": stack.postgres.server}
        self.happened: Counter[str] = Counter()

    def bring(self, name: str) -> None:
        """Let `kill NAME` or `freeze NAME` happen, a random moment from now."""
        verb, _, victim = name.partition(" ")
        time.sleep(self._random.uniform(0.2, 1.5))
        if victim in self._servers:
            self._kill_server(self._servers[victim])
            self.happened[name] += 1
            return
        worker = self._worker(victim)
        time.sleep(self._random.uniform(0.0, 3.0))
        if worker.is_running():
            self._act(verb)(worker)
            self.happened[name] += 1

    def _act(self, verb: str) -> Callable[[psutil.Process], None]:
        return {"kill": psutil.Process.kill, "freeze": _freeze}[verb]

    def _kill_server(self, server: Server) -> None:
        time.sleep(self._random.uniform(0.0, 3.0))
        server.kill()
        time.sleep(self._random.uniform(0.0, 2.0))
        server.start()

    def _worker(self, victim: str) -> psutil.Process:
        """Wait for the worker and return its process."""

        def running() -> psutil.Process | None:
            assert self._workers.running, end_of_log(self._workers.log)
            for process in psutil.Process(self._workers.pid).children(recursive=True):
                try:
                    if all(word in process.cmdline() for word in WORKERS[victim]):
                        return process
                except psutil.NoSuchProcess:
                    continue
            return None

        found: psutil.Process = wait_until(running, f"{victim} to run", 60)
        return found


def _freeze(worker: psutil.Process) -> None:
    worker.send_signal(signal.SIGSTOP)
    try:
        time.sleep(FROZEN_S)
    finally:
        worker.send_signal(signal.SIGCONT)
