"""Where fetched parts and what is made of them are kept between runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cdc.local.errors import LocalStackError

__all__ = ["cache_folder", "is_made", "locked", "made_once"]


def cache_folder() -> Path:
    """`$CDC_CACHE`, else `tailrace` in the user's cache folder; made when missing."""
    named = os.environ.get("CDC_CACHE")
    user = os.environ.get("XDG_CACHE_HOME")
    if named:
        folder = Path(named).expanduser()
    elif user:
        folder = Path(user) / "tailrace"
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches" / "tailrace"
    else:
        folder = Path.home() / ".cache" / "tailrace"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalStackError(
            f"the cache folder {folder} cannot be made: {error.strerror}",
            hint="name another one in the environment variable CDC_CACHE",
        ) from error
    return folder.resolve()


@contextlib.contextmanager
def locked(
    name: str, deadline: float = 600.0, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Keep other processes out of what `name` stands for; `waiting` is called once if we must.

    Raises:
        LocalStackError: another process held it for more than `deadline` seconds.
    """
    path = cache_folder() / f".{name}.lock"
    limit = time.monotonic() + deadline
    with path.open("a") as file:
        told = False
        while not _taken(file.fileno()):
            if not told:
                waiting()
                told = True
            if time.monotonic() > limit:
                raise LocalStackError(
                    f"another process has held {path} for more than {deadline:.0f} s",
                    hint="end the process that is fetching parts, or wait for it",
                )
            time.sleep(0.1)
        yield  # closing the file lets go, and so does the kernel when we die


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_made(name: str) -> bool:
    """Whether `made_once` has nothing left to do."""
    return (cache_folder() / name).is_dir()


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder in the cache, made by `make` the first time and whole or absent ever after."""
    folder = cache_folder() / name
    if folder.is_dir():
        return folder.resolve()
    with locked(name.replace("/", "-")):
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
        try:
            make(scratch)
            scratch.chmod(0o755)
            scratch.rename(folder)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return folder
