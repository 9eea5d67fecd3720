"""The slot: what the server keeps for us, whether it still reaches back, and who holds it (R3).

At each start what is stored is compared with what the server says. PostgreSQL silently forwards
a start that lies below the slot's `confirmed_flush_lsn` (measured), so nobody else would notice.
"""

from __future__ import annotations

import time

import msgspec
from psycopg.pq.abc import PGconn

from cdc.connections.postgres import Login
from cdc.decode.lsn import format_lsn
from cdc.errors import GapError, SourceUnavailable, StateError
from cdc.postgres.catalog import Catalog
from cdc.postgres.commands import Fork, System, timeline_forks
from cdc.postgres.position import Position

__all__ = ["SlotFacts", "check_slot", "check_system", "drop_slot", "free_slot", "slot_facts"]

_SLOT = """
SELECT slot_name::text, plugin::text, database::text, active_pid, coalesce(wal_status, ''),
       coalesce(confirmed_flush_lsn - '0/0', 0)::bigint,
       coalesce(restart_lsn - '0/0', 0)::bigint,
       coalesce(pg_current_wal_lsn() - restart_lsn, 0)::bigint
FROM pg_catalog.pg_replication_slots WHERE slot_name = %s
"""
_DROP = """
SELECT pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
WHERE slot_name = %s
  AND (%s::bigint IS NULL OR coalesce(confirmed_flush_lsn - '0/0', 0)::bigint = %s)
"""
_FREE_S = 15.0
_RESET = "snapshot again: `cdc position reset {name}`, then start the worker"


class SlotFacts(msgspec.Struct, frozen=True):
    """One replication slot now; LSNs as integers, `retained` in bytes."""

    name: str
    plugin: str | None
    database: str | None
    active_pid: int | None
    wal_status: str
    confirmed_flush_lsn: int
    restart_lsn: int
    retained: int


def slot_facts(catalog: Catalog, name: str) -> SlotFacts | None:
    """Return the slot called `name`, None when there is none."""
    rows = catalog.rows(_SLOT, (name,))
    return SlotFacts(*rows[0]) if rows else None  # type: ignore[arg-type]


def free_slot(catalog: Catalog, name: str, *, at: int | None = None) -> None:
    """End whoever still reads from the slot: we own it, Kafka's fence says so (§3).

    With `at` only while the slot is confirmed to that LSN: one that has moved is another's.
    Raises `errors.SourceUnavailable` when it is still held after 15 s.
    """
    deadline = time.monotonic() + _FREE_S
    while (slot := slot_facts(catalog, name)) is not None and slot.active_pid is not None:
        if at is not None and slot.confirmed_flush_lsn != at:
            return
        if time.monotonic() > deadline:
            raise SourceUnavailable(
                f"slot {name} is held by pid {slot.active_pid}",
                hint=f"SELECT pg_terminate_backend({slot.active_pid});",
            )
        catalog.rows("SELECT pg_terminate_backend(%s, 1000)", (slot.active_pid,))


def drop_slot(catalog: Catalog, name: str, *, at: int | None = None) -> bool:
    """Drop the slot if it exists, ending its reader; tell whether it did.

    With `at` only one that is confirmed to that LSN: a process may stand still between any two
    statements, and a successor may have made a slot of the same name meanwhile.
    """
    free_slot(catalog, name, at=at)
    return bool(catalog.rows(_DROP, (name, at, at)))


def check_slot(slot: SlotFacts | None, stored: Position, database: str) -> None:
    """Raise `errors.GapError` or `errors.StateError` when `slot` has lost what we need."""
    name = stored.slot
    hint = _RESET.format(name="SOURCE")
    if slot is None:
        raise GapError(
            f"slot {name} does not exist any more; it was read to"
            f" {format_lsn(stored.confirmed_lsn)}, what came since may be gone",
            hint=hint,
        )
    if slot.plugin != "pgoutput" or slot.database != database:
        raise StateError(
            f"slot {name} is of plugin {slot.plugin} in database {slot.database}",
            hint="name another one with `slot:`",
        )
    if slot.wal_status == "lost":
        raise GapError(
            f"the log slot {name} needs was removed (wal_status lost)",
            hint=f"SELECT pg_drop_replication_slot('{name}'); then {hint};"
            " raise max_slot_wal_keep_size so that it does not happen again",
        )
    if slot.confirmed_flush_lsn > stored.confirmed_lsn:
        raise GapError(
            f"slot {name} was read to {format_lsn(slot.confirmed_flush_lsn)} by somebody else,"
            f" Kafka has it to {format_lsn(stored.confirmed_lsn)}",
            hint=f"find the other reader, then {hint}",
        )


def check_system(system: System, stored: Position, pgconn: PGconn, login: Login) -> None:
    """Raise when the server is another one, or its history left ours before `stored`."""
    if system.identifier != stored.system:
        raise StateError(
            f"this is server {system.identifier}, the position is of {stored.system}",
            hint="correct `url`; or, if the database was restored elsewhere, snapshot again: "
            "`cdc position reset SOURCE`",
        )
    if system.timeline == stored.timeline:
        return
    forks = timeline_forks(pgconn, system.timeline, login)
    left = next((fork for fork in forks if fork.timeline == stored.timeline), None)
    if left is None or left.lsn < stored.confirmed_lsn:
        raise GapError(
            f"the server is on timeline {system.timeline}, which {_left(left)}; "
            f"Kafka has timeline {stored.timeline} to {format_lsn(stored.confirmed_lsn)}",
            hint="what was captured behind the fork never happened here: " + _RESET,
        )


def _left(fork: Fork | None) -> str:
    return f"forked at {format_lsn(fork.lsn)}" if fork else "does not descend from ours"
