"""One server as a child process: started, watched, hurt and ended.

A server is ready when its `ready` check says so, has a deadline for it, and shows the end of its
log when it misses it. It keeps its port and its data over `kill` and `start`, so that a crash test
can bring it back as it was. What keeps it from outliving us is in `guard.py`.
"""

from __future__ import annotations

import functools
import json
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from cdc.local.errors import LocalStackError

__all__ = ["Command", "Server", "end_of_log", "free_port", "ordinary_user", "run_once"]

GUARD = Path(__file__).with_name("guard.py")
# What a server may see of our environment: nothing that configures it behind our back
# (PGDATA, KAFKA_OPTS, JAVA_TOOL_OPTIONS, QUARKUS_*).
INHERITED = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
# Below the range from which outgoing connections take theirs on Linux (32768) and macOS (49152):
# a server that is down for a moment would otherwise lose its port to any client.
PORTS = range(20_000, 32_000)


def free_port(preferred: int = 0) -> int:
    """A TCP port nobody listens on at 127.0.0.1: the preferred one, the next ones, or any."""
    near = range(preferred, preferred + 50) if preferred else random.sample(PORTS, 200)
    for port in near:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise LocalStackError(
        f"no free TCP port among {len(near)} tried, the first was {near[0]}",
        hint="stop other servers on this machine and try again",
    )


@functools.cache
def ordinary_user() -> tuple[str, int]:
    """How a server that refuses root is started: the guard's `user`, and an id.

    Not root: as ourselves. Root: in a user namespace where the kernel allows one, else as nobody.
    """
    if os.geteuid() != 0:
        return "", os.geteuid()
    probe = f"import runpy; runpy.run_path({str(GUARD)!r})['enter_user_namespace']()"
    if sys.platform == "linux":
        tried = subprocess.run(
            [sys.executable, "-I", "-S", "-c", probe], capture_output=True, timeout=30, check=False
        )
        if tried.returncode == 0:
            return "namespace", 0
    return "nobody", pwd.getpwnam("nobody").pw_uid


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server: a few names of ours, a fixed locale and clock, and `extra`."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC", **extra}


def end_of_log(path: Path, lines: int = 25) -> str:
    """The last lines of a log; empty when there is none."""
    if not path.exists():
        return ""
    with path.open(encoding="utf-8", errors="replace") as log:
        return "".join(deque(log, maxlen=lines)).rstrip()


@dataclass(frozen=True)
class Command:
    """What to run, and how it likes to be ended."""

    name: str
    argv: Callable[[], Sequence[str]]  # asked anew at every start
    home: Path
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: int = signal.SIGTERM
    at_once: int = signal.SIGTERM
    refuses_root: bool = False
    ended: Callable[[int | None], None] = lambda _exit_code: None  # called after every run

    @property
    def log(self) -> Path:
        """Where its output goes; appended to over restarts."""
        return self.home / f"{self.name}.log"

    def order(self, patience: float) -> str:
        """What the guard is told."""
        user, uid = ordinary_user() if self.refuses_root else ("", 0)
        return json.dumps(
            {
                "argv": list(self.argv()),
                "env": environment(self.env),
                "cwd": str(self.home),
                "log": str(self.log),
                "user": user,
                "uid": uid,
                "at_once": int(self.at_once),
                "patience": patience,
            }
        )


def run_once(command: Command, deadline: float = 60.0) -> None:
    """Run a command to its end under the same rules as a server (initdb, a formatter).

    Raises:
        LocalStackError: it failed or took longer than `deadline` seconds; holds the end of its log.
    """
    server = Server(command)
    server.launch()
    code = server.wait(deadline)
    if code is None:
        server.kill()
        raise server.failure(f"did not end within {deadline:.0f} s")
    if code != 0:
        raise server.failure(f"ended with exit code {code}")


class Server:
    """One server process below its guard.

    `start` may be called again after `stop` or `kill`: same command, same port, same data.
    """

    def __init__(self, command: Command) -> None:
        self.command = command
        self.pid: int | None = None
        self.exit_code: int | None = None
        self._guard: subprocess.Popen[str] | None = None
        self._ready: Callable[[], bool] = lambda: True
        self._deadline = 60.0

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.command.log

    @property
    def running(self) -> bool:
        """Whether the process exists, paused or not."""
        return self._guard is not None and self._guard.poll() is None

    def launch(self, patience: float = 5.0) -> None:
        """Start the process without waiting for it to be ready."""
        if self.running:
            raise LocalStackError(f"{self.command.name} is already running")
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), self.command.order(patience)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._guard, self.exit_code = guard, None
        said = _pipe(guard.stdout).readline()
        if not said.startswith("pid "):
            why = _pipe(guard.stderr).read().strip().splitlines()
            self._reap()
            raise LocalStackError(
                f"{self.command.name} could not be started: {why[-1] if why else 'no reason given'}"
            )
        self.pid = int(said.split()[1])

    def start(self, ready: Callable[[], bool] | None = None, deadline: float | None = None) -> None:
        """Start the process and wait until `ready()`; both arguments are kept for restarts.

        Raises:
            LocalStackError: it ended or was not ready within `deadline` seconds (default 60).
        """
        self._ready = ready or self._ready
        self._deadline = deadline or self._deadline
        self.launch()
        limit = time.monotonic() + self._deadline
        while not self._ready() or not self.running:
            if not self.running:
                self._reap()
                raise self.failure(f"ended at once with exit code {self.exit_code}")
            if time.monotonic() > limit:
                self.kill()
                raise self.failure(f"was not ready within {self._deadline:.0f} s")
            time.sleep(0.05)

    def failure(self, what: str) -> LocalStackError:
        """An error that says what happened and shows the end of the log."""
        tail = end_of_log(self.log) or "(nothing)"
        return LocalStackError(
            f"{self.command.name} {what}; the end of its log:\n{tail}",
            hint=f"the whole log: {self.log}",
        )

    def wait(self, timeout: float) -> int | None:
        """Wait for the process to end; its exit code (negative: a signal), None when it did not."""
        if self._guard is None:
            return self.exit_code
        try:
            self._guard.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._reap()
        return self.exit_code

    def stop(self, timeout: float = 30.0, *, at_once: bool = False) -> int | None:
        """End it politely, after `timeout` seconds by SIGKILL; its exit code."""
        if self.running:
            self.resume()
            self._signal(self.command.at_once if at_once else self.command.stop_signal)
            if self.wait(timeout) is None:
                self.kill()
        self._reap()
        return self.exit_code

    def kill(self) -> None:
        """SIGKILL the server and everything below it, as a crash of the machine would."""
        for process in self._tree():
            _send(process, signal.SIGKILL)
        if self.wait(10.0) is None and self._guard is not None:
            self._guard.kill()
        self._reap()

    def pause(self) -> None:
        """SIGSTOP everything: connections stay open, nothing answers."""
        for process in self._tree():
            _send(process, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        for process in self._tree():
            _send(process, signal.SIGCONT)

    def restart(self) -> None:
        """Stop politely and start again on the same port and data."""
        self.stop()
        self.start()

    def _tree(self) -> list[psutil.Process]:
        if not self.running or self.pid is None:
            return []
        try:
            top = psutil.Process(self.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: int) -> None:
        for process in self._tree()[:1]:
            _send(process, number)

    def _reap(self) -> None:
        """Take leave of the guard: its last word is the exit code."""
        if self._guard is None:
            return
        _pipe(self._guard.stdin).close()  # were it alive, this ends it
        said = _pipe(self._guard.stdout).read().split()
        self._guard.wait(30.0)
        _pipe(self._guard.stdout).close()
        _pipe(self._guard.stderr).close()
        self.exit_code = int(said[-1]) if said[-2:-1] == ["exit"] else self._guard.returncode
        self._guard, self.pid = None, None
        self.command.ended(self.exit_code)


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise LocalStackError("the guard of a server was started without its pipes")
    return stream


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # it ended by itself, which is what every caller wants in the end
