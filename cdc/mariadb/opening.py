"""How a source begins: refuse a log it cannot read, compare the stored position with it (R3)."""

from __future__ import annotations

import time

import msgspec

from cdc.decode.gtid import Domains, Gtid
from cdc.errors import GapError, PreflightFailed
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.position import Place, Position

__all__ = ["OTHER", "WANTED", "first_position", "guarded"]

OTHER = "a MySQL server is read by `type: mysql`, MariaDB by `type: mariadb`"

WANTED = {
    "binlog_format": ("ROW", "SET GLOBAL binlog_format = 'ROW';"),
}
"""Variable → the value it must have, and what gives it."""

_AGAIN = "read everything again: `cdc position reset`, or `snapshot: when_needed`"


def _refuse_what_cannot_work(catalog: Catalog) -> None:
    version = catalog.value("SELECT VERSION()")
    if "MariaDB" not in version:
        raise PreflightFailed(
            f"the server is {version}: this source reads the log of MariaDB",
            hint=OTHER,
        )
    if catalog.variable("log_bin") != "1":
        raise PreflightFailed(
            "the server writes no binary log",
            hint="put log_bin = binlog under [mariadbd] into its options, and restart it",
        )
    for name, (wanted, repair) in WANTED.items():
        found = catalog.variable(name)
        if found != wanted:
            raise PreflightFailed(
                f"{name} is {found}: rows cannot be read from the log",
                hint=f"{repair} and end the sessions that had another one",
            )


def first_position(catalog: Catalog, lost: Position | None = None) -> Position:
    """Return the end of the log, of an incarnation never used before.

    Seconds since 1970 are greater than any number a position that was reset could have held;
    `lost` is one that cannot be gone on from. Raises `errors.PreflightFailed`.
    """
    _refuse_what_cannot_work(catalog)
    place = catalog.log_end()
    gtid = catalog.gtid_at(place)
    if gtid is None:
        raise PreflightFailed(
            f"the server knows no global transaction id for {place}",
            hint="run `cdc check`; the server's log says more",
        )
    incarnation = max(int(time.time()), lost.incarnation + 1 if lost else 0)
    return Position(incarnation, str(gtid), int(catalog.variable("server_id")), *place)


def guarded(catalog: Catalog, stored: Position) -> Position:
    """Return where to go on, behind `stored`. Raises `errors.Stop` when that cannot be.

    On the server it was read from, the place in the log must hold the same transactions: after
    RESET MASTER, or on a restored copy, their ids come again. On another server the ids alone
    count, and the server says whether it has them.
    """
    _refuse_what_cannot_work(catalog)
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
            hint=_AGAIN,
        )
    end = Domains.parse(catalog.variable("gtid_binlog_pos"))
    if not end.covers(known):
        raise GapError(
            f"the log ends at {end or 'its beginning'}, our position is {known}", hint=_AGAIN
        )
    return stored


def _moved(catalog: Catalog, stored: Position, server: int) -> Position:
    """Go on at another server of the same topology: files and offsets are its own.

    It must have logged the very transactions our position ends with, not just others of their
    numbers: a replica that was promoted too early numbers its own from where it stood.
    """
    lacking = _lacking(catalog, stored)
    if lacking:
        raise _lost(catalog, stored, server, lacking)
    if stored.commit != stored.complete:
        raise GapError(
            f"this is server {server}, and the position lies inside a transaction of server "
            f"{stored.server}",
            hint=_AGAIN,
        )
    return msgspec.structs.replace(stored, server=server, file="", offset=0)


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
            hint=f"what it lacks is lost there and still at the consumers: {_AGAIN}",
        )
    if Domains.parse(catalog.variable("gtid_slave_pos")).covers(known):
        return GapError(
            f"{told} ({end or 'empty'}) lacks {lacking}: it has replicated it, not logged it",
            hint=f"log_slave_updates = ON under [mariadbd], and a restart; then {_AGAIN}",
        )
    return GapError(
        f"{told} ({end or 'empty'}) lacks {lacking}, which was published",
        hint=f"correct `url`, or let the replica catch up; if the other server is lost, {_AGAIN}",
    )
