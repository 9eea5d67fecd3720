"""The folder a server lives in: a given one that stays, or a temporary one that goes with it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from cdc.local.errors import LocalStackError
from cdc.local.process import ordinary_user

__all__ = ["Home"]


class Home:
    """A server's folder. `path` exists after `open`; `close` removes it if it was ours."""

    def __init__(self, given: Path | None, name: str, *, refuses_root: bool = False) -> None:
        self._given = given
        self._name = name
        self._handed = refuses_root and ordinary_user()[0] == "nobody"
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """The folder."""
        if self._path is None:
            raise LocalStackError(f"the local {self._name} was not started")
        return self._path

    @property
    def is_open(self) -> bool:
        """Whether the folder exists."""
        return self._path is not None

    @property
    def lasts(self) -> bool:
        """Whether the folder stays after `close`."""
        return self._given is not None

    @property
    def handed(self) -> bool:
        """Whether the folder belongs to `nobody`, who also needs a copy of the binaries there."""
        return self._handed

    def open(self) -> Path:
        """Make the folder; as root without user namespaces, hand it to `nobody`."""
        if self._path is not None:
            return self._path
        if self._given is None:
            path = Path(tempfile.mkdtemp(prefix=f"tailrace-{self._name}-"))
        else:
            path = self._given.resolve()
            path.mkdir(parents=True, exist_ok=True)
        if self._handed:
            self._hand_over(path)
        self._path = path
        return path

    def reachable(self, tree: Path) -> Path:
        """Return `tree`, or a copy of it where the server's user can reach it."""
        if not self._handed:
            return tree
        copy = self.path / "binaries"
        if not copy.exists():
            shutil.copytree(tree, copy)
        return copy

    def _hand_over(self, path: Path) -> None:
        for parent in path.parents:
            if not parent.stat().st_mode & 0o001:
                raise LocalStackError(
                    f"{self._name} refuses to run as root, this kernel allows no user namespaces, "
                    f"and an ordinary user cannot enter {parent}",
                    hint="run as an ordinary user, or set TMPDIR and CDC_CACHE to folders that "
                    "everybody may enter, such as below /var/tmp",
                )
        os.chown(path, ordinary_user()[1], -1)

    def close(self) -> None:
        """Remove the folder if it was temporary."""
        if self._path is not None and self._given is None:
            shutil.rmtree(self._path, ignore_errors=True)
        self._path = None
