"""Snapshots of MariaDB tables: chunks read beside the stream, let out at their place in the log.

    stream  ── T1 ── T2 ──────── T3 ─┃─ T4 ──▶     a chunk's rows leave between T3 and T4,
    chunk          [read in S]       ┃             where the log ended when S was taken

Why it is right: S and the place P of the log are taken as one (`chunks.py`). The stream has not
passed P yet, for the same loop reads both, and it stops at P until the chunk has left. So every
change before P comes before the chunk, which holds its effect; every change behind P comes after
it and overwrites it. Nothing is written on the server. MariaDB takes S and P as one but for XA, so
nothing else has to be compared by key; MySQL does not, and what lies between is `overlap.py`'s.

A table without a usable key is read whole in one snapshot while the stream stands at its place; a
truncation leaves first when anything of the table left before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from cdc.errors import PreflightFailed
from cdc.mariadb.catalog import Catalog, TableFacts
from cdc.mariadb.chunks import (
    Chunk,
    ChunkReader,
    Chunks,
    ConditionRefused,
    Limits,
    Slice,
    TableBusy,
    order_of,
)
from cdc.mariadb.overlap import Overlap
from cdc.mariadb.position import Position
from cdc.mariadb.prepared import Ended
from cdc.mariadb.tables import Tables
from cdc.mariadb.transactions import Transactions
from cdc.snapshot import Job, Jobs
from cdc.source import Progress
from schemas.change import Rows
from schemas.table import TableId, TableSchema

__all__ = ["Snapshots"]

_LATER_S = 1.0


class _Flight(msgspec.Struct):
    """What has been read of a table and waits for its place; `pieces` follow of a whole table."""

    job: Job
    schema: TableSchema
    chunk: Chunk
    overlap: Overlap
    pieces: Chunks | None = None


class Snapshots:
    """See the module's text."""

    def __init__(
        self,
        catalog: Catalog,
        tables: Tables,
        reader: ChunkReader,
        limits: Limits,
        stored: Sequence[Progress],
    ) -> None:
        self.jobs = Jobs(stored)
        self.waiting = ""
        self.refused = ""
        self._catalog = catalog
        self._tables = tables
        self._reader = reader
        self._limits = limits
        self._flight: _Flight | None = None
        self._later = 0.0

    def meet(self, rows: Sequence[Rows], ended: Sequence[Ended]) -> None:
        """Note that rows of tables to be read leave before them, and store that.

        `ended` are the XA transactions that some of them are of.
        """
        if self._flight is not None:
            for xa in ended:
                self._flight.overlap.end(xa)
            self._flight.overlap.note(rows)
        for job in self.jobs if rows else ():
            if not job.attempt and any(found.schema.table == job.table for found in rows):
                self.jobs.met(job.table)
                self.jobs.moved(job)

    def doubts(self, table: TableId, transaction: str) -> bool:
        """Tell whether a chunk waits that may lack what a transaction did to `table`."""
        return self._flight is not None and self._flight.overlap.doubts(table, transaction)

    def step(self, transactions: Transactions) -> None:
        """Do the next thing, if there is one: read a chunk, or let one out at its place."""
        flight = self._flight
        if flight is not None:
            if transactions.arrived:
                self._let_out(flight, transactions)
            return
        inside = transactions.position.commit > transactions.position.complete
        if not self.jobs or inside or time.monotonic() < self._later:
            return
        job = next(iter(self.jobs))
        try:
            self._flight = self._begin(job, transactions.position)
        except TableBusy as error:
            self._wait(f"{error}; {job.table} is to be read")
        except ConditionRefused as error:
            self._refuse(job, str(error))
        if self._flight is not None:
            transactions.until = self._flight.chunk.view.place

    def _wait(self, why: str) -> None:
        self.waiting = why
        self._later = time.monotonic() + _LATER_S

    def _begin(self, job: Job, delivered: Position) -> _Flight | None:
        facts = self._catalog.find(job.table)
        if facts is None:
            self._finish(job)
            return None
        what = self._slice(facts, job.where)
        if job.where and not what.order:
            self._refuse(job, "it has no usable key, so a part of it cannot be read again")
            return None
        if not what.order and not facts.transactional:
            raise PreflightFailed(
                f"{facts.table} has no usable key, and {facts.engine} has no transactions: "
                "no snapshot of it is as of any place of the log",
                hint="ALTER TABLE … ENGINE = InnoDB, or give it a primary key",
            )
        job.estimate = 0 if job.where else facts.rows
        if not what.order:
            job.done = 0
        flight = self._fly(job, what, delivered)
        now = self._catalog.find(job.table)
        if now is None or (now.columns, now.primary_key) != (facts.columns, facts.primary_key):
            self._drop(flight)
            raise TableBusy(f"{job.table} was changed while it was read")
        self.waiting = ""
        return flight

    def _fly(self, job: Job, what: Slice, delivered: Position) -> _Flight:
        pieces = None
        if what.order:
            chunk = self._reader.read(what, job.after, self._limits, delivered)
        else:
            pieces = self._reader.all_rows(what, self._limits, delivered)
            chunk = next(pieces)
        overlap = Overlap(chunk.view, what.schema, by_key=bool(what.order))
        return _Flight(job, what.schema, chunk, overlap, pieces)

    def _slice(self, facts: TableFacts, where: str) -> Slice:
        schema = self._tables.described(facts)
        columns = tuple(found.column for found in facts.columns)
        return Slice(schema, columns, order_of(facts, schema), where)

    def _drop(self, flight: _Flight) -> None:
        if flight.pieces is not None:
            flight.pieces.close()

    def _refuse(self, job: Job, reason: str) -> None:
        self.refused = f"backfill of {job.table} refused: {reason}"
        self._finish(job)

    def _finish(self, job: Job) -> None:
        self.jobs.finish(job)
        if not self.jobs:
            self._reader.close()

    def _let_out(self, flight: _Flight, transactions: Transactions) -> None:
        """Let a chunk leave, or the next piece of a whole table."""
        job, chunk = flight.job, flight.chunk
        anew = self.jobs.get(job.table) is not job  # it was asked for again, or its shape changed
        unsettled = flight.overlap.unsettled(transactions.position.prepared)
        if unsettled:
            self._wait(
                f"{job.table} is to be read, and the server holds an XA transaction that it had "
                f"prepared before we began, or has logged as ended: {', '.join(sorted(unsettled))}"
            )
        if anew or unsettled or flight.overlap.spoiled:
            self._drop(flight)
            self._land(transactions)
            return
        if flight.pieces is None:
            self._leave(flight, chunk, transactions)
            self._land(transactions)
            return
        if not job.done and not chunk.lines and job.attempt:
            transactions.insert(flight.schema, [b"T"], "pgoutput")
        job.attempt = max(job.attempt, 1)
        flight.chunk = next(flight.pieces)
        self._leave(flight, flight.chunk, transactions)
        if flight.chunk.last:
            self._land(transactions)

    def _land(self, transactions: Transactions) -> None:
        self._flight = None
        transactions.until = None

    def _leave(self, flight: _Flight, chunk: Chunk, transactions: Transactions) -> None:
        job = flight.job
        lines = flight.overlap.kept(chunk.lines)
        if lines:
            transactions.insert(flight.schema, lines, "copy")
        job.done += len(chunk.lines)
        if flight.pieces is None:
            job.after = chunk.after
        if chunk.last:
            self._finish(job)
        else:
            self.jobs.moved(job)

    def close(self) -> None:
        """Let go of what is being read, and of the reader's connection."""
        if self._flight is not None:
            self._drop(self._flight)
        self._reader.close()
