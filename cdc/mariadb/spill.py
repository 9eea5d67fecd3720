"""A transaction whose end is not known yet, in memory up to a bound and then in a file (R14)."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from typing import IO

__all__ = ["Spill"]

_HEAD = struct.Struct(">I")


class Spill:
    """Events in order. More than `limit` bytes of them go on to an unnamed file in `folder`.

    `in_memory` counts the bytes that have not. `checksum`: each event ends with one.
    """

    def __init__(self, limit: int, folder: str | None = None) -> None:
        self._left = limit
        self._folder = folder
        self._memory: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.in_memory = 0
        self.checksum = False

    def add(self, event: bytes) -> None:
        """Keep one event."""
        if self._file is None and len(event) <= self._left:
            self._memory.append(event)
            self._left -= len(event)
            self.in_memory += len(event)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, prefix="cdc-")  # noqa: SIM115
        self._file.write(_HEAD.pack(len(event)))
        self._file.write(event)

    def events(self) -> Iterator[bytes]:
        """Yield what was kept, in order."""
        yield from self._memory
        if self._file is None:
            return
        self._file.seek(0)
        while head := self._file.read(_HEAD.size):
            yield self._file.read(_HEAD.unpack(head)[0])

    def close(self) -> None:
        """Let go of memory and file."""
        self._memory = []
        if self._file is not None:
            self._file.close()
            self._file = None
