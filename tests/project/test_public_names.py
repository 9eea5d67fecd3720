"""Everything public is listed in `__all__`, exists, and is documented where it is defined."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tree import PACKAGES, parsed, python_files

MODULES = [
    path
    for path in python_files(*PACKAGES)
    if path.name == "__init__.py" or not path.name.startswith("_")
]


def listed(path: Path) -> list[str] | None:
    """The names in a module's `__all__`, None when it has none."""
    for node in parsed(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        if any(isinstance(one, ast.Name) and one.id == "__all__" for one in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            return list(ast.literal_eval(node.value))
    return None


def defined(path: Path) -> dict[str, ast.stmt]:
    """Names bound at the top of a module, with the statement that binds them."""
    return {name: node for node in statements(parsed(path).body) for name in bound(node)}


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, also those inside `if` and `try`."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handlers = [inner for handler in node.handlers for inner in handler.body]
            yield from statements([*node.body, *handlers, *node.orelse])


def bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign):
        named = [inner for target in node.targets for inner in ast.walk(target)]
        return [one.id for one in named if isinstance(one, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def is_documented(node: ast.stmt) -> bool:
    """Classes and functions by a docstring; a value's name speaks, or a comment beside it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return bool(ast.get_docstring(node))
    return True


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_says_what_it_is_for_and_lists_its_names(path: Path) -> None:
    assert ast.get_docstring(parsed(path)), "no docstring"
    names = listed(path)
    assert names is not None, "no __all__"
    assert len(names) == len(set(names)), "a name is listed twice"
    unknown = set(names) - set(defined(path))
    assert not unknown, f"listed but not there: {unknown}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_public_class_and_function_is_documented(path: Path) -> None:
    here = defined(path)
    silent = [name for name in listed(path) or [] if name in here and not is_documented(here[name])]
    assert not silent, f"public and not documented: {silent}"
