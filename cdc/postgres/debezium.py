"""Where a Debezium connector stands, as a position of ours: its slot is taken over without loss.

    T1 written whole | T2: row row row  row row  commit      the log, in commit order
                     E      written  X

Debezium's offset names E (`lsn_commit`), the end of the last transaction it read whole, and X
(`lsn_proc`), the log record of the last thing it met, by `messageType` a row. We go on at E, which
the slot still has: the server is told no more than that. Of the first transaction behind E the
rows up to X are counted in the slot, without consuming it, and passed over. Rows of one COPY share
a log record (R1); where X is theirs nobody knows how many of them were written, so all come again.

Debezium stores its offset after it wrote: what it wrote last before a crash may lie behind it and
comes again as well, as it would from Debezium itself. Nothing is left out.

Sources: Debezium 3.6, `PostgresOffsetContext` and `PostgresStreamingChangeEventSource`;
PostgreSQL 18 manual, "Logical Replication Message Formats"; a live 3.6 (tests/interchange).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import orjson

from cdc.connections.postgres import Login, connect, connect_replication
from cdc.decode.lsn import format_lsn
from cdc.errors import ConfigError, GapError, PreflightFailed, StateError
from cdc.postgres.catalog import SETTINGS, Catalog
from cdc.postgres.commands import identify
from cdc.postgres.position import Position
from cdc.postgres.settings import Settings
from cdc.postgres.slot import SlotFacts, slot_facts
from cdc.source import new_incarnation

__all__ = ["Offset", "read_offset", "taken_over"]

_AT_FIRST = 1_000
_PEEK = """
SELECT (lsn - '0/0')::bigint, substring(data FOR 9)
FROM pg_catalog.pg_logical_slot_peek_binary_changes(%s, NULL, %s,
    'proto_version', '1', 'publication_names', %s, 'messages', 'true')
"""
_PLAIN = re.compile(rb'\{[^{}]*"lsn"[^{}]*\}')
_ROWS = frozenset(b"IUDM")
_ROW_TYPES = frozenset(("INSERT", "UPDATE", "DELETE", "TRUNCATE", "MESSAGE"))
_BEGIN, _COMMIT, _TRUNCATE = b"BCT"


class Offset(msgspec.Struct, frozen=True):
    """What Debezium keeps of a Postgres connector, as far as it says where that stands."""

    lsn: int
    lsn_proc: int = 0
    lsn_commit: int = 0
    message_type: str = msgspec.field(name="messageType", default="")
    snapshot: str | bool = ""
    snapshot_completed: bool = False
    last_snapshot_record: bool = False
    incremental_snapshot_collections: str = ""

    def row(self, start: int) -> int:
        """Return the place of the last row that was written, 0 where it lies before `start`.

        The end of a commit and the first row behind it may be one place (R1): the type of the
        message tells them apart, and without one nothing is passed over there.
        """
        if self.message_type in _ROW_TYPES:
            return self.lsn_proc
        return 0 if self.message_type or self.lsn_proc <= start else self.lsn_proc


class _Place(NamedTuple):
    """A transaction by its commit LSN, and how many of its items were written."""

    commit: int
    ordinal: int


def read_offset(stored: bytes) -> Offset:
    """Return the offset in what Connect's REST interface, its topic or its offset file holds.

    Raises `errors.ConfigError`, and `errors.StateError` for one in the middle of a snapshot.
    """
    found = [value for value in _objects(stored) if isinstance(value, dict) and "lsn" in value]
    if len(found) != 1:
        raise ConfigError(
            f"{len(found)} offsets of a Debezium PostgreSQL connector in it, not one",
            hint="curl -s http://CONNECT:8083/connectors/NAME/offsets > offsets.json",
        )
    try:
        offset = msgspec.convert(found[0], Offset)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"the offset is none of a Debezium PostgreSQL connector: {error}"
        ) from None
    done = offset.snapshot_completed or offset.last_snapshot_record
    if (offset.snapshot and not done) or offset.incremental_snapshot_collections:
        raise StateError(
            "Debezium is in the middle of a snapshot: what it has not read yet would be missing",
            hint="Let it finish the snapshot, or drop it and begin anew with `snapshot: initial`.",
        )
    return offset


def _objects(stored: bytes) -> list[Any]:
    try:
        value = orjson.loads(stored)
    except ValueError:
        return [orjson.loads(text) for text in _PLAIN.findall(stored)]
    if isinstance(value, dict) and isinstance(value.get("offsets"), list):
        return [one.get("offset") for one in value["offsets"] if isinstance(one, dict)]
    return [value]


def taken_over(settings: Settings, offset: Offset) -> Position:
    """Return the position behind what Debezium wrote, on the slot it read.

    Raises `errors.ConfigError`, `errors.StateError`, `errors.GapError`, `errors.Unavailable`.
    """
    if settings.own_slot or settings.own_publication:
        raise ConfigError(
            "`slot:` and `publication:` must name those of Debezium",
            hint="Its `slot.name` (debezium by default) and `publication.name` (dbz_publication).",
        )
    login = Login(settings.url, settings.application)
    with connect(login, SETTINGS) as connection:
        catalog = Catalog(connection, login)
        slot = _slot(catalog, settings.slot)
        start = _start(slot, offset)
        place = _written(catalog, settings, start, offset.row(start))
    pgconn = connect_replication(login, {})
    try:
        system = identify(pgconn, login)
    finally:
        pgconn.finish()
    return Position(
        new_incarnation(),
        settings.slot,
        system.identifier,
        system.timeline,
        place.commit,
        place.ordinal,
        confirmed_lsn=start,
    )


def _slot(catalog: Catalog, name: str) -> SlotFacts:
    slot = slot_facts(catalog, name)
    if slot is None:
        raise PreflightFailed(
            f"there is no slot {name}",
            hint="Stop the connector before you delete it, and leave `slot.drop.on.stop` at false.",
        )
    if slot.active_pid is not None:
        raise StateError(
            f"slot {name} is being read by pid {slot.active_pid}",
            hint="Stop Debezium first: curl -X PUT http://CONNECT:8083/connectors/NAME/stop",
        )
    if slot.plugin != "pgoutput":
        raise StateError(
            f"slot {name} is of plugin {slot.plugin}, which Tailrace does not read",
            hint="Set `plugin.name=pgoutput` in Debezium, or begin anew with a snapshot.",
        )
    return slot


def _start(slot: SlotFacts, offset: Offset) -> int:
    """Return the LSN to go on at: no transaction that Debezium did not write commits before it."""
    kept = slot.confirmed_flush_lsn
    if kept > max(offset.lsn, offset.lsn_proc, offset.lsn_commit):
        raise GapError(
            f"slot {slot.name} was read to {format_lsn(kept)}, the offset says"
            f" {format_lsn(max(offset.lsn, offset.lsn_commit))}",
            hint="Read the offset again now that Debezium is stopped; when it stays behind, "
            "somebody else reads the slot, and only a new snapshot is safe.",
        )
    return max(kept, offset.lsn_commit)


def _written(catalog: Catalog, settings: Settings, start: int, last: int) -> _Place:
    """Return how much of the first transaction behind `start` was written, to `last`, 0 for none.

    The slot is read without consuming it, a growing piece each time.
    """
    many = _AT_FIRST
    while last:
        rows = catalog.rows(_PEEK, (settings.slot, many, settings.publication))
        messages = [(int(lsn), bytes(data)) for lsn, data in rows]  # type: ignore[call-overload]
        place = _counted(messages, start, last)
        if place is not None:
            return place
        if len(messages) < many:
            break
        many *= 10
    return _Place(0, 0)


def _counted(messages: Iterable[tuple[int, bytes]], start: int, last: int) -> _Place | None:
    """Return the place of `last` in the first transaction that commits at `start` or later."""
    commit, found = -1, list[int]()
    for lsn, data in messages:
        kind = data[0]
        if kind == _BEGIN:
            commit, found = int.from_bytes(data[1:9], "big"), []
        elif kind == _TRUNCATE:
            found += [lsn] * int.from_bytes(data[1:5], "big")
        elif kind in _ROWS:
            found.append(lsn)
        elif kind == _COMMIT and commit >= start:
            return _among(commit, found, last)
    return None


def _among(commit: int, found: list[int], last: int) -> _Place:
    same = found.count(last)
    if not same:
        return _Place(0, 0)
    before = found.index(last)
    return _Place(commit, before + 1 if same == 1 else before)
