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


def imported(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports, wherever in the file it does."""
    package = (
        module_name(path) if path.name == "__init__.py" else module_name(path.parent / "x")[:-2]
    )
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, node.module or ""]) if node.level else node.module or ""
            yield base.strip(".")
            yield from (f"{base}.{alias.name}".strip(".") for alias in node.names)


def is_roof(module: str) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in ROOF)


SOURCES = python_files(*PACKAGES)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    module = module_name(path)
    ours = {name for name in imported(path) if name.split(".")[0] in PACKAGES}
    if is_roof(module):
        return
    assert {name.split(".")[0] for name in ours} <= ALLOWED[path.parts[0]]
    assert not {name for name in ours if is_roof(name)}, f"{module} imports the roof"


def test_the_walk_sees_imports_inside_functions_and_relative_ones(tmp_path: Path) -> None:
    path = tmp_path / "cdc" / "inner" / "one.py"
    path.parent.mkdir(parents=True)
    path.write_text("def f():\n    import sinks.sql\n    from ..errors import CdcError\n")
    tree = ast.parse(path.read_text())
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert len(names) == 2
