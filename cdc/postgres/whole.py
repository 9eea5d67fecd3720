"""Tables without a usable key, read whole in one snapshot while the stream stands still.

Stamps: such rows take the commit of the last transaction delivered before them, which every
consumer has, and ordinals from `attempt` << 40 on, where no row of a transaction ever comes; so
they lie at or before the boundary, grow with each attempt, and are shared with nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from cdc.postgres.chunks import Chunk, ChunkReader, Limits, Slice, Snapshot
from cdc.postgres.position import Position
from cdc.snapshot import Job, Jobs
from cdc.source import Progress
from schemas.change import Origin, Rows
from schemas.table import TableId

__all__ = ["WholeTables"]

_ATTEMPT_BITS = 40


class _Seen(msgspec.Struct, frozen=True):
    """A table was read in `snapshot`; every transaction it sees commits before `lsn`."""

    table: TableId
    snapshot: Snapshot
    lsn: int

    def progress(self) -> Progress:
        value: dict[str, Any] = msgspec.to_builtins(self)
        return Progress(f"seen/{self.table}", {"version": 1, **value})


class WholeTables:
    """Reads one table at a time; remembers what the snapshots of finished ones saw."""

    def __init__(
        self, reader: ChunkReader, limits: Limits, jobs: Jobs, stored: Sequence[Progress]
    ) -> None:
        self._reader = reader
        self._limits = limits
        self._jobs = jobs
        self._pieces: Iterator[Sequence[Rows]] | None = None
        self._seen: dict[TableId, _Seen] = {}
        for item in stored:
            if item.key.startswith("seen/") and item.value is not None:
                seen = msgspec.convert(item.value, _Seen)
                self._seen[seen.table] = seen

    @property
    def running(self) -> bool:
        """Tell whether a table is being read, so that the stream has to wait."""
        return self._pieces is not None

    def begin(self, job: Job, what: Slice, position: Position) -> Sequence[Rows]:
        """Start to read a table; return its first piece."""
        job.attempt += 1
        job.done = 0
        self._pieces = self._read(job, what, position)
        try:
            return self.piece()
        except BaseException:
            job.attempt -= 1
            self.close()
            raise

    def piece(self) -> Sequence[Rows]:
        """Return the next piece; after the last one nothing is running."""
        if self._pieces is None:
            return ()
        piece = next(self._pieces, None)
        if piece is None:
            self._pieces = None
            return ()
        return piece

    def _read(self, job: Job, what: Slice, position: Position) -> Iterator[Sequence[Rows]]:
        micros = time.time_ns() // 1000
        origin = Origin(position.incarnation, position.commit, micros, snapshot=True)
        ordinal = job.attempt << _ATTEMPT_BITS
        rows: list[Rows] = []
        if job.attempt > 1:
            rows.append(Rows(what.schema, "pgoutput", origin, [b"T"], (ordinal,)))
        for chunk in self._reader.all_rows(what, self._limits):
            count = len(chunk.lines)
            ordinals = range(ordinal + 1, ordinal + 1 + count)
            ordinal += count
            if count:
                rows.append(Rows(what.schema, "copy", origin, chunk.lines, ordinals))
            self._advance(job, chunk)
            yield rows
            rows = []

    def _advance(self, job: Job, chunk: Chunk) -> None:
        job.done += len(chunk.lines)
        if not chunk.last:
            self._jobs.moved(job)
            return
        seen = _Seen(job.table, chunk.snapshot, self._reader.wal_position())
        self._seen[job.table] = seen
        self._jobs.finish(job)
        self._jobs.progress.append(seen.progress())

    def held(self, table: TableId, xid: int) -> bool:
        """Tell whether the table's snapshot held what `xid` did to it."""
        seen = self._seen.get(table)
        return seen is not None and seen.snapshot.sees(xid)

    def passed(self, lsn: int) -> None:
        """The stream has delivered everything before `lsn`: forget the snapshots behind it."""
        for table, seen in list(self._seen.items()):
            if lsn >= seen.lsn:
                del self._seen[table]
                self._jobs.progress.append(Progress(f"seen/{table}", None))

    def close(self) -> None:
        """Give up what is being read."""
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            pieces.close()  # type: ignore[attr-defined]
