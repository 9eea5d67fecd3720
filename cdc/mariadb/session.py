"""One life of a MariaDB or MySQL source: from `open` to `close`, as `cdc.source.Source` promises.

    position ─▶ Dump ─▶ Transactions ─▶ Batch
    guarded     events   whole ones      between the pulls: a snapshot step

Connections: one for the log, one for the catalogue, one for chunks while there are any.

Under `snapshot: when_needed` a gap, at the start or while it reads, is a new beginning: another
incarnation from the end of the log on, every table emptied and read again.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from cdc.errors import GapError, SourceUnavailable, StateError, Stop
from cdc.mariadb.catalog import Catalog, Selection
from cdc.mariadb.chunks import ChunkReader, Limits
from cdc.mariadb.connection import Login, connect, whole_guard
from cdc.mariadb.definitions import Definitions
from cdc.mariadb.dump import Dump
from cdc.mariadb.history import History
from cdc.mariadb.lookback import Lookback
from cdc.mariadb.position import Position
from cdc.mariadb.prepared import Prepared
from cdc.mariadb.settings import Settings
from cdc.mariadb.snapshots import Snapshots
from cdc.mariadb.spill import Spill
from cdc.mariadb.statements import Statement
from cdc.mariadb.tables import Tables
from cdc.mariadb.transactions import Transactions
from cdc.source import Batch, Progress, SourceStatus
from cdc.source import Position as AnyPosition

__all__ = ["Session"]

_PULL_EVENTS = 2_000
_PULL_BYTES = 4 << 20
_QUIET_S = 2.0
_WAIT_S = 0.25
_LOOK_S = 2.0
_SILENT = 6
"""Heartbeats that may be missing before the connection counts as lost."""


class Session:
    """A `cdc.source.Source` over one server that speaks `settings.dialect`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dialect = settings.dialect
        self._login = Login(settings.url, settings.application, system=self._dialect.name)
        self._closing: list[Any] = []
        self._returned_at = 0.0
        self._looked_at = 0.0
        self._behind: int | None = None
        self._forgotten: list[Progress] = []
        self._refused = ""
        self._done = False

    def open(self, after: dict[str, Any] | None, progress: Sequence[Progress]) -> None:
        """See `cdc.source.Source`. Raises `errors.Stop` or `errors.Unavailable`."""
        stored = self._dialect.position.decode(after) if after is not None else None
        with whole_guard(self._login):
            self._open(stored, progress)

    def _open(self, stored: Position | None, progress: Sequence[Progress]) -> None:
        if self._finished(stored, progress):
            self._done = True
            return
        self._connect()
        try:
            position = self._begin(stored)
        except GapError:
            if self._settings.snapshot != "when_needed":
                raise
            self._open_anew(stored, progress)
            return
        self._returned = position if stored else None
        self._assemble(position, progress)
        self._history.begin(self._transactions)

    def _finished(self, stored: Position | None, progress: Sequence[Progress]) -> bool:
        """Tell whether the snapshot that was all we were to read is read."""
        left = any(item.key.startswith("chunk/") for item in progress)
        return self._settings.snapshot == "only" and stored is not None and not left

    def _connect(self) -> None:
        connection = connect(self._login)
        self._closing.append(connection)
        self._catalog = Catalog(connection, self._login, self._dialect)

    def _open_anew(self, stored: Position | None, progress: Sequence[Progress]) -> None:
        """Begin at the end of the log, as if every table had been made anew meanwhile."""
        self._returned = None
        self._assemble(self._dialect.first(self._catalog, stored), progress, anew=True)
        self._forgotten = [Progress(item.key, None) for item in progress]
        self._history.forsake()
        self._history.begin(self._transactions)

    def _assemble(
        self, position: Position, progress: Sequence[Progress], *, anew: bool = False
    ) -> None:
        settings = self._settings
        selection = Selection(self._catalog, settings.tables)
        self._definitions = Definitions(self._catalog, () if anew else progress)
        tables = Tables(self._catalog, selection, settings.keys, self._definitions)
        self._snapshots = self._reading(tables, () if anew else progress)
        self._history = History(
            self._catalog, tables, selection, self._definitions, self._snapshots, progress
        )
        self._history.reads = settings.snapshot != "never"
        self._dump = Dump(self._login, self._dialect)
        self._closing.append(self._dump)
        self._dump.start(position.gtid, settings.server_id, settings.heartbeat)
        prepared = Prepared(position.prepared, settings.memory, Lookback(self._catalog, self._past))
        checksum = self._dump.checksum
        self._transactions = Transactions(
            position, tables, self._spill, self._altered, checksum=checksum, prepared=prepared
        )
        self._closing.append(self._transactions)
        self._definitions.reached = self._transactions.reached
        self._heard = time.monotonic()

    def _past(self, gtid: str) -> Generator[bytes, None, None]:
        """Yield what follows a position, on a connection of its own."""
        with closing(Dump(self._login, self._dialect)) as dump:
            yield from dump.look(gtid)

    def _begin(self, stored: Position | None) -> Position:
        if stored is None:
            return self._dialect.first(self._catalog)
        return self._dialect.guarded(self._catalog, stored)

    def _reading(self, tables: Tables, progress: Sequence[Progress]) -> Snapshots:
        reader = ChunkReader(self._login, self._dialect)
        limits = Limits(self._settings.chunk_rows, self._settings.chunk_bytes)
        snapshots = Snapshots(self._catalog, tables, reader, limits, progress)
        tables.doubts = snapshots.doubts
        self._closing.append(snapshots)
        return snapshots

    def _spill(self) -> Spill:
        return Spill(self._settings.memory, self._settings.spill_folder)

    def _altered(self, statement: Statement) -> None:
        self._history.altered(statement, self._transactions)

    def read(self, timeout: float) -> Batch | None:
        """See `cdc.source.Source`."""
        if self._done:
            time.sleep(min(timeout, _WAIT_S))
            return None
        with whole_guard(self._login):
            try:
                return self._read(timeout)
            except GapError:
                if self._settings.snapshot != "when_needed":
                    raise
                self._begin_anew()
                return self._batch()

    def _begin_anew(self) -> None:
        """What follows is not in the log any more: let go of everything and begin again."""
        stored = self._transactions.position
        jobs = (job.progress() for job in self._snapshots.jobs)
        progress = [*self._history.known(), *self._definitions.known(), *jobs]
        self.close()
        self._connect()
        self._open_anew(stored, progress)

    def _read(self, timeout: float) -> Batch | None:
        deadline = time.monotonic() + timeout
        while True:
            busy = self._work()
            batch = self._batch()
            self._look()
            left = deadline - time.monotonic()
            if batch is not None or left <= 0:
                return batch
            if not busy:
                self._dump.wait(min(left, _WAIT_S))

    def _work(self) -> bool:
        """Move on by one bounded piece; tell whether there may be more at once."""
        transactions, snapshots = self._transactions, self._snapshots
        busy = transactions.advance()
        snapshots.meet(transactions.rows, transactions.ended)
        if busy:
            return True
        snapshots.step(transactions)
        if transactions.rows or transactions.arrived:
            return True
        events = self._dump.pull(_PULL_EVENTS, _PULL_BYTES)
        now = time.monotonic()
        if events:
            self._heard = now
            self._transactions.feed(events)
        elif now - self._heard > _SILENT * self._settings.heartbeat:
            raise SourceUnavailable("the server sends nothing any more, not even a heartbeat")
        return bool(events)

    def _batch(self) -> Batch | None:
        """Return what has gathered; the position alone every 2 s, or every heartbeat."""
        rows = self._transactions.take()
        position = self._transactions.position
        progress = self._take_progress()
        waited = time.monotonic() - self._returned_at
        quiet = waited >= min(_QUIET_S, self._settings.heartbeat)
        first = self._returned is None
        if not (rows or progress or first or (quiet and position != self._returned)):
            return None
        self._returned, self._returned_at = position, time.monotonic()
        return Batch(rows, position, position.boundary, progress)

    def _look(self) -> None:
        """Ask now and then how much of the log is left to read."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_S:
            self._behind = self._catalog.bytes_behind(self._transactions.position.place)
            self._looked_at = now

    def _take_progress(self) -> list[Progress]:
        """Return the newest value of each key that changed."""
        lists = (
            self._history.progress,
            self._definitions.progress,
            self._snapshots.jobs.progress,
        )
        merged = {item.key: item for item in self._forgotten}
        merged.update({item.key: item for found in lists for item in found})
        self._forgotten = []
        for found in lists:
            found.clear()
        return list(merged.values())

    def confirm(self, upto: AnyPosition) -> None:
        """See `cdc.source.Source`: the server keeps its log by its own rules."""
        if not isinstance(upto, self._dialect.position):
            raise StateError(f"{upto!r} is no position of a {self._dialect.name} source")
        if self._settings.snapshot != "only" or self._done or self._snapshots.jobs:
            return
        if upto == self._returned and not self._transactions.rows:
            self.close()
            self._done = True

    def command(self, name: str, arguments: dict[str, Any]) -> None:
        """Carry out "backfill" with `table` and, optionally, `where`."""
        if name != "backfill":
            raise Stop(f"a {self._dialect.name} source knows no command {name}")
        if self._done:
            self._refused = "backfill: under `snapshot: only` tables are read once"
            return
        with whole_guard(self._login):
            self._history.backfill(str(arguments["table"]), str(arguments.get("where") or ""))

    def status(self) -> SourceStatus:
        """See `cdc.source.Source`."""
        if self._done:
            return SourceStatus(state="done", waiting=self._refused)
        snapshots = self._snapshots
        return SourceStatus(
            state="snapshot" if snapshots.jobs else "streaming",
            waiting=next(filter(None, (snapshots.waiting, snapshots.refused)), ""),
            lag_bytes=self._behind,
            snapshots=snapshots.jobs.counts(),
        )

    def close(self) -> None:
        """See `cdc.source.Source`."""
        closing, self._closing = self._closing, []
        for item in reversed(closing):
            item.close()
