"""Size budgets: what no longer fits is to be taken apart, or named here with the reason.

Complexity (at most 8) is ruff's C901.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tree import files, parsed, python_files, read

LINE = 100
FILE = 400
FUNCTION = 40
COMPILED_FUNCTION = 100
PARAMETERS = 6

# What may be larger, and why: a file by its path, a function by path::name.
EXEMPT: dict[str, str] = {
    "tests/project/promises.toml": "a table: a promise and a test id are one line each",
}

SOURCES = {".py", ".pyx", ".pxd", ".pyi", ".toml", ".yaml", ".yml", ".sh"}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From `def` to the end, without the docstring: explaining is not what makes code long."""
    whole = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is None:
        return whole
    return whole - ((first.end_lineno or first.lineno) - first.lineno + 1)


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return len([one for one in named if one.arg not in {"self", "cls"}])


def over(found: dict[str, int], budget: int) -> dict[str, int]:
    return {name: size for name, size in found.items() if size > budget and name not in EXEMPT}


def test_no_line_is_longer_than_100_characters() -> None:
    long = {
        f"{path}:{number}": len(line)
        for path in files()
        if path.suffix in SOURCES and str(path) not in EXEMPT
        for number, line in enumerate(read(path).splitlines(), 1)
    }
    assert over(long, LINE) == {}


def test_no_file_has_more_than_400_lines() -> None:
    sizes = {
        str(path): len(read(path).splitlines())
        for path in files()
        if path.suffix in {".py", ".pyx", ".pxd", ".pyi"}
    }
    assert over(sizes, FILE) == {}


def test_no_function_has_more_than_40_lines() -> None:
    sizes = {
        f"{path}::{function.name}": lines_of(function)
        for path in python_files()
        for function in functions(path)
    }
    assert over(sizes, FUNCTION) == {}


def test_no_compiled_function_has_more_than_100_lines() -> None:
    """Cython has no parser at hand: a function goes on while lines are indented deeper."""
    sizes: dict[str, int] = {}
    for path in files():
        if path.suffix in {".pyx", ".pxd"}:
            sizes |= {f"{path}::{name}": size for name, size in compiled_functions(read(path))}
    assert over(sizes, COMPILED_FUNCTION) == {}


def compiled_functions(text: str) -> Iterator[tuple[str, int]]:
    lines = text.splitlines()
    for start, line in enumerate(lines):
        stripped = line.lstrip()
        if not (stripped.startswith(("def ", "cdef ", "cpdef ")) and stripped.endswith(":")):
            continue
        if stripped.startswith(("cdef class ", "cdef extern", "cdef struct", "cdef enum")):
            continue
        depth = len(line) - len(stripped)
        end = start + 1
        while end < len(lines) and (
            not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > depth
        ):
            end += 1
        yield stripped.split("(")[0].split()[-1], end - start


def test_no_function_takes_more_than_6_parameters() -> None:
    counts = {
        f"{path}::{function.name}": parameters_of(function)
        for path in python_files()
        for function in functions(path)
    }
    assert over(counts, PARAMETERS) == {}


def test_an_exemption_names_what_exists_and_says_why() -> None:
    for name, reason in EXEMPT.items():
        path, _, function = name.partition("::")
        assert reason
        assert Path(path) in files()
        if function:
            assert function in {found.name for found in functions(Path(path))}
