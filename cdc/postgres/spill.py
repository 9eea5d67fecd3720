"""A transaction still in progress, as the server streams it, until its commit is known (R14).

Messages wait in memory up to a bound and go on to an unnamed temporary file, so a killed worker
leaves nothing behind. What an aborted savepoint wrote is left out when they are read back;
Relations stay, since the server sends each but once for a whole transaction.

Source: PostgreSQL 18 manual, "Streaming of Large Transactions for Logical Decoding".
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

from cdc.decode.pgoutput import EPOCH_US, StreamCommit

__all__ = ["HEADER", "Budget", "Spill", "replayed"]

HEADER = b"w" + bytes(24)
"""Stands for an XLogData header, so that what is read back looks like what arrives."""

_HEAD = struct.Struct(">II")
_KEPT = b"RY"
_BEGIN = struct.Struct(">cQqI")
_COMMIT = struct.Struct(">cBQQq")
_PIECE_ROWS = 4096
_PIECE_BYTES = 4 << 20


class Budget:
    """How many bytes all waiting transactions may hold in memory, and where the rest goes."""

    def __init__(self, limit: int, folder: str | None = None) -> None:
        self.left = limit
        self.folder = folder


class Spill:
    """The messages of one streamed transaction, in order, each with its subtransaction's xid."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._memory: list[tuple[int, bytes]] = []
        self._held = 0
        self._file: IO[bytes] | None = None
        self._aborted: set[int] = set()

    def add(self, xid: int, message: bytes) -> None:
        """Keep one message, its xid already cut out."""
        if self._file is None and len(message) <= self._budget.left:
            self._memory.append((xid, message))
            self._held += len(message)
            self._budget.left -= len(message)
            return
        if self._file is None:
            folder = self._budget.folder
            self._file = tempfile.TemporaryFile(dir=folder, prefix="cdc-")  # noqa: SIM115 - close()
        self._file.write(_HEAD.pack(xid, len(message)))
        self._file.write(message)

    def abort(self, xid: int) -> None:
        """The subtransaction `xid` was rolled back."""
        self._aborted.add(xid)

    def survivors(self) -> Iterator[bytes]:
        """Yield what the transaction leaves when it commits, in order."""
        for xid, message in self._all():
            if xid not in self._aborted or message[0] in _KEPT:
                yield message

    def _all(self) -> Iterator[tuple[int, bytes]]:
        yield from self._memory
        if self._file is None:
            return
        self._file.seek(0)
        read = self._file.read
        while head := read(_HEAD.size):
            xid, size = _HEAD.unpack(head)
            yield xid, read(size)

    def close(self) -> None:
        """Let go of memory and file."""
        self._budget.left += self._held
        self._memory, self._held = [], 0
        if self._file is not None:
            self._file.close()
            self._file = None


def replayed(message: StreamCommit, spill: Spill) -> Iterator[list[bytes]]:
    """Yield a streamed transaction, in pieces, as if it had come at its commit; then close it."""
    stamp = message.commit_us - EPOCH_US
    begin = _BEGIN.pack(b"B", message.commit_lsn, stamp, message.xid)
    commit = _COMMIT.pack(b"C", 0, message.commit_lsn, message.end_lsn, stamp)
    yield [HEADER + begin]
    yield from _pieces(spill.survivors())
    spill.close()
    yield [HEADER + commit]


def _pieces(messages: Iterable[bytes]) -> Iterator[list[bytes]]:
    piece: list[bytes] = []
    size = 0
    for message in messages:
        piece.append(HEADER + message)
        size += len(message)
        if len(piece) >= _PIECE_ROWS or size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    yield piece
