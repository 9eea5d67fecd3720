"""Every kind of schema change under every rule, on a real MySQL. Run by `make mysql`."""

from __future__ import annotations

from pathlib import Path

import pytest

from borrowed import borrowed
from mysql_server import RealMySQL
from sinks.targets import mysql as mysql_target
from target_systems import MariaDB


class MySQL(MariaDB):
    module = mysql_target


@pytest.fixture
def system(server: RealMySQL, fresh: str) -> MySQL:
    return MySQL(server, fresh)


globals().update(borrowed(Path(__file__).parents[1] / "test_schema_changes.py", more=["opened"]))
