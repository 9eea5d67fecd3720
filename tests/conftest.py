"""Loads every fixture plugin: a new `tests/fix_*.py` needs no line here."""

from pathlib import Path

pytest_plugins = sorted(path.stem for path in Path(__file__).parent.glob("fix_*.py"))
