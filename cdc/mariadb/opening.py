"""How a source begins: refuse a log it cannot read, compare the stored position with it (R3)."""

from __future__ import annotations

from cdc.decode.gtid import Domains
from cdc.errors import GapError, PreflightFailed
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.position import Place, Position

__all__ = ["WANTED", "first_position", "guarded"]

WANTED = {
    "binlog_format": ("ROW", "SET GLOBAL binlog_format = 'ROW';"),
    "binlog_row_metadata": ("FULL", "SET GLOBAL binlog_row_metadata = 'FULL';"),
}
"""Variable → the value it must have, and what gives it."""

_AGAIN = "read everything again: `cdc position reset`"


def _refuse_what_cannot_work(catalog: Catalog) -> None:
    version = catalog.value("SELECT VERSION()")
    if "MariaDB" not in version:
        raise PreflightFailed(
            f"the server is {version}: this version reads the log of MariaDB, not of MySQL",
            hint="point `url` at a MariaDB server",
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


def first_position(catalog: Catalog) -> Position:
    """Return the end of the log. Raises `errors.PreflightFailed`."""
    _refuse_what_cannot_work(catalog)
    place = catalog.log_end()
    gtid = catalog.gtid_at(place)
    if gtid is None:
        raise PreflightFailed(
            f"the server knows no global transaction id for {place}",
            hint="run `cdc check`; the server's log says more",
        )
    return Position(1, str(gtid), int(catalog.variable("server_id")), *place)


def guarded(catalog: Catalog, stored: Position) -> Position:
    """Return where to go on, behind `stored`. Raises `errors.Stop` when that cannot be.

    On the server it was read from, the place in the log must hold the same transactions: after
    RESET MASTER, or on a restored copy, their ids come again. On another server the ids alone
    count, and the server says whether it has them.
    """
    _refuse_what_cannot_work(catalog)
    server = int(catalog.variable("server_id"))
    if server != stored.server:
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
    """Go on at another server of the same topology: files and offsets are its own."""
    end = Domains.parse(catalog.variable("gtid_binlog_pos"))
    if not end.covers(Domains.parse(stored.gtid)):
        raise GapError(
            f"this is server {server}, the position is of server {stored.server}, and its log "
            f"({end or 'empty'}) does not have all of {stored.gtid}",
            hint="correct `url`, let the replica catch up (with log_slave_updates), or "
            "`cdc position reset`",
        )
    if stored.commit != stored.complete:
        raise GapError(
            f"this is server {server}, and the position lies inside a transaction of server "
            f"{stored.server}",
            hint=_AGAIN,
        )
    return Position(
        stored.incarnation,
        stored.gtid,
        server,
        "",
        0,
        stored.commit,
        stored.ordinal,
        stored.complete,
    )
