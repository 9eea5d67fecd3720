"""What a source leaves in its database: the slot, which keeps the log, and the publications."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from cdc.connections.postgres import Login, connect
from cdc.errors import StateError
from cdc.postgres.catalog import Catalog
from cdc.postgres.publication import Publication, existing
from cdc.postgres.settings import Settings
from cdc.postgres.slot import drop_slot, slot_facts

__all__ = ["leavings"]


def leavings(settings: Settings, *, dry_run: bool) -> Iterator[str]:
    """Yield each thing of ours, removing it unless `dry_run`; what was given to us stays.

    Raises `errors.StateError` when a worker still reads from the slot.
    """
    login = Login(settings.url, settings.application)
    with connect(login) as connection:
        catalog = Catalog(connection, login)
        yield from _slot(catalog, settings, dry_run=dry_run)
        yield from _publications(catalog, settings, dry_run=dry_run)


def _slot(catalog: Catalog, settings: Settings, *, dry_run: bool) -> Iterator[str]:
    slot = slot_facts(catalog, settings.slot)
    if slot is None or not settings.own_slot:
        return
    if slot.active_pid is not None:
        raise StateError(
            f"slot {slot.name} is read by pid {slot.active_pid}",
            hint="stop the pipeline first",
        )
    if not dry_run:
        drop_slot(catalog, slot.name)
    yield f"replication slot {slot.name}, which keeps {slot.retained:,} bytes of log"


def _publications(catalog: Catalog, settings: Settings, *, dry_run: bool) -> Iterator[str]:
    if not settings.own_publication:
        return
    for name in existing(catalog, Publication(settings.publication)):
        if not dry_run:
            drop = sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(name))
            catalog.execute(drop.as_string(None))
        yield f"publication {name}"
