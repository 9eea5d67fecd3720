"""A copy of the shipped packages with one bug in it.

A patch is a unified diff with as little context as will do. Line numbers do not count: what a hunk
takes out, with its context, must stand in the file exactly once. Anything else is an error, so that
a mutant never silently becomes the program it was made from.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PATCHES", "ROOT", "PatchError", "copy_of_code", "patched"]

PATCHES = Path(__file__).with_name("patches")
ROOT = Path(__file__).parents[3]
PACKAGES = ("cdc", "sinks", "schemas")


class PatchError(Exception):
    """A patch does not fit the code any more."""


def hunks(patch: str) -> Iterator[tuple[str, str, str]]:
    """Yield (file, what stands there, what shall stand there) of a unified diff."""
    file, old, new = "", "", ""
    for line in [*patch.splitlines(keepends=True), "@@"]:
        if line.startswith(("--- ", "@@")) and (old or new):
            yield file, old, new
            old, new = "", ""
        if line.startswith("+++ "):
            file = line[4:].split()[0].partition("/")[2]
        elif line.startswith(("--- ", "@@")):
            continue
        else:
            old += line[1:] if line[0] in " -" else ""
            new += line[1:] if line[0] in " +" else ""


def patched(texts: dict[str, str], patch: str, name: str) -> dict[str, str]:
    """Return the files a patch touches, as it leaves them; `texts` are those files as they are."""
    out: dict[str, str] = {}
    for file, old, new in hunks(patch):
        text = out.get(file, texts[file])
        if text.count(old) != 1:
            raise PatchError(f"{name}: {file} holds {text.count(old)} times, not once:\n{old}")
        out[file] = text.replace(old, new)
    if not out:
        raise PatchError(f"{name}: the patch is empty")
    return out


def copy_of_code(folder: Path, name: str = "", code: Path = ROOT) -> Path:
    """Copy the three packages of `code` into `folder` and apply the patch called `name`.

    Raises `PatchError` when it does not fit. What was compiled stays behind: bugs are put into
    Python.
    """
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("*.so", "*.c")
        shutil.copytree(code / package, folder / package, ignore=ignored)
    if name:
        patch = (PATCHES / f"{name}.patch").read_text(encoding="utf-8")
        files = {file for file, _, _ in hunks(patch)}
        texts = {file: (folder / file).read_text(encoding="utf-8") for file in files}
        for file, text in patched(texts, patch, name).items():
            compile(text, file, "exec")
            place = folder / file
            place.write_text(text, encoding="utf-8")
            for stale in place.parent.glob(f"__pycache__/{place.stem}.*.pyc"):
                stale.unlink()
    return folder
