"""Imports point one way: schemas ← cdc ← sinks, with the command line and the web as the roof."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tree import PACKAGES, module_name, parsed, python_files

# What each package may import of ours.
ALLOWED = {
    "schemas": {"schemas"},
    "cdc": {"schemas", "cdc"},
    "sinks": {"schemas", "cdc", "sinks"},
}
# These put everything together: they may import all, and nothing imports them.
ROOF = ("cdc.cli", "cdc.web", "cdc.__main__")


def imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Every module that a file of `package` imports, wherever in the file it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def package_of(path: Path) -> str:
    return ".".join(path.parent.parts)


def is_roof(module: str) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in ROOF)


SOURCES = python_files(*PACKAGES)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    module = module_name(path)
    ours = {
        name for name in imported(parsed(path), package_of(path)) if name.split(".")[0] in PACKAGES
    }
    if is_roof(module):
        return
    assert {name.split(".")[0] for name in ours} <= ALLOWED[path.parts[0]]
    assert not {name for name in ours if is_roof(name)}, f"{module} imports the roof"


def test_the_walk_sees_imports_inside_functions_and_relative_ones() -> None:
    tree = ast.parse(
        "def f():\n    import sinks.sql\n    from ..errors import CdcError\n    from . import kafka"
    )
    found = set(imported(tree, "cdc.inner"))
    assert found == {
        "sinks.sql",
        "cdc.errors",
        "cdc.errors.CdcError",
        "cdc.inner",
        "cdc.inner.kafka",
    }
