"""Looks around every few seconds while the stream runs: new tables, the slot, the heartbeat."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cdc.errors import PreflightFailed
from cdc.postgres import publication as publications
from cdc.postgres.catalog import TableFacts, TableLocked
from cdc.postgres.opening import Opening
from cdc.postgres.publication import Carried
from cdc.postgres.relations import Relations, relation_of, shape_of
from cdc.postgres.retention import Retention
from cdc.postgres.snapshots import Snapshots
from cdc.postgres.transactions import PREFIX, Transactions
from cdc.snapshot import Job
from schemas.table import TableSchema

__all__ = ["Lookout"]

_LOOK_S = 3.0
_SHARE = 20
"""A look round may take one part in so many of the time: of 10,000 tables it takes a second."""

_STATE = """
SELECT coalesce(max(pg_current_wal_lsn() - restart_lsn), 0)::bigint,
       (pg_current_wal_lsn() - '0/0')::bigint
FROM pg_catalog.pg_replication_slots WHERE slot_name = %s
"""


class Lookout:
    """`retained` and `wal_lsn` are bytes kept by the slot and the end of the log.

    `refused` says why a selected table is not captured; the others go on.
    """

    def __init__(self, opening: Opening, relations: Relations, snapshots: Snapshots) -> None:
        self._opening = opening
        self._relations = relations
        self._snapshots = snapshots
        self._slot_due = self._tables_due = time.monotonic() + _LOOK_S
        self._beaten = time.monotonic()
        self.retained = 0
        self.wal_lsn = 0
        self.refused = ""
        self.retention = Retention(opening.settings)

    def first_tables(self) -> list[TableSchema]:
        """Take every selected table as known, to be read when the configuration says so."""
        return self._enter(self._opening.selected(), settle=False)

    def _enter(self, tables: Sequence[TableFacts], *, settle: bool) -> list[TableSchema]:
        carried = self._opening.carried([facts.table for facts in tables])
        found = self._opening.catalog.described(tables)
        return [self._take(facts, carried[facts.table], settle=settle) for facts in found]

    def _take(self, facts: TableFacts, carried: Carried, *, settle: bool) -> TableSchema:
        known = self._relations.shapes.get(facts.table)
        relation = relation_of(facts, carried.columns)
        schema = self._relations.describe(relation, facts)
        if known is None:
            self._relations.remember(facts.table, shape_of(relation, schema))
        if self._opening.settings.snapshot != "never":
            attempt = 0 if known is None else 1
            job = Job(facts.table, estimate=facts.estimate, settle=settle, attempt=attempt)
            self._snapshots.add(job)
        return schema

    def look(self, transactions: Transactions) -> None:
        """Look around when it is time. Raises `errors.Unavailable`, `errors.GapError`."""
        now = time.monotonic()
        if now >= self._slot_due:
            self._slot_due = now + _LOOK_S
            self._slot()
            self._beat(now)
        if now >= self._tables_due and transactions.between:
            self._look_for_tables()

    def _beat(self, now: float) -> None:
        beat = self._opening.settings.heartbeat
        if beat and now - self._beaten >= beat:
            self._beaten = now
            query = "SELECT pg_logical_emit_message(false, %s, '{}')"
            self._opening.catalog.rows(query, (PREFIX,))

    def _look_for_tables(self) -> None:
        began = time.monotonic()
        try:
            self._new_tables()
        except TableLocked as error:
            self.refused = str(error)
        ended = time.monotonic()
        self._tables_due = ended + max(_LOOK_S, _SHARE * (ended - began))

    def _new_tables(self) -> None:
        """Publish and read tables that match since; a refused one does not stop the others."""
        opening = self._opening
        missing = publications.unpublished(opening.catalog, opening.publication, opening.selected())
        self.refused = ""
        for facts in missing:
            try:
                opening.publications = publications.ensure(
                    opening.catalog, opening.publication, [facts]
                )
            except PreflightFailed as error:
                self.refused = f"{facts.table} is not captured: {error}"
                continue
            self._enter([facts], settle=True)

    def _slot(self) -> None:
        rows = self._opening.catalog.rows(_STATE, (self._opening.settings.slot,))
        self.retained, self.wal_lsn = int(str(rows[0][0])), int(str(rows[0][1]))
        self.retention.weigh(self._opening.catalog, self.retained)
        self._snapshots.paused = self.retention.said if self.retention.pauses else ""

    def backfill(self, name: str, where: str) -> None:
        """Read the table called `name` again, or the rows of it that `where` selects."""
        found = [facts for facts in self._opening.selected() if str(facts.table) == name]
        if not found:
            self.refused = f"backfill: {name} is no table of this source"
            return
        self._snapshots.add(Job(found[0].table, where=where, attempt=1))
