"""The stack runs from any folder and as any user, and ends with whoever started it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from cdc.local import LocalPostgres, LocalStackError, cache, home, process
from cdc.local.process import GUARD, ordinary_user

ROOT = Path(__file__).parents[3]
# What root can become here; an ordinary user stays one.
ROOTS_WAYS = {"namespace": ["namespace", "nobody"], "nobody": ["nobody"], "": [""]}


def run_python(program: str, cwd: Path, cache_folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=cwd,
        env={**os.environ, "CDC_CACHE": str(cache_folder), "PYTHONPATH": str(cwd)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_clone_and_a_cache_in_a_0700_folder_work(postgres: LocalPostgres, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    shutil.copytree(ROOT / "cdc", private / "cdc")
    [tree] = cache.cache_folder().glob("postgres-18.*")
    shutil.copytree(tree, private / "cache" / tree.name)
    program = """
        import cdc.local, psycopg
        with cdc.local.LocalPostgres() as server:
            print(cdc.local.__file__, psycopg.connect(server.url).execute("select 7").fetchone())"""
    done = run_python(program, private, private / "cache")
    assert done.stdout == f"{private}/cdc/local/__init__.py (7,)\n", done.stderr
    assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("way", ROOTS_WAYS[ordinary_user()[0]])
def test_postgres_runs_whatever_root_may_become(
    way: str, postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = os.geteuid() if way != "nobody" else 65534
    for module in (process, home):
        monkeypatch.setattr(module, "ordinary_user", lambda: (way, identity))
    with LocalPostgres() as server:
        psycopg.connect(server.url).close()
        owner = server.data.stat().st_uid
    assert owner == (65534 if way == "nobody" else os.geteuid())


def test_an_ordinary_user_needs_nothing_special(tmp_path: Path) -> None:
    become = f"import runpy; runpy.run_path({str(GUARD)!r})['enter_user_namespace']()"
    program = f"""
        {become if ordinary_user()[0] == "namespace" else ""}
        import os
        from cdc.local import LocalPostgres
        from cdc.local.process import ordinary_user
        with LocalPostgres() as server:
            print(ordinary_user() == ("", os.geteuid()))"""
    done = run_python(program, ROOT, cache.cache_folder())
    assert done.stdout == "True\n", done.stderr


def test_a_folder_that_the_servers_user_cannot_enter_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    monkeypatch.setattr(home, "ordinary_user", lambda: ("nobody", 65534))
    server = LocalPostgres(data=tmp_path / "private" / "pg")
    with pytest.raises(LocalStackError, match="an ordinary user cannot enter") as refused:
        server.start()
    assert "CDC_CACHE" in refused.value.hint


@pytest.mark.crash
def test_no_server_outlives_a_killed_parent() -> None:
    program = """if True:
        import time
        from cdc.local import LocalStack
        with LocalStack():
            print("up", flush=True)
            time.sleep(600)"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        family = psutil.Process(parent.pid).children(recursive=True)
        assert {p.name() for p in family} >= {"java", "postgres"}
        os.kill(parent.pid, signal.SIGKILL)
        gone, left = psutil.wait_procs(family, timeout=20)
    assert not left, f"{len(gone)} ended, these did not: {left}"


@pytest.mark.crash
def test_ctrl_c_while_starting_leaves_nothing_running() -> None:
    program = "from cdc.local import LocalStack\nLocalStack().start()"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.DEVNULL
    ) as parent:
        limit = time.monotonic() + 30
        while not (family := psutil.Process(parent.pid).children(recursive=True)):
            assert time.monotonic() < limit, "no child appeared"
            time.sleep(0.02)
        parent.send_signal(signal.SIGINT)
        parent.wait(60)
    _gone, left = psutil.wait_procs(family, timeout=20)
    assert not left
