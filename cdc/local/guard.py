"""Stands between us and one server, so that the server never outlives us.

    parent ──pipe──▶ guard ──fork──▶ server ──▶ its own children
              │                        │
              └ end of file: we died   └ SIGKILL by the kernel when the guard dies (Linux)

The guard sits in `read()` on a pipe whose other end only the parent holds. However the parent ends,
SIGKILL included, the kernel closes that end, the read returns nothing, and the guard ends the
server: first with the signal the server understands as "at once", then with SIGKILL.
On Linux the guard is also the subreaper of everything below it, so that nothing that a dying
server leaves behind escapes to init.

It is run by path with `python -I -S`, imports only the standard library, and starts in 20 ms.
It writes two lines: `pid N` once the server runs, `exit N` once it is gone (negative: by signal N).

As root, a server that refuses root is started in a user namespace of its own, in which it is an
ordinary user and owns the same files; where the kernel forbids that, as `nobody`.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["enter_user_namespace", "main"]

CLONE_NEWUSER = 0x10000000  # linux/sched.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
ORDINARY = 1000  # any id but 0: inside the namespace it is the only one there is
DEAF = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LINUX = sys.platform == "linux"
LIBC = ctypes.CDLL(None, use_errno=True)


def enter_user_namespace() -> None:
    """Become an ordinary user who owns root's files; OSError where the kernel forbids it."""
    if LIBC.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWUSER) was refused")
    # user_namespaces(7): one's own id may be mapped unprivileged, once setgroups is given up.
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{ORDINARY} 0 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{ORDINARY} 0 1", encoding="ascii")


def become(user: str, uid: int) -> None:
    """Give up root as `user` says: "namespace", "nobody" (the given id) or "" (stay)."""
    if user == "namespace":
        enter_user_namespace()
    elif user == "nobody":
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    for number in DEAF:  # what is ignored stays so over exec, and a JVM then never hears SIGTERM
        signal.signal(number, signal.SIG_DFL)
    if LINUX:  # after the change of user, which clears it
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Processes directly below `pid`; none where the system has no /proc."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in text.split()]


def end(server: subprocess.Popen[bytes], at_once: int, patience: float) -> None:
    """End the server and all that it leaves behind."""
    for number in (at_once, signal.SIGKILL):
        if server.poll() is None:
            server.send_signal(number)
            server.send_signal(signal.SIGCONT)  # a paused server would never see the first
            try:
                server.wait(patience)
            except subprocess.TimeoutExpired:
                continue
    sweep()


def sweep() -> None:
    """Kill and reap what was left to us; new ones may appear while their parents die."""
    deadline = time.monotonic() + 5
    while (left := children(os.getpid())) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except OSError:
                continue  # it was faster


def reap_strays(server: subprocess.Popen[bytes]) -> None:
    """Take leave of ended processes that the server had started and left to us."""
    for pid in children(os.getpid()):
        if pid != server.pid:
            os.waitpid(pid, os.WNOHANG)


def watch(server: subprocess.Popen[bytes], at_once: int, patience: float) -> int:
    """Wait until the server ends or the parent does; the server's exit code."""
    wakes, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    news = select.poll()
    news.register(0, select.POLLIN | select.POLLHUP)
    news.register(wakes, select.POLLIN)
    while server.poll() is None:
        # The time limit covers a child that ended before the handler was in place.
        heard = [descriptor for descriptor, _event in news.poll(1000)]
        if wakes in heard:
            os.read(wakes, 512)
            reap_strays(server)
        if 0 in heard and not os.read(0, 1):
            end(server, at_once, patience)
    sweep()
    return server.wait()


def main() -> None:
    """Run one server as the JSON in the first argument says, until it or the parent ends."""
    order = json.loads(sys.argv[1])
    for number in DEAF:
        signal.signal(number, signal.SIG_IGN)
    if LINUX:
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with Path(order["log"]).open("ab") as log:
        server = subprocess.Popen(
            order["argv"],
            env=order["env"],
            cwd=order["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            restore_signals=True,
            preexec_fn=lambda: become(order["user"], order["uid"]),  # noqa: PLW1509 - one thread
        )
    os.write(1, f"pid {server.pid}\n".encode())
    code = watch(server, order["at_once"], order["patience"])
    try:
        os.write(1, f"exit {code}\n".encode())
    except BrokenPipeError:
        sys.exit(0)  # the parent is gone: nobody to tell


if __name__ == "__main__":
    main()
