"""A local stack that stays up for a person, until told to go down.

    cdc local up ──runs──▶ launcher (this module as a program), until the stack is ready
                             └ supervisor, a fork of it without a terminal: nobody's child
                                 ├ LocalStack(data in the cache folder, usual ports)
                                 └ state.json, written when all servers are ready

`state.json` holds the supervisor's process id together with its start time, so that a reused id is
never taken for it, and the databases' passwords: the file is the user's alone. When the supervisor
ends, however it ends, the guards end the servers; the data stays for the next `up`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import msgspec
import psutil

from cdc.local.cache import cache_folder, locked
from cdc.local.errors import LocalStackError
from cdc.local.process import Server, end_of_log
from cdc.local.stack import LocalStack

__all__ = ["PORTS", "ServerState", "State", "down", "log_of", "status", "up"]

PORTS = (9092, 8081, 5432, 3306)
START_S = 180.0
STOP_S = 90.0
VERSION = 1


class ServerState(msgspec.Struct, frozen=True):
    """One running server: where it is reached, its process and its log."""

    address: str
    pid: int
    log: str

    @property
    def running(self) -> bool:
        """Whether its process exists."""
        return psutil.pid_exists(self.pid)


class State(msgspec.Struct, frozen=True):
    """What `state.json` says; `started` is the supervisor's start time in seconds since 1970."""

    pid: int
    started: float
    kafka: ServerState
    registry: ServerState
    postgres: ServerState
    version: int = VERSION
    mariadb: ServerState | None = None

    @property
    def servers(self) -> dict[str, ServerState]:
        """The servers by name."""
        found = {"kafka": self.kafka, "registry": self.registry, "postgres": self.postgres}
        return {**found, "mariadb": self.mariadb} if self.mariadb else found

    @property
    def running(self) -> bool:
        """Whether the supervisor that wrote this is alive."""
        return _is_alive(self.pid, self.started)


def folder() -> Path:
    """Where the standing stack keeps its state, logs and data."""
    return cache_folder() / "standing"


def status() -> State | None:
    """The standing stack, or None when none is up.

    Raises:
        LocalStackError: the state was written by a newer version of Tailrace.
    """
    path = folder() / "state.json"
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    found = msgspec.json.decode(text, type=dict[str, Any])
    if found.get("version") != VERSION:
        raise LocalStackError(
            f"{path} is of version {found.get('version')}, this Tailrace knows {VERSION}",
            hint="use the Tailrace that started the stack to stop it",
        )
    state = msgspec.convert(found, State)
    return state if state.running else None


def up(version: int = 18, *, mariadb: bool = False) -> State:
    """Start the standing stack, or find it up; return when all its servers are ready.

    Raises:
        LocalStackError: a part could not be fetched, a server could not be started, or a stack is
            up that has no MariaDB.
    """
    databases = ("postgres", "mariadb") if mariadb else ("postgres",)
    with locked("standing", deadline=START_S):
        if found := status():
            return _with_mariadb(found) if mariadb else found
        LocalStack(version=version, databases=databases).prepare()
        log = folder() / "supervisor.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            launched = subprocess.run(
                [sys.executable, "-m", "cdc.local.standing", str(version), *databases],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        found = status()
        if launched.returncode != 0 or found is None:
            raise LocalStackError(end_of_log(log, 40), hint=f"the logs are in {folder()}")
        return found


def _with_mariadb(found: State) -> State:
    if found.mariadb is None:
        raise LocalStackError(
            "the stack that is up has no MariaDB",
            hint="cdc local down, then cdc local up --mariadb; the data stays",
        )
    return found


def down(*, wipe: bool = False) -> bool:
    """Stop the standing stack, `wipe`: remove its data too; whether there was one.

    Raises:
        LocalStackError: it would not end.
    """
    with locked("standing", deadline=START_S):
        found = status()
        if found is not None:
            _end(found)
        if wipe:
            shutil.rmtree(folder(), ignore_errors=True)
        return found is not None


def _end(state: State) -> None:
    os.kill(state.pid, signal.SIGTERM)
    limit = time.monotonic() + STOP_S
    while state.running:
        if time.monotonic() > limit:
            raise LocalStackError(
                f"the local stack, process {state.pid}, did not end within {STOP_S:.0f} s",
                hint=f"kill -9 {state.pid}; its servers end with it",
            )
        time.sleep(0.05)


def log_of(server: str) -> Path:
    """The log file of a server, of the running or the last stack."""
    return folder() / server / f"{server}.log"


def _is_alive(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _supervise(version: int, databases: Sequence[str]) -> None:
    """Hold the stack until SIGTERM; the state file exists exactly while it is ready."""
    signal.signal(signal.SIGTERM, _leave)
    path = folder() / "state.json"
    with LocalStack(version=version, databases=databases, data=folder(), ports=PORTS) as stack:
        scratch = path.with_suffix(".tmp")
        scratch.touch(mode=0o600)
        scratch.write_bytes(msgspec.json.encode(_state(stack)))
        scratch.replace(path)
        try:
            while True:
                signal.pause()
        finally:
            path.unlink(missing_ok=True)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _state(stack: LocalStack) -> State:
    kafka, registry, postgres, mariadb = stack.kafka, stack.registry, stack.postgres, stack.mariadb
    return State(
        pid=os.getpid(),
        started=psutil.Process().create_time(),
        kafka=_server_state(kafka.bootstrap, kafka.server),
        registry=_server_state(registry.url, registry.server),
        postgres=_server_state(postgres.url, postgres.server),
        mariadb=_server_state(mariadb.url, mariadb.server) if mariadb.server.running else None,
    )


def _server_state(address: str, server: Server) -> ServerState:
    return ServerState(address, server.pid or 0, str(server.log))


def _launch(version: int, databases: Sequence[str]) -> int:
    """Fork the supervisor and wait until it is ready; the exit code, 0 when it is."""
    supervisor = os.fork()
    if supervisor == 0:
        os.setsid()
        _supervise(version, databases)
    limit = time.monotonic() + START_S
    while status() is None:
        if os.waitpid(supervisor, os.WNOHANG)[0]:
            return 1  # its last words are in the log
        if time.monotonic() > limit:
            os.kill(supervisor, signal.SIGTERM)
            raise LocalStackError(f"the local stack was not ready within {START_S:.0f} s")
        time.sleep(0.05)
    return 0


def main() -> None:
    """Launch the supervisor; a failure is the last words in supervisor.log."""
    try:
        sys.exit(_launch(int(sys.argv[1]), sys.argv[2:]))
    except LocalStackError as error:
        sys.exit(f"{error}\n{error.hint}")


if __name__ == "__main__":
    main()
