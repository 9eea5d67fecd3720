"""Where a target that is a file lies, and what `cdc check` finds of its folder and its disk."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import disk_usage

from cdc.connector import Finding

__all__ = ["located", "missing_folder", "room", "writable"]

_ROOM = 4
"""A cut lies in the log, in the database and in the indexes: times `buffer_bytes` to be free."""


def located(path: Path) -> Path:
    """Return the path as the worker reads it: one that is relative begins in its folder."""
    return path.expanduser().absolute()


def missing_folder(path: Path) -> Finding | None:
    """Return what is found where the folder of `path` is missing."""
    if path.parent.is_dir():
        return None
    return Finding("fail", "folder", f"{path.parent} is missing", f"mkdir -p {path.parent}")


def writable(path: Path, beside: str) -> Finding:
    """Look at the rights; `beside` says what else is written into the folder."""
    for place, right in ((path.parent, os.W_OK | os.X_OK), (path, os.W_OK)):
        if place.exists() and not os.access(place, right):
            repair = f"chmod u+w {place}, as its owner; {beside}"
            return Finding("fail", "folder", f"this user may not write {place}", repair)
    return Finding("ok", "folder", f"{path.parent} can be written")


def room(path: Path, buffer_bytes: int) -> Finding:
    """Look at the free space of the disk."""
    free, wanted = disk_usage(path.parent).free, _ROOM * buffer_bytes
    text = f"{free // 1_000_000:,} MB are free in {path.parent}"
    if free >= wanted:
        return Finding("ok", "disk", text)
    repair = f"Free at least {wanted // 1_000_000:,} MB, or lower `buffer_bytes`."
    return Finding("fail", "disk", text, repair)
