"""The short storm of MariaDB, as source and as target: what survives is counted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crash.checker import INVARIANTS
from crash.maria.storm import Plan, rage


@pytest.mark.crash
@pytest.mark.timeout(400)
def test_killed_workers_and_mariadb_servers_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    report = rage(Plan(), tmp_path)
    sys.stdout.write("\n".join(report.lines()))
    assert report.verdicts() == dict.fromkeys(INVARIANTS, 0)
    assert report.misfortunes["kill source"] == 2
    assert report.misfortunes["kill target"] == 1
    assert report.kills >= 10
    assert report.events >= 5_000
    assert report.looks >= 15
