"""The repository as the structure tests see it: what git would put into a clone."""

from __future__ import annotations

import ast
import functools
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "cdc", "sinks")


@functools.cache
def files() -> list[Path]:
    """Every file of a clone, and new ones that git does not ignore; relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return sorted(path for line in listed.splitlines() if (ROOT / (path := Path(line))).is_file())


def clone(folder: Path) -> Path:
    """Copy what a clone holds into `folder`, so that nothing lying about gets in."""
    for path in files():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target)
    return folder


def python_files(*tops: str) -> list[Path]:
    """Python sources below the given top folders (all of them when none is given)."""
    return [
        path for path in files() if path.suffix == ".py" and (not tops or path.parts[0] in tops)
    ]


def read(path: Path) -> str:
    """A file's text; what is no text (an image) is empty."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@functools.cache
def parsed(path: Path) -> ast.Module:
    """A Python source as a syntax tree."""
    return ast.parse(read(path), filename=str(path))


def module_name(path: Path) -> str:
    """`cdc/local/kafka.py` → `cdc.local.kafka`; a package by its own name."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
