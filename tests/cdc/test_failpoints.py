"""A failpoint kills where it is told to, counts passages, and is free otherwise."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(spec: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from cdc.failpoints import failpoint\n{code}"],
        env={"CDC_FAILPOINTS": spec, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )


TWICE = "failpoint('publish.before_commit'); print('one'); failpoint('publish.before_commit')"


def test_it_kills_at_the_passage_asked_for() -> None:
    done = run("publish.before_commit=kill:2", f"{TWICE}; print('two')")
    assert (done.returncode, done.stdout) == (-9, "")  # SIGKILL flushes nothing


def test_it_raises_where_asked_to() -> None:
    done = run("publish.before_commit=raise", "failpoint('publish.before_commit')")
    assert "FailpointHit: publish.before_commit" in done.stderr


@pytest.mark.parametrize("spec", ["", "publish.after_commit=kill"])
def test_other_points_are_passed(spec: str) -> None:
    done = run(spec, f"{TWICE}; print('two')")
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n")


def test_an_unknown_name_is_refused() -> None:
    assert "no failpoint is called nowhere" in run("nowhere=kill", "print(1)").stderr
