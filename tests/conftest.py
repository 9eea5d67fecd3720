"""Loads every fixture plugin: a new `tests/fix_*.py` needs no line here."""

import signal
from pathlib import Path

import pytest

# A shell starts what runs in its background with Ctrl-C ignored, and all that comes of it inherits
# that: the workers that tests end so would go on.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The contract suites lie in a package: their asserts are to speak as those of tests do.
SUITES = ("", "_cursors", "_changes", "_processes")
pytest.register_assert_rewrite(*(f"sinks.testing{suite}" for suite in SUITES))

pytest_plugins = sorted(path.stem for path in Path(__file__).parent.glob("fix_*.py"))
