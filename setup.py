"""Builds the compiled executor; everything else about the package is in pyproject.toml.

Each `_*.pyx` is an extension. They are optional: where one cannot be built the plain executor
runs, and `cdc doctor` says which does. CDC_COMPILE=require makes a failure an error instead.
The compiler is CC, else Python's own, else the one in the wheel `ziglang` where that is installed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup

REQUIRED = os.environ.get("CDC_COMPILE") == "require"
DIRECTIVES = {"language_level": 3, "boundscheck": True, "wraparound": False}


def sources() -> list[Path]:
    """Every source of an extension, relative to this file: setuptools takes no other path."""
    root = Path(__file__).parent
    found = [path for package in ("schemas", "sinks") for path in root.glob(f"{package}/_*.pyx")]
    return sorted(path.relative_to(root) for path in found)


def extensions() -> list[Extension]:
    """The C goes to build/, so that nothing generated lies among the sources."""
    try:
        from Cython.Build import cythonize  # noqa: PLC0415 - a build without it is a plain one
    except ImportError:
        if REQUIRED:
            raise
        return []
    made = [
        Extension(".".join(path.with_suffix("").parts), [str(path)], optional=not REQUIRED)
        for path in sources()
    ]
    found: list[Extension] = cythonize(
        made, build_dir="build/cython", compiler_directives=DIRECTIVES, quiet=True
    )
    return found


def choose_compiler() -> bool:
    """Take the compiler from a wheel where the system has none; tell whether there is one.

    `optional` covers a compiler that fails, not one that is missing.
    """
    command = os.environ.get("CC") or str(sysconfig.get_config_var("CC") or "cc")
    if shutil.which(shlex.split(command)[0]):
        return True
    if find_spec("ziglang"):
        os.environ["CC"] = f"{shlex.quote(sys.executable)} -m ziglang cc"
        return True
    return False


setup(ext_modules=extensions() if choose_compiler() or REQUIRED else [])
