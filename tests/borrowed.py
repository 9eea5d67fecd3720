"""The tests of one file, for another that runs them on another server."""

from __future__ import annotations

import sys
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any


def borrowed(file: Path, *, more: Collection[str] = ()) -> dict[str, Any]:
    """Return the tests of `file` and `more` of it, by name; pytest rewrites its asserts.

    It is imported by its bare name, so no two files of one name can be borrowed.
    """
    sys.path.insert(0, str(file.parent))
    try:
        module = import_module(file.stem)
    finally:
        sys.path.remove(str(file.parent))
    assert module.__file__ == str(file)
    return {
        name: value
        for name, value in vars(module).items()
        if name.startswith(("test_", "Test")) or name in more
    }
