"""How a MySQL source begins: refuse a log it cannot read, compare the stored position (R3)."""

from __future__ import annotations

import re

from cdc.decode.gtid import Intervals, MysqlGtid
from cdc.errors import GapError, Stop
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.position import AGAIN, Place
from cdc.mariadb.position import Position as AnyPosition
from cdc.mariadb.requirements import LATER, ROWS, Wanted, refuse
from cdc.mysql.position import Position
from cdc.source import new_incarnation

__all__ = ["LOGGING", "WANTED", "executed", "first_position", "guarded", "log_file"]

_STEPS = (
    "SET GLOBAL enforce_gtid_consistency = ON; then gtid_mode = OFF_PERMISSIVE, ON_PERMISSIVE, ON"
)
LOGGING = "take skip-log-bin out of the server's options, and restart it"
WANTED: Wanted = {
    **ROWS,
    "binlog_row_metadata": ("FULL", f"SET GLOBAL binlog_row_metadata = 'FULL'; {LATER}"),
    "gtid_mode": ("ON", _STEPS),
}

_NEXT = re.compile(r"GTID_NEXT= '([^']+)'")
_CLOSING = ("Rotate", "Stop")
_TRIES = 20


def executed(catalog: Catalog) -> Intervals:
    """Return the transactions that have committed."""
    return Intervals.parse(catalog.variable("gtid_executed"))


def first_position(catalog: Catalog, lost: AnyPosition | None = None) -> Position:
    """Return the end of the log, of an incarnation never used before, nor by `lost`.

    Its place is told apart from the set, so it is kept only where the log stood still meanwhile.
    Raises `errors.PreflightFailed`.
    """
    refuse(catalog, LOGGING, WANTED)
    place = Place("", 0)
    gtids = executed(catalog)
    for _ in range(_TRIES):
        before, gtids, after = catalog.log_end(), executed(catalog), catalog.log_end()
        if before == after:
            place = after
            break
    incarnation = new_incarnation(lost.incarnation if lost else 0)
    return Position(incarnation, str(gtids), catalog.variable("server_uuid"), *place)


def guarded(catalog: Catalog, stored: AnyPosition) -> AnyPosition:
    """Return where to go on, behind `stored`. Raises `errors.Stop` when that cannot be.

    The server must have all that we have, and still have in its log all that we have not. On the
    server it was read from, the place in the log must also be between the same transactions: after
    RESET BINARY LOGS AND GTIDS, or on a restored copy, their ids come again.
    """
    refuse(catalog, LOGGING, WANTED)
    known, now = Intervals.parse(stored.gtid), executed(catalog)
    server = catalog.variable("server_uuid")
    same = server == str(stored.server)
    if not now.covers(known):
        raise GapError(
            f"server {server} has executed {now or 'nothing'}, our position is {known}"
            + ("" if same else f" of server {stored.server}"),
            hint=AGAIN if same else f"correct `url`, let the replica catch up, or {AGAIN}",
        )
    purged = Intervals.parse(catalog.variable("gtid_purged"))
    if not known.covers(purged):
        raise GapError(
            f"the log was purged up to {purged}, our position is {known}",
            hint=f"{AGAIN}; and keep the log longer (binlog_expire_logs_seconds)",
        )
    if same:
        _compare_place(catalog, stored, known)
        return stored
    return stored.moved(server)


def _compare_place(catalog: Catalog, stored: AnyPosition, known: Intervals) -> None:
    """Refuse a log that has another transaction at the place than one we do not have yet."""
    size = log_file(catalog, stored.file)
    if size is None or stored.offset <= 4:
        return
    if not _fits(catalog, stored, known, size):
        raise GapError(
            f"the log at {stored.file}:{stored.offset} does not go on behind {known}: "
            "it was reset, or the server restored",
            hint=AGAIN,
        )


def _fits(catalog: Catalog, stored: AnyPosition, known: Intervals, size: int) -> bool:
    if stored.offset >= size:
        return stored.offset == size
    file = stored.file.replace("'", "''")
    try:
        found = catalog.rows(f"SHOW BINLOG EVENTS IN '{file}' FROM {stored.offset} LIMIT 1")
    except Stop:
        return False  # the place is within an event
    if not found or found[0][2] in _CLOSING:
        return True
    named = _NEXT.search(found[0][5])
    return named is not None and not known.contains(MysqlGtid.parse(named[1]))


def log_file(catalog: Catalog, name: str) -> int | None:
    """Return the size of a file of the log in bytes, None when there is none."""
    sizes = {file: int(size) for file, size, *_ in catalog.rows("SHOW BINARY LOGS")}
    return sizes.get(name)
