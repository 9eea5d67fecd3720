"""How a source begins: refuse a log it cannot read, compare the stored position with it (R3)."""

from __future__ import annotations

from cdc.decode.gtid import Domains, Gtid
from cdc.errors import GapError, PreflightFailed
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.position import AGAIN, Place, Position
from cdc.mariadb.requirements import ROWS, refuse
from cdc.source import new_incarnation

__all__ = ["LOGGING", "first_position", "guarded"]

LOGGING = "put log_bin = binlog under [mariadbd] into the server's options, and restart it"


def first_position(catalog: Catalog, lost: Position | None = None) -> Position:
    """Return the end of the log, of an incarnation never used before.

    `lost` is a position that cannot be gone on from. Raises `errors.PreflightFailed`.
    """
    refuse(catalog, LOGGING, ROWS)
    place = catalog.log_end()
    gtid = catalog.gtid_at(place)
    if gtid is None:
        raise PreflightFailed(
            f"the server knows no global transaction id for {place}",
            hint="run `cdc check`; the server's log says more",
        )
    incarnation = new_incarnation(lost.incarnation if lost else 0)
    return Position(incarnation, str(gtid), int(catalog.variable("server_id")), *place)


def guarded(catalog: Catalog, stored: Position) -> Position:
    """Return where to go on, behind `stored`. Raises `errors.Stop` when that cannot be.

    On the server it was read from, the place in the log must hold the same transactions: after
    RESET MASTER, or on a restored copy, their ids come again. On another server the ids alone
    count, and the server says whether it has them.
    """
    refuse(catalog, LOGGING, ROWS)
    server = int(catalog.variable("server_id"))
    if server != stored.server or not stored.file:
        return _moved(catalog, stored, server)
    known = Domains.parse(stored.gtid)
    there = catalog.gtid_at(stored.place)
    kept = catalog.gtid_at(Place(stored.file, 4)) is not None
    if there != known and kept:
        raise GapError(
            f"the log at {stored.file}:{stored.offset} stands at {there or 'no place'}, "
            f"not at {known or 'its beginning'}: it was reset, or the server restored",
            hint=AGAIN,
        )
    end = Domains.parse(catalog.variable("gtid_binlog_pos"))
    if not end.covers(known):
        raise GapError(
            f"the log ends at {end or 'its beginning'}, our position is {known}", hint=AGAIN
        )
    return stored


def _moved(catalog: Catalog, stored: Position, server: int) -> Position:
    """Go on at another server of the same topology.

    It must have logged the very transactions our position ends with, not just others of their
    numbers: a replica that was promoted too early numbers its own from where it stood.
    """
    lacking = _lacking(catalog, stored)
    if lacking:
        raise _lost(catalog, stored, server, lacking)
    return stored.moved(server)


def _lacking(catalog: Catalog, stored: Position) -> str:
    """Return those of our last transactions the server never logged, "" when it has them all.

    `gtid_binlog_state` has the last one of each server in each domain.
    """
    logged = [Gtid.parse(part) for part in catalog.variable("gtid_binlog_state").split(",") if part]
    last = {(gtid.domain, gtid.server): gtid.sequence for gtid in logged}
    ours = [Gtid.parse(part) for part in stored.gtid.split(",") if part]
    missing = [g for g in ours if last.get((g.domain, g.server), 0) < g.sequence]
    return ", ".join(map(str, missing))


def _lost(catalog: Catalog, stored: Position, server: int, lacking: str) -> GapError:
    """Say what a server that lacks transactions we have published can still become."""
    told = f"this is server {server}, the position is of server {stored.server}, and its log"
    known = Domains.parse(stored.gtid)
    end = Domains.parse(catalog.variable("gtid_binlog_pos"))
    if end.covers(known):
        return GapError(
            f"{told} went on to {end} without {lacking}, which was published: it was behind when "
            "it was promoted",
            hint=f"what it lacks is lost there and still at the consumers: {AGAIN}",
        )
    if Domains.parse(catalog.variable("gtid_slave_pos")).covers(known):
        return GapError(
            f"{told} ({end or 'empty'}) lacks {lacking}: it has replicated it, not logged it",
            hint=f"log_slave_updates = ON under [mariadbd], and a restart; then {AGAIN}",
        )
    return GapError(
        f"{told} ({end or 'empty'}) lacks {lacking}, which was published",
        hint=f"correct `url`, or let the replica catch up; if the other server is lost, {AGAIN}",
    )
