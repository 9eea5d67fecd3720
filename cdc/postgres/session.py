"""One life of a Postgres source: from `open` to `close`, as `cdc.source.Source` promises.

    announcing ─▶ announced ─▶ creating ─▶ streaming
    position      confirmed    slot        pull ─▶ Transactions ─▶ Batch
    {creating}                             between the pulls: a snapshot step, a look around

Connections: one walsender, one for the catalogue, one for chunks while there are any.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec
from psycopg.pq.abc import PGconn

from cdc.connections.postgres import Login, connect, connect_replication, whole_guard
from cdc.errors import GapError, SourceUnavailable, StateError, Stop
from cdc.postgres.catalog import SETTINGS as CATALOG_SETTINGS
from cdc.postgres.catalog import Catalog
from cdc.postgres.chunks import ChunkReader, Limits
from cdc.postgres.creation import SlotCreation
from cdc.postgres.lookout import Lookout
from cdc.postgres.opening import Opening, begin_anew, resume
from cdc.postgres.position import Position
from cdc.postgres.relations import Relations
from cdc.postgres.retention import Retention
from cdc.postgres.settings import Settings
from cdc.postgres.slot import slot_facts
from cdc.postgres.snapshots import Snapshots
from cdc.postgres.spill import Budget
from cdc.postgres.stream import Stream
from cdc.postgres.transactions import Transactions
from cdc.source import Batch, Progress, SourceStatus
from cdc.source import Position as AnyPosition
from schemas.change import Origin, Rows
from schemas.table import TableSchema

__all__ = ["Session"]

_PULL_ROWS = 5_000
_PULL_BYTES = 4 << 20
_QUIET_S = 2.0
_FAR_BYTES = 16 << 20
_WAIT_S = 0.25
_STREAM_SETTINGS = {"wal_sender_timeout": "10s"}


class State(Enum):
    """Where a session stands."""

    CLOSED = "closed"
    ANNOUNCING = "announcing"
    ANNOUNCED = "announced"
    CREATING = "creating the slot"
    STREAMING = "streaming"
    DONE = "done"


class Session:
    """A `cdc.source.Source` over one Postgres database."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._login = Login(settings.url, settings.application)
        self._state = State.CLOSED
        self._closing: list[Any] = []
        self._forgotten: Sequence[Progress] = ()
        self._asked: list[tuple[str, str]] = []
        self._returned_at = 0.0

    def open(self, after: dict[str, Any] | None, progress: Sequence[Progress]) -> None:
        """See `cdc.source.Source`. Raises `errors.Stop` or `errors.Unavailable`."""
        with whole_guard(self._login):
            self._open(after, progress)

    def _open(self, after: dict[str, Any] | None, progress: Sequence[Progress]) -> None:
        stored = Position.decode(after) if after is not None else None
        login, settings = self._login, self._settings
        connection = connect(login, CATALOG_SETTINGS)
        self._closing.append(connection)
        self._catalog = Catalog(connection, login)
        self._pgconn = self._connect_stream()
        self._opening = Opening(settings, login, self._catalog, self._pgconn)
        self._opening.publish(first=stored is None)
        try:
            position = resume(self._opening, stored)
        except GapError:
            if self._finished(stored, progress):
                self._state = State.DONE
                return
            if settings.snapshot != "when_needed":
                raise
            position = begin_anew(self._opening, stored)
            self._forgotten, progress = progress, ()
        self._position = self._returned = position
        self._assemble(progress)
        if position.creating:
            self._state = State.ANNOUNCING
        else:
            if stored is None:
                self._lookout.first_tables()
            self._begin_stream()

    def _finished(self, stored: Position | None, progress: Sequence[Progress]) -> bool:
        """Tell whether the snapshot that was all we were to read is read."""
        begun = stored is not None and not stored.creating
        left = any(item.key.startswith("chunk/") for item in progress)
        return self._settings.snapshot == "only" and begun and not left

    def _connect_stream(self) -> PGconn:
        pgconn = connect_replication(self._login, _STREAM_SETTINGS)
        self._walsender = _Walsender(pgconn)
        self._closing.append(self._walsender)
        return pgconn

    def _assemble(self, progress: Sequence[Progress]) -> None:
        settings = self._settings
        self._stream = Stream(self._pgconn, self._login)
        self._relations = Relations(self._catalog, settings.keys, progress)
        reader = ChunkReader(self._login, self._stream.feedback)
        limits = Limits(settings.chunk_rows, settings.chunk_bytes)
        self._snapshots = Snapshots(self._opening, self._relations, reader, limits, progress)
        self._lookout = Lookout(self._opening, self._relations, self._snapshots)
        self._closing.append(self._snapshots)

    def _begin_stream(self) -> None:
        position, settings = self._position, self._settings
        budget = Budget(settings.memory, settings.spill_folder)
        self._transactions = Transactions(position, self._relations, self._snapshots, budget)
        self._closing.append(self._transactions)
        self._stream.start(position.slot, self._opening.publications, position.confirmed_lsn)
        self._state = State.STREAMING
        while self._asked:
            self._lookout.backfill(*self._asked.pop(0))

    def read(self, timeout: float) -> Batch | None:
        """See `cdc.source.Source`."""
        try:
            with whole_guard(self._login):
                if self._state is State.STREAMING:
                    return self._read(timeout)
                return self._start(timeout)
        except GapError as error:
            if self._settings.snapshot != "when_needed":
                raise
            raise SourceUnavailable(f"{error}; the source begins anew") from error

    def _start(self, timeout: float) -> Batch | None:
        if self._state is State.ANNOUNCING:
            self._state = State.ANNOUNCED
            return Batch([], self._position, self._position.boundary)
        if self._state is State.CREATING:
            point = self._creation.poll(timeout)
            if point is not None:
                self._created(point)
                return self._batch(force=True)
            return None
        time.sleep(min(timeout, _WAIT_S))
        return None

    def _created(self, point: int) -> None:
        self._position = msgspec.structs.replace(
            self._position, creating=False, confirmed_lsn=point
        )
        tables = self._lookout.first_tables()
        self._begin_stream()
        if self._forgotten:
            self._transactions.rows.extend(emptied(self._position, tables))

    def _read(self, timeout: float) -> Batch | None:
        deadline = time.monotonic() + timeout
        while True:
            arrived = self._work()
            batch = self._batch(force=False)
            left = deadline - time.monotonic()
            if batch is not None or left <= 0:
                return batch
            if not arrived:
                self._stream.wait(min(left, self._patience()))

    def _work(self) -> bool:
        """Move on by one bounded piece; tell whether there may be more at once."""
        self._lookout.look(self._transactions)
        transactions = self._transactions
        if transactions.advance():
            return True
        if transactions.between:
            transactions.rows.extend(self._snapshots.step(transactions.position))
        if self._snapshots.holds:
            self._stream.feedback()
            return True
        messages = self._stream.pull(_PULL_ROWS, _PULL_BYTES)
        if messages:
            transactions.feed(messages)
        return bool(messages)

    def _patience(self) -> float:
        """Seconds to wait for the log before something else may be due."""
        return 0.02 if self._snapshots.jobs else _WAIT_S

    def _batch(self, *, force: bool) -> Batch | None:
        """Return what has gathered; the position alone every 2 s, or every 16 MiB of log."""
        rows = self._as_composed(self._transactions.take())
        position = self._transactions.position
        progress = self._take_progress()
        moved = position != self._returned
        far = position.confirmed_lsn - self._returned.confirmed_lsn >= _FAR_BYTES
        quiet = far or time.monotonic() - self._returned_at >= _QUIET_S
        if not (rows or progress or force or (moved and quiet)):
            return None
        self._returned, self._returned_at = position, time.monotonic()
        return Batch(rows, position, position.boundary, progress)

    def _as_composed(self, rows: list[Rows]) -> list[Rows]:
        """Return rows with the parts that their composites have now; see `relations`."""
        if not self._relations.composed:
            return rows
        schemas = {run.schema for run in rows}
        now: dict[TableSchema, TableSchema] = {}
        for before, after, turn in self._relations.altered(schemas):
            now[before] = after
            self._snapshots.turned(turn)
        if not now:
            return rows
        replace = msgspec.structs.replace
        return [replace(run, schema=now.get(run.schema, run.schema)) for run in rows]

    def _take_progress(self) -> list[Progress]:
        """Return the newest value of each key that changed."""
        lists = (self._relations.progress, self._snapshots.jobs.progress)
        merged = {item.key: Progress(item.key, None) for item in self._forgotten}
        merged.update({item.key: item for found in lists for item in found})
        self._forgotten = ()
        for found in lists:
            found.clear()
        return list(merged.values())

    def confirm(self, upto: AnyPosition) -> None:
        """See `cdc.source.Source`."""
        if not isinstance(upto, Position):
            raise StateError(f"{upto!r} is no position of a Postgres source")
        if self._state is State.STREAMING:
            self._stream.confirm(upto.confirmed_lsn)
            if self._settings.snapshot == "only" and not self._snapshots.jobs:
                self._finish(upto)
        elif self._state is State.ANNOUNCED and upto.creating:
            self._opening.make_room()
            self._creation = SlotCreation(self._pgconn, self._catalog, self._login)
            self._creation.start(upto.slot, failover=self._settings.failover)
            self._state = State.CREATING

    def _finish(self, upto: Position) -> None:
        """The snapshot is in Kafka and nothing more is wanted: let go of the slot."""
        if upto == self._returned and not self._transactions.rows:
            self._closing.remove(self._walsender)
            self._walsender.close()
            self._opening.drop_leftover()
            self._state = State.DONE

    def command(self, name: str, arguments: dict[str, Any]) -> None:
        """Carry out "backfill" with `table` and, optionally, `where`."""
        if name != "backfill":
            raise Stop(f"a Postgres source knows no command {name}")
        asked = (str(arguments["table"]), str(arguments.get("where") or ""))
        if self._state is State.STREAMING:
            self._lookout.backfill(*asked)
        else:
            self._asked.append(asked)

    def status(self) -> SourceStatus:
        """See `cdc.source.Source`."""
        if self._state is not State.STREAMING:
            waiting = self._creation.waiting if self._state is State.CREATING else ""
            return SourceStatus(state=self._state.value, waiting=waiting)
        jobs, lookout = self._snapshots.jobs, self._lookout
        waits = (self._snapshots.waiting, self._snapshots.refused, lookout.refused)
        return SourceStatus(
            state="snapshot" if jobs else "streaming",
            waiting=next(filter(None, (*waits, lookout.retention.said)), ""),
            lag_bytes=max(lookout.wal_lsn - self._transactions.position.confirmed_lsn, 0),
            retained_bytes=lookout.retained,
            snapshots=jobs.counts(),
        )

    def watch(self) -> SourceStatus:
        """See `cdc.source.Watchful`."""
        settings = self._settings
        retention, retained = Retention(settings), None
        if not settings.max_retained_wal:
            return SourceStatus()
        try:
            with whole_guard(self._login), connect(self._login, CATALOG_SETTINGS) as connection:
                catalog = Catalog(connection, self._login)
                slot = slot_facts(catalog, settings.slot)
                if slot is not None and slot.active_pid is None:
                    retained = slot.retained
                    retention.weigh(catalog, retained)
        except SourceUnavailable:
            return SourceStatus()
        except GapError:
            if settings.snapshot != "when_needed":
                raise
        return SourceStatus(waiting=retention.said, retained_bytes=retained)

    def close(self) -> None:
        """See `cdc.source.Source`."""
        closing, self._closing = self._closing, []
        for item in reversed(closing):
            item.close()
        self._state = State.CLOSED


def emptied(position: Position, tables: Sequence[TableSchema]) -> list[Rows]:
    """Return a truncation of each table, in front of everything a new incarnation delivers.

    After a gap nobody knows what was deleted meanwhile; what is read again must not be mixed
    with what was there before.
    """
    origin = Origin(position.incarnation, 0, time.time_ns() // 1000, snapshot=True)
    return [Rows(schema, "pgoutput", origin, [b"T"], (0,)) for schema in tables]


class _Walsender:
    """Gives a libpq connection the `close` of everything else."""

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn

    def close(self) -> None:
        self._pgconn.finish()
