"""Loads every fixture plugin: a new `tests/fix_*.py` needs no line here."""

from pathlib import Path

import pytest

# The contract suites lie in a package: their asserts are to speak as those of tests do.
SUITES = ("", "_cursors", "_changes", "_processes")
pytest.register_assert_rewrite(*(f"sinks.testing{suite}" for suite in SUITES))

pytest_plugins = sorted(path.stem for path in Path(__file__).parent.glob("fix_*.py"))
