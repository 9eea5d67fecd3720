"""Where the files lie: a folder, or an object store that fsspec knows; a file appears whole.

In a folder a file is written beside its name, synced, and renamed; an object store shows an object
when its one PUT has ended.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from cdc.errors import CdcError, ConfigError, TargetUnavailable
from cdc.failpoints import FailpointHit, failpoint

__all__ = ["ASIDE", "WRITER", "Store"]

ASIDE = "_aside"
"""The folder of files that a rewind took out of the way, and their suffix: readers skip both."""
WRITER = "_writer"
"""The note of who wrote last."""
_UNFINISHED = ".unfinished"


class Store:
    """The files under one path. Every method may raise `errors.TargetUnavailable`."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"path: {url} cannot be reached: {error}",
                hint="Install what fsspec needs for it, as `pip install 'tailrace[s3]'`.",
            ) from error
        self._root = self._root.rstrip("/")
        self.is_local = isinstance(self._files, LocalFileSystem)
        self.url = url

    def open(self) -> None:
        """Make the folder, where there are folders; a bucket must be there."""
        if self.is_local:
            with self._named_errors():
                self._files.makedirs(self._root, exist_ok=True)

    def find(self) -> list[str]:
        """Return the paths of all files, but for those that a rewind put aside."""
        with self._named_errors():
            self._files.invalidate_cache()
            found = self._files.find(self._root)
        begin = len(self._root) + 1
        return [path[begin:] for path in found if not path[begin:].startswith(f"{ASIDE}/")]

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, None where there is none."""
        with self._named_errors():
            try:
                content: bytes = self._files.cat_file(self._place(path))
            except FileNotFoundError:
                return None
            return content

    def unfinished(self) -> list[str]:
        """Return the files of a killed worker that never got their name."""
        return [path for path in self.find() if path.endswith(_UNFINISHED)]

    def put(self, path: str, content: bytes) -> None:
        """Let a file appear, whole and durable."""
        place = self._place(path)
        with self._named_errors():
            if self.is_local:
                _written(Path(place), content)
            else:
                failpoint("sink.before_commit")
                self._files.pipe_file(place, content)

    def remove(self, path: str) -> None:
        """Remove a file that may be gone already."""
        with self._named_errors():
            if self._files.exists(self._place(path)):
                self._files.rm_file(self._place(path))

    def set_aside(self, path: str) -> None:
        """Take a file out of the way of readers, and of us."""
        there = self._place(f"{ASIDE}/{path}.{ASIDE}")
        with self._named_errors():
            if self.is_local:
                self._files.makedirs(there.rpartition("/")[0], exist_ok=True)
            self._files.mv(self._place(path), there)

    def _place(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raise what goes wrong with the store as something that may pass."""
        try:
            yield
        except (CdcError, FailpointHit):
            raise
        except Exception as error:  # each store's library has errors of its own
            raise TargetUnavailable(
                f"{self.url} did not take or give a file: {error}",
                hint="Look at the rights, the room and the network. The batch is tried again.",
            ) from error


def _written(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}{_UNFINISHED}")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    failpoint("sink.before_commit")
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
