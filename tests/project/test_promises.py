"""Every promise of an issue names the tests that keep it, or says why it is open.

Run as a program, it prints the open ones: python tests/project/test_promises.py
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROMISES = tomllib.loads(Path(__file__).with_name("promises.toml").read_text("utf-8"))["promise"]


def collected(paths: set[str]) -> set[str]:
    """The ids that pytest finds in some files, each also without its parameters."""
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    ids = {line for line in found.stdout.splitlines() if "::" in line}
    assert found.returncode == 0, found.stdout[-3000:]
    return ids | {name.split("[")[0] for name in ids}


def test_a_promise_has_tests_or_a_reason_for_being_open() -> None:
    bad = [
        one
        for one in PROMISES
        if set(one) not in ({"issue", "text", "tests"}, {"issue", "text", "open"})
    ]
    empty = [one for one in PROMISES if not (one.get("tests") or one.get("open"))]
    assert not bad + empty


def test_no_promise_is_written_twice() -> None:
    keys = [(one["issue"], one["text"]) for one in PROMISES]
    assert len(keys) == len(set(keys))


def test_every_test_that_keeps_a_promise_exists() -> None:
    named = {test for one in PROMISES for test in one.get("tests", [])}
    missing_files = {
        test.split("::")[0] for test in named if not (ROOT / test.split("::")[0]).exists()
    }
    assert not missing_files
    missing = named - collected({test.split("::")[0] for test in named})
    assert not missing


if __name__ == "__main__":
    for promise in PROMISES:
        if "open" in promise:
            print(f"#{promise['issue']} {promise['text']}: {promise['open']}")  # noqa: T201
