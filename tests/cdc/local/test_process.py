"""A child process and its guard, seen on small servers written for the purpose."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cdc.local import LocalStackError
from cdc.local.process import PORTS, Command, Server, free_port, ordinary_user, run_once

ROOT = Path(__file__).parents[3]
SLEEPS = "import time; print('here', flush=True); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPS
WITH_CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}]);" + SLEEPS


def until(condition: Callable[[], bool], what: str, deadline: float = 20.0) -> None:
    limit = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < limit, f"not within {deadline} s: {what}"
        time.sleep(0.02)


def python(program: str, home: Path, **options: object) -> Server:
    return Server(Command("small", lambda: [sys.executable, "-c", program], home, **options))


def started(program: str, home: Path) -> Server:
    server = python(program, home)
    server.start(lambda: server.log.exists() and "here" in server.log.read_text())
    return server


def test_stop_tells_the_exit_code_and_reaps_everything(tmp_path: Path) -> None:
    server = started(WITH_CHILD, tmp_path)
    below = psutil.Process(server.pid).children(recursive=True)
    assert server.stop() == -signal.SIGTERM
    assert len(below) == 1
    assert not below[0].is_running()
    assert not server.running


def test_a_server_deaf_to_sigterm_is_killed_after_the_timeout(tmp_path: Path) -> None:
    server = started(DEAF, tmp_path)
    assert server.stop(timeout=0.3) == -signal.SIGKILL


def test_a_start_that_ends_shows_the_log_and_the_exit_code(tmp_path: Path) -> None:
    server = python("import sys; sys.exit('no disk left')", tmp_path)
    with pytest.raises(LocalStackError, match="exit code 1; the end of its log:\nno disk left"):
        server.start(lambda: False)


def test_a_start_that_takes_too_long_is_ended_and_shows_the_log(tmp_path: Path) -> None:
    server = python(SLEEPS, tmp_path)
    with pytest.raises(LocalStackError, match="was not ready within 1 s") as late:
        server.start(lambda: False, deadline=1)
    assert "here" in str(late.value)
    assert not server.running


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    server = Server(Command("small", lambda: ["/does/not/exist"], tmp_path))
    with pytest.raises(LocalStackError, match="/does/not/exist"):
        server.start()
    assert not server.running


def test_starting_twice_is_refused(tmp_path: Path) -> None:
    server = started(SLEEPS, tmp_path)
    with pytest.raises(LocalStackError, match="already running"):
        server.start()
    server.stop()


def test_a_paused_server_sleeps_and_can_still_be_stopped(tmp_path: Path) -> None:
    server = started(WITH_CHILD, tmp_path)
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
    server.pause()
    until(lambda: {p.status() for p in family} == {psutil.STATUS_STOPPED}, "all stopped")
    assert server.stop() == -signal.SIGTERM


def test_run_once_raises_with_the_log_of_what_failed(tmp_path: Path) -> None:
    command = Command("task", lambda: [sys.executable, "-c", "raise SystemExit('no')"], tmp_path)
    with pytest.raises(LocalStackError, match="task ended with exit code 1"):
        run_once(command)


def test_our_environment_does_not_configure_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATA", "/somewhere/else")
    shown = Command("env", lambda: [sys.executable, "-c", "import os; print(os.environ)"], tmp_path)
    run_once(shown)
    assert "somewhere" not in shown.log.read_text()


# Whoever dies, the server goes: by the guard's pipe, and on Linux by the kernel's parent signal.
VICTIMS = ["parent", "guard"] if sys.platform == "linux" else ["parent"]


@pytest.mark.crash
@pytest.mark.parametrize("victim", VICTIMS)
def test_no_orphan_after_sigkill(victim: str, tmp_path: Path) -> None:
    program = f"""if True:
        import sys, time
        from pathlib import Path
        from cdc.local.process import Command, Server
        argv = [sys.executable, "-c", {WITH_CHILD!r}]
        server = Server(Command("small", lambda: argv, Path({str(tmp_path)!r})))
        server.start(lambda: server.log.read_text().count("here") == 2)
        print(server.pid, flush=True)
        time.sleep(600)"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        everyone = [server, *server.children(recursive=True)]
        assert len(everyone) == 2
        killed = parent.pid if victim == "parent" else server.ppid()
        os.kill(killed, signal.SIGKILL)
        # The guard's own death is the harder case: what the server itself had started is then
        # nobody's, and only the real servers' watch over their parent would end it.
        watched = everyone if victim == "parent" else [server]
        until(lambda: not any(alive(p) for p in watched), f"nobody left of {watched}")
        for process in everyone:
            if alive(process):
                process.kill()
        parent.kill()


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_free_ports_lie_where_no_outgoing_connection_takes_them() -> None:
    assert {free_port() for _ in range(20)} <= set(PORTS)


def test_a_taken_port_is_followed_by_the_next() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        assert port < free_port(port) < port + 50


def test_root_is_given_up_for_servers_that_refuse_it(tmp_path: Path) -> None:
    show = "import os; print(os.geteuid())"
    command = Command(
        "who", lambda: [sys.executable, "-I", "-S", "-c", show], tmp_path, refuses_root=True
    )
    if ordinary_user()[0] == "nobody":
        os.chown(tmp_path, ordinary_user()[1], -1)
    run_once(command)
    assert int(command.log.read_text()) != 0
