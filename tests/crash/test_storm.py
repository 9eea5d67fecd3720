"""The short storm: every run of the tests kills workers under load and counts what survived."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crash.checker import INVARIANTS
from crash.storm import Plan, Storm


@pytest.mark.crash
@pytest.mark.timeout(900)
def test_killed_workers_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    report = Storm(Plan(), tmp_path).run()
    sys.stdout.write("\n".join(report.lines()))
    assert report.verdicts() == dict.fromkeys(INVARIANTS, 0)
    assert report.kills >= 50
    assert report.events >= 200_000
