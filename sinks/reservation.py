"""Who has a sink for itself: a lock on a file beside the database.

Appliers share the lock, who reserves the sink has it alone; the system takes it back from a
process that dies. The file is made by the first reservation and stays: whoever removed it could
leave two holders of two files.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cdc.connector import Context
from cdc.errors import TargetUnavailable

__all__ = ["Reservation"]


class Reservation:
    """The lock of one sink, as one worker of it sees it."""

    def __init__(self, path: Path, context: Context) -> None:
        self._path = path.with_name(f"{path.name}-{context.pipeline}-{context.name}.lock")
        self._held: IO[bytes] | None = None

    def take(self) -> None:
        """Have the sink alone. Raises `errors.TargetUnavailable` when another worker has it."""
        file = self._path.open("ab")
        try:
            _lock(file, fcntl.LOCK_EX)
        except TargetUnavailable:
            file.close()
            raise
        self._held = file

    def release(self) -> None:
        """Let the others apply again."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    @contextmanager
    def respected(self) -> Iterator[None]:
        """Keep the sink from being reserved meanwhile; raises as `take`."""
        if self._held is not None or not self._path.exists():
            yield
            return
        with self._path.open("rb") as file:
            _lock(file, fcntl.LOCK_SH)
            yield


def _lock(file: IO[bytes], how: int) -> None:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TargetUnavailable(
            "another worker applies the partitions of all", hint="It goes on by itself."
        ) from error
