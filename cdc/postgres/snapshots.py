"""Snapshots of Postgres tables: chunks read beside the stream, let out at their marks.

`step` is called between two pieces of the stream; it does one thing at a time: wait until a
table may be read, read a chunk and write its mark, or hand out a piece of a table without a key.
As `Events` it hears what the stream delivers. Why it is right is said in `cdc/snapshot.py`.

A table without a usable key cannot be read in chunks. It is read whole in one snapshot S while
the stream stands still; a truncation leaves first when anything of the table left before: rows of
an attempt cut short, or changes, which S holds as well. Of what the stream delivers later,
transactions that S saw are left out.
"""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Sequence

import msgspec

from cdc.keys import keys_of, line_key
from cdc.postgres.catalog import TableFacts, TableLocked
from cdc.postgres.chunks import Chunk, ChunkReader, ConditionRefused, Limits, Slice, Snapshot
from cdc.postgres.keys import refill
from cdc.postgres.opening import Opening
from cdc.postgres.position import Position
from cdc.postgres.relations import Relations, Turn, relation_of
from cdc.postgres.transactions import PREFIX
from cdc.postgres.whole import WholeTables
from cdc.snapshot import Job, Jobs, Touched, mark_of
from cdc.source import Progress
from schemas.change import Origin, Row, Rows
from schemas.forms import read_copy
from schemas.table import TableId, TableSchema

__all__ = ["Snapshots"]

_AGAIN_S = 0.02
_LOCKED_S = 1.0
_BLINK_S = 0.001
_VISIBLE_S = 3.0

_WRITERS = """
SELECT DISTINCT l.virtualtransaction FROM pg_catalog.pg_locks l
WHERE l.granted AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'AccessExclusiveLock')
AND l.pid IS DISTINCT FROM pg_backend_pid() AND l.relation IN (
    WITH RECURSIVE part AS (SELECT %s::oid AS oid UNION ALL
        SELECT i.inhrelid FROM part JOIN pg_catalog.pg_inherits i ON i.inhparent = part.oid)
    SELECT oid FROM part)
"""


_HALF_COMMITTED = """
SELECT backend_xid::text FROM pg_catalog.pg_stat_activity
WHERE backend_xid IS NOT NULL AND wait_event = 'SyncRep'
"""


class _Flight(msgspec.Struct):
    """A chunk that has been read and waits for its mark."""

    job: Job
    mark: str
    chunk: Chunk
    what: Slice
    oid: int
    spoiled: bool = False


class Snapshots:
    """See the module's text."""

    def __init__(
        self,
        opening: Opening,
        relations: Relations,
        reader: ChunkReader,
        limits: Limits,
        stored: Sequence[Progress],
    ) -> None:
        self.jobs = Jobs(stored)
        self.waiting = ""
        self.refused = ""
        self.paused = ""
        self._opening = opening
        self._catalog = opening.catalog
        self._wanted: dict[TableId, bool] = {}
        self._relations = relations
        self._reader = reader
        self._limits = limits
        self._touched = Touched()
        self._flight: _Flight | None = None
        self._later = 0.0
        self._visible: Snapshot | None = None
        self._single: dict[TableSchema, Slice] = {}
        self._writers: dict[TableId, set[object]] = {}
        self._whole = WholeTables(reader, limits, self.jobs, stored)
        self._touched.expect(self._half_committed())
        for job in self.jobs:
            self._touched.watch(job.table)

    def _half_committed(self) -> list[int]:
        """Return what an earlier life may have delivered and nobody sees yet.

        Between its log record and its visibility a commit can wait for a standby alone; without
        one that takes microseconds, and to begin again takes longer.
        """
        rows = self._catalog.rows(_HALF_COMMITTED)
        return [int(str(row[0])) for row in rows]

    @property
    def holds(self) -> bool:
        """Tell whether the stream has to stand still."""
        return self._whole.running

    def add(self, job: Job) -> None:
        """Read a table from its beginning."""
        self._touched.watch(job.table)
        self._writers.pop(job.table, None)
        self.jobs.add(job)

    def step(self, position: Position) -> Sequence[Rows]:
        """Do the next thing, if there is one; return rows that need no mark.

        Raises `errors.SourceUnavailable`, `errors.PreflightFailed`.
        """
        self._whole.passed(position.confirmed_lsn)
        if self._whole.running:
            return self._whole.piece()
        if self._flight is not None:
            return ()
        if self._touched.crowded():  # never with a chunk in flight: it saw less than is seen now
            self._touched.forget(self._reader.snapshot().sees)
        if not self.jobs or time.monotonic() < self._later:
            return ()
        if self.paused:
            self.waiting = f"snapshots wait: {self.paused}"
            return ()
        job = next(iter(self.jobs))
        try:
            return self._begin(job, position)
        except TableLocked as error:
            self.waiting = f"{error}; {job.table} is to be read"
            self._later = time.monotonic() + _LOCKED_S
        except ConditionRefused as error:
            self._refuse(job, str(error))
        return ()

    def _begin(self, job: Job, position: Position) -> Sequence[Rows]:
        facts = self._catalog.find(job.table)
        if facts is None:
            self._finish(job)
            return ()
        what = self._slice(facts, job.where)
        if job.where and not what.key:
            self._refuse(job, "has no key, so a part of it cannot be read again")
            return ()
        if not self._may_read(job, facts, whole=not what.key):
            self._later = time.monotonic() + _AGAIN_S
            return ()
        self.waiting = ""
        job.estimate = 0 if job.where else facts.estimate
        if what.key:
            self._read(job, what, facts.oid)
            return ()
        self._touched.unwatch(job.table)
        return self._whole.begin(job, what, position)

    def _refuse(self, job: Job, reason: str) -> None:
        self.refused = f"backfill of {job.table} refused: {reason}"
        self._finish(job)

    def _slice(self, facts: TableFacts, where: str) -> Slice:
        """Return what to read of a table as it is now; without `key` when none can be followed."""
        carried = self._opening.carried([facts.table])[facts.table]
        schema = self._relations.describe(relation_of(facts, carried.columns), facts)
        order: tuple[str, ...] = ()
        for candidate in (facts.primary_key, facts.identity_index):
            if candidate and set(candidate) == set(schema.key):
                order = candidate
        found = _keyed(schema, facts, order)
        return msgspec.structs.replace(found, where=where, row_filter=carried.condition)

    def _may_read(self, job: Job, facts: TableFacts, *, whole: bool) -> bool:
        """Tell whether all that was delivered unremembered, or is never delivered, is visible."""
        now = functools.cache(self._reader.snapshot)  # asked for when there is something to look up

        def visible(xid: int) -> bool:
            return now().sees(xid)

        settled = self._touched.settled(job.table, visible)
        if whole:
            settled = self._touched.unseen(visible) == 0
        if not settled:
            self.waiting = f"waiting for delivered transactions to be visible, to read {job.table}"
            return False
        return not job.settle or self._no_writers(job, facts)

    def _no_writers(self, job: Job, facts: TableFacts) -> bool:
        """Tell whether those have ended that wrote to the table before it was published.

        What they wrote then is decoded as unpublished, and a chunk would not see it either.
        """
        now = {row[0] for row in self._catalog.rows(_WRITERS, (facts.oid,))}
        left = self._writers.setdefault(job.table, now) & now
        self._writers[job.table] = left
        if left:
            names = ", ".join(map(str, sorted(map(str, left))))
            self.waiting = f"waiting for transactions {names} to end, to read {job.table}"
            return False
        job.settle = False
        return True

    def _read(self, job: Job, what: Slice, oid: int) -> None:
        chunk = self._reader.read(what, job.after, self._limits)
        mark = secrets.token_hex(8)
        self._flight = _Flight(job, mark, chunk, what, oid)
        content = msgspec.json.encode(
            {"source": self._opening.settings.owner, "chunk": mark}
        ).decode()
        query = "SELECT pg_logical_emit_message(true, %s, %s)"
        self._catalog.rows(query, (PREFIX, content))
        if not chunk.last and chunk.after is not None:
            self._reader.ahead(what, chunk.after, self._limits)

    def _finish(self, job: Job) -> None:
        self.jobs.finish(job)
        self._touched.unwatch(job.table)
        if not self.jobs:
            self._reader.close()

    def turned(self, turn: Turn) -> None:
        """Read a table that is new, was recreated or has grown; spoil a chunk of the old shape.

        A table nobody announced was renamed, or added to a publication by its owner.
        """
        if turn.changed:
            self._spoil(turn.table)
        reads = self._opening.settings.snapshot != "never" and self._wants(turn.table)
        if reads and turn.unknown:
            self.add(Job(turn.table, settle=True))
        elif reads and turn.grown:
            self.add(Job(turn.table, attempt=1))

    def passing(self, rows: Rows, xid: int) -> Sequence[Rows]:
        """Remember what a run touches; leave out what a whole table's snapshot held.

        While a table is read, nobody who follows may have the row of an update yet, and a chunk
        read before the update keeps it back: so every update carries its whole row (R6).
        """
        table = rows.schema.table
        if self._whole.held(table, xid) or not self._wants(table):
            return ()
        self.jobs.met(table)
        if self._touched.watches(table):
            if rows.items[0] == b"T":
                self._touched.touch_all(table, xid)
                self._spoil(table)
            elif rows.schema.key:
                self._touched.touch(table, keys_of(rows), xid)
                return self._refill(rows, xid, every=True)
        return (rows,)

    def _wants(self, table: TableId) -> bool:
        found = self._wanted.get(table)
        if found is None:
            found = self._wanted[table] = not table.schema or self._opening.wants(table)
        return found

    def _spoil(self, table: TableId) -> None:
        self._reader.give_up()
        if self._flight is not None and self._flight.job.table == table:
            self._flight.spoiled = True

    def rekeyed(self, rows: Rows, xid: int) -> Sequence[Rows]:
        """Fill in unchanged values of rows whose key changed."""
        return self._refill(rows, xid, every=False)

    def _refill(self, rows: Rows, xid: int, *, every: bool) -> Sequence[Rows]:
        def reselect(schema: TableSchema, key: Sequence[str]) -> Row | None:
            if self._visible is None or not self._visible.sees(xid):
                self._visible = self._see(xid)
            return self._reselect(schema, key)

        return refill(rows, reselect, every=every)

    def _see(self, xid: int) -> Snapshot:
        """Wait until `xid`, already delivered, is visible: a row read before may be older."""
        deadline = time.monotonic() + _VISIBLE_S
        while not (snapshot := self._reader.snapshot()).sees(xid):
            if time.monotonic() > deadline:
                raise TableLocked(
                    f"transaction {xid} has committed and is not visible after {_VISIBLE_S:.0f} s",
                    hint="is a standby in synchronous_standby_names away?",
                )
            time.sleep(_BLINK_S)
        return snapshot

    def _reselect(self, schema: TableSchema, key: Sequence[str]) -> Row | None:
        """Return the row now; waits for a lock at most 3 s, then the session begins again."""
        what = self._single.get(schema)
        if what is None:
            facts = self._catalog.find(schema.table)
            if facts is None or {c.name for c in schema.columns} - {c.name for c in facts.columns}:
                return None
            what = self._single[schema] = _keyed(schema, facts, schema.key)
        lines = self._reader.rows_of(what, key)
        return read_copy(lines[0]).after if lines else None

    def marked(self, content: bytes, commit: Origin) -> Sequence[Rows]:
        """Let out the chunk whose mark this is."""
        mark, flight = mark_of(content), self._flight
        if flight is None or mark is None or mark["chunk"] != flight.mark:
            return ()
        self._flight = None
        job, visible = flight.job, flight.chunk.snapshot.sees
        stale = self._touched.stale(job.table, visible)
        self._touched.forget(visible)
        if stale is None or flight.spoiled or self.jobs.get(job.table) is not job:
            return ()
        lines = flight.chunk.lines
        if stale:
            indexes = flight.what.schema.key_indexes()
            lines = [line for line in lines if line_key(line, indexes) not in stale]
        self._advance(job, flight.chunk)
        return self._leaving(flight, lines, commit)

    def _advance(self, job: Job, chunk: Chunk) -> None:
        job.after = chunk.after
        job.done += len(chunk.lines)
        if chunk.last:
            self._finish(job)
        else:
            self.jobs.moved(job)

    def _leaving(self, flight: _Flight, lines: list[bytes], commit: Origin) -> list[Rows]:
        """Return a chunk's rows; before those of a table made anew, its truncation (R11)."""
        schema = flight.what.schema
        origin = Origin(commit.incarnation, commit.commit, commit.commit_us, snapshot=True)
        rows: list[Rows] = []
        shape = self._relations.shapes.get(schema.table)
        if shape is not None and shape.oid != flight.oid:
            rows.append(Rows(schema, "pgoutput", origin, [b"T"], (0,)))
            self._relations.remember(schema.table, msgspec.structs.replace(shape, oid=flight.oid))
        if lines:
            rows.append(Rows(schema, "copy", origin, lines, range(1, len(lines) + 1)))
        return rows

    def committed(self, xid: int) -> None:
        """A transaction was delivered."""
        self._touched.delivered(xid)

    def close(self) -> None:
        """Let go of the reader's connection."""
        self._whole.close()
        self._reader.close()


def _keyed(schema: TableSchema, facts: TableFacts, key: tuple[str, ...]) -> Slice:
    spelled = {column.name: column.spelled for column in facts.columns}
    types = tuple(spelled[name] for name in key)
    return Slice(schema, key, types, only=facts.kind == "r")
