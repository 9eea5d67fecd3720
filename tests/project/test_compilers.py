"""The extensions are built by any C compiler, by the one in a wheel too, and by none at all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tree import ROOT, clone

pytestmark = pytest.mark.timeout(600)  # a compiler that runs for the first time builds its own libc
UV = Path(sys.executable).with_name("uv")
WRITE = """
from schemas.change import Origin, Rows
from schemas.plan import Plan, SourceName
from schemas.table import Column, TableId, TableSchema, Type
table = TableSchema(TableId("s", "t"), (Column("id", Type("int32")),), ("id",))
out = []
Plan(table, table, SourceName("1", "p", "s"), (1, 2)).write(
    Rows(table, "copy", Origin(1, 2, 3), [b"7"], [0]), 0, out
)
assert out[0]["key"] == bytes([0, 0, 0, 0, 1, 14])
"""


def run(*argv: object, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in argv], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def without_compiler(folder: Path) -> dict[str, str]:
    """An environment in which no program is found by its name."""
    empty = folder / "empty"
    empty.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in {"CC", "CXX"}}
    return {**kept, "PATH": str(empty)}


def test_where_no_compiler_is_found_the_plain_executor_is_installed_and_works(
    tmp_path: Path,
) -> None:
    source = clone(tmp_path / "clone")
    alone = without_compiler(tmp_path)
    run(UV, "venv", "--quiet", "--python", sys.executable, "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    install = (UV, "pip", "install", "--quiet", "--python", python)
    pinned = ("--constraint", ROOT / "requirements.lock", "-r", source / "pyproject.toml")
    run(*install, *pinned, "cython", "setuptools", "wheel", cwd=tmp_path)
    run(*install, "--no-deps", "--no-build-isolation", source, cwd=tmp_path, env=alone)
    facts = json.loads(run(python.with_name("cdc"), "doctor", "--json", cwd=tmp_path, env=alone))
    assert facts["executor"] == "plain"
    run(python, "-c", WRITE, cwd=tmp_path, env=alone)
    required = subprocess.run(
        [python.with_name("cdc"), "doctor", "--require", "compiled"],
        cwd=tmp_path,
        env=alone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert required.returncode == 1
    assert "pip install ziglang" in required.stderr


def test_the_compiler_in_a_wheel_builds_the_extensions(tmp_path: Path) -> None:
    source = clone(tmp_path / "clone")
    alone = {**without_compiler(tmp_path), "CDC_COMPILE": "require"}
    build = (sys.executable, "setup.py", "--quiet", "build_ext", "--inplace")
    run(*build, cwd=source, env=alone)
    built = {path.name.split(".")[0] for path in source.glob("s*/_*.so")}
    assert built == {path.stem for path in source.glob("s*/_*.pyx")}
    show = "import schemas._plan; print(schemas._plan.__file__)"
    demanded = {**alone, "CDC_EXECUTOR": "compiled", "PYTHONPATH": str(source)}
    assert run(sys.executable, "-c", show, cwd=source, env=demanded).startswith(str(source))
    run(sys.executable, "-c", WRITE, cwd=source, env=demanded)


@pytest.mark.parametrize("path", sorted(ROOT.glob("s*/_*.pyx")), ids=lambda path: path.stem)
def test_no_arithmetic_of_the_extensions_is_done_with_python_numbers(
    path: Path, tmp_path: Path
) -> None:
    """A literal wider than a C int is a Python one unless it says LL; each use costs 50 ns."""
    made = tmp_path / "made.c"
    run(sys.executable, "-m", "cython", "-3", path, "-o", made, cwd=ROOT)
    code = re.sub(r"^(#define|static CYTHON_INLINE).*", "", made.read_text(), flags=re.MULTILINE)
    assert re.findall(r"__Pyx_PyNumber_\w+_int_int\(.*", code) == []
