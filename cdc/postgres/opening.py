"""How a source begins: publish, compare what is stored with what is there, or begin anew (R3)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from psycopg.pq.abc import PGconn

from cdc.connections.postgres import Login
from cdc.errors import PreflightFailed, SourceUnavailable, StateError
from cdc.postgres import publication as publications
from cdc.postgres.catalog import Catalog, TableFacts, selects
from cdc.postgres.commands import System, identify
from cdc.postgres.position import Position
from cdc.postgres.relations import key_problem
from cdc.postgres.settings import Settings
from cdc.postgres.slot import check_slot, check_system, drop_slot, free_slot, slot_facts
from cdc.source import new_incarnation
from schemas.table import TableId

__all__ = ["Opening", "begin_anew", "resume"]


class Opening:
    """The server, the tables that are selected, and the publications that carry them."""

    def __init__(self, settings: Settings, login: Login, catalog: Catalog, pgconn: PGconn) -> None:
        self.settings = settings
        self.login = login
        self.catalog = catalog
        self.pgconn = pgconn
        self.system: System = identify(pgconn, login)
        self.publication = publications.Publication(
            settings.publication, given=not settings.own_publication
        )
        self.publications: list[str] = []
        self.leftover: int | None = None

    def selected(self) -> list[TableFacts]:
        """Return the tables the globs select now; of a given publication, those it carries."""
        tables = self.catalog.tables(list(self.settings.tables))
        if not self.publication.given:
            return tables
        now = publications.published(self.catalog, self.publication)
        return [facts for facts in tables if facts.table in now]

    def wants(self, table: TableId) -> bool:
        """Tell whether rows of `table` are asked for; a given publication may carry more."""
        return not self.publication.given or selects(self.settings.tables, table)

    def carried(self, tables: Sequence[TableId]) -> dict[TableId, publications.Carried]:
        """Return what the publications send of each of `tables`."""
        found = publications.carried(self.catalog, self.publication, tables)
        return {table: found.get(table, publications.Carried()) for table in tables}

    def publish(self, *, first: bool) -> None:
        """Make the publications carry what is selected. Raises `errors.PreflightFailed`.

        A table that must not be published stops a first start. Later it is left out, and named
        by the lookout: one new table must not keep all others from going on.
        """
        self._refuse_what_cannot_work()
        tables = self.selected()
        self._refuse_wrong_keys(tables)
        if not first:
            refused = publications.missing_identity(self.catalog, tables)
            roots = {root for root, _, _ in refused}
            tables = [facts for facts in tables if facts.oid not in roots]
        self.publications = publications.ensure(self.catalog, self.publication, tables)

    def _refuse_what_cannot_work(self) -> None:
        if self.catalog.value("SHOW wal_level") != "logical":
            raise PreflightFailed(
                "wal_level is not logical: the log does not carry what changed",
                hint="ALTER SYSTEM SET wal_level = 'logical'; then restart the server",
            )
        if self.catalog.value("SELECT pg_is_in_recovery()"):
            raise PreflightFailed(
                "the server is a standby; watermarks cannot be written there",
                hint="point `url` at the primary",
            )

    def _refuse_wrong_keys(self, tables: Sequence[TableFacts]) -> None:
        for found in tables:
            key = self.settings.keys.get(str(found.table))
            facts = self.catalog.facts(found.oid) if key else None
            problem = key_problem(facts, key) if facts and key else ""
            if problem:
                raise PreflightFailed(
                    f"`key:` {problem}", hint="correct `key:`, or set REPLICA IDENTITY FULL"
                )

    def make_room(self) -> None:
        """Drop the slot that was there at the opening, and no other.

        Whoever stood still since then may have a successor by now, with a slot of the same name;
        what that slot holds would be lost. Raises `errors.SourceUnavailable` when it has moved.
        """
        name = self.settings.slot
        if self.leftover is not None:
            drop_slot(self.catalog, name, at=self.leftover)
        if slot_facts(self.catalog, name) is not None:
            raise SourceUnavailable(
                f"slot {name} was made by another worker meanwhile",
                hint="the worker begins again from what is stored now",
            )

    def drop_leftover(self) -> None:
        """Drop a slot that an earlier life made and did not come to use."""
        drop_slot(self.catalog, self.settings.slot)


def begin_anew(opening: Opening, stored: Position | None) -> Position:
    """Return the position that announces a new slot, of an incarnation never used before."""
    settings, system = opening.settings, opening.system
    incarnation = new_incarnation(stored.incarnation if stored else 0)
    return Position(incarnation, settings.slot, system.identifier, system.timeline, creating=True)


def resume(opening: Opening, stored: Position | None) -> Position:
    """Return where to go on from; a position with `creating` when there is nothing to go on from.

    Raises `errors.GapError` and `errors.StateError` when going on would lose changes.
    """
    settings, catalog = opening.settings, opening.catalog
    slot = slot_facts(catalog, settings.slot)
    opening.leftover = slot.confirmed_flush_lsn if slot is not None else None
    if stored is None and slot is not None:
        return _adopt(opening)
    if stored is None or stored.creating:
        return begin_anew(opening, stored)
    if stored.slot != settings.slot:
        raise StateError(
            f"the position is of slot {stored.slot}, the configuration names {settings.slot}",
            hint=f"say `slot: {stored.slot}`, or begin anew with `cdc position reset SOURCE`",
        )
    check_system(opening.system, stored, opening.pgconn, opening.login)
    check_slot(slot, stored, catalog.connection.info.dbname)
    free_slot(catalog, settings.slot)
    return msgspec.structs.replace(stored, timeline=opening.system.timeline)


def _adopt(opening: Opening) -> Position:
    """Begin with a slot somebody made for us; a leftover of our own name is not touched."""
    settings, system = opening.settings, opening.system
    if settings.own_slot:
        raise StateError(
            f"slot {settings.slot} exists, but no position is stored for it",
            hint=f"if nobody uses it: SELECT pg_drop_replication_slot('{settings.slot}'); "
            f"to go on with it: `slot: {settings.slot}`",
        )
    free_slot(opening.catalog, settings.slot)
    slot = slot_facts(opening.catalog, settings.slot)
    confirmed = slot.confirmed_flush_lsn if slot else 0
    position = Position(
        new_incarnation(),
        settings.slot,
        system.identifier,
        system.timeline,
        confirmed_lsn=confirmed,
    )
    check_slot(slot, position, opening.catalog.connection.info.dbname)
    return position
