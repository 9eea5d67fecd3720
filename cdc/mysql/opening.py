"""How a MySQL source begins: refuse a log it cannot read, compare the stored position (R3)."""

from __future__ import annotations

import re
import time

from cdc.decode.gtid import Intervals, MysqlGtid
from cdc.errors import GapError, PreflightFailed, Stop
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.opening import OTHER
from cdc.mariadb.position import Place
from cdc.mariadb.position import Position as AnyPosition
from cdc.mysql.position import Position

__all__ = ["WANTED", "executed", "first_position", "guarded", "log_file"]

_LATER = "and end the sessions that had another one"
_STEPS = (
    "SET GLOBAL enforce_gtid_consistency = ON; then gtid_mode = OFF_PERMISSIVE, ON_PERMISSIVE, ON"
)
WANTED = {
    "binlog_format": ("ROW", f"SET GLOBAL binlog_format = 'ROW'; {_LATER}"),
    "binlog_row_metadata": ("FULL", f"SET GLOBAL binlog_row_metadata = 'FULL'; {_LATER}"),
    "binlog_row_image": ("FULL", f"SET GLOBAL binlog_row_image = 'FULL'; {_LATER}"),
    "gtid_mode": ("ON", _STEPS),
}
"""Variable → the value it must have, and what gives it."""

_AGAIN = "read everything again: `cdc position reset`"
_NEXT = re.compile(r"GTID_NEXT= '([^']+)'")
_CLOSING = ("Rotate", "Stop")
_TRIES = 20


def _refuse_what_cannot_work(catalog: Catalog) -> None:
    version = catalog.value("SELECT VERSION()")
    if "MariaDB" in version:
        raise PreflightFailed(
            f"the server is {version}: this source reads the log of MySQL", hint=OTHER
        )
    if catalog.variable("log_bin") != "1":
        raise PreflightFailed(
            "the server writes no binary log",
            hint="take skip-log-bin out of its options, and restart it",
        )
    for name, (wanted, repair) in WANTED.items():
        found = catalog.variable(name)
        if found != wanted:
            raise PreflightFailed(
                f"{name} is {found}: rows cannot be read from the log", hint=repair
            )


def executed(catalog: Catalog) -> Intervals:
    """Return the transactions that have committed."""
    return Intervals.parse(catalog.variable("gtid_executed"))


def first_position(catalog: Catalog, lost: AnyPosition | None = None) -> Position:
    """Return the end of the log, of an incarnation as `cdc.mariadb.opening` has it.

    Its place is told apart from the set, so it is kept only where the log stood still meanwhile.
    Raises `errors.PreflightFailed`.
    """
    _refuse_what_cannot_work(catalog)
    place = Place("", 0)
    gtids = executed(catalog)
    for _ in range(_TRIES):
        before, gtids, after = catalog.log_end(), executed(catalog), catalog.log_end()
        if before == after:
            place = after
            break
    incarnation = max(int(time.time()), lost.incarnation + 1 if lost else 0)
    return Position(incarnation, str(gtids), catalog.variable("server_uuid"), *place)


def guarded(catalog: Catalog, stored: AnyPosition) -> AnyPosition:
    """Return where to go on, behind `stored`. Raises `errors.Stop` when that cannot be.

    The server must have all that we have, and still have in its log all that we have not. On the
    server it was read from, the place in the log must also be between the same transactions: after
    RESET BINARY LOGS AND GTIDS, or on a restored copy, their ids come again.
    """
    _refuse_what_cannot_work(catalog)
    known, now = Intervals.parse(stored.gtid), executed(catalog)
    server = catalog.variable("server_uuid")
    same = server == str(stored.server)
    if not now.covers(known):
        raise GapError(
            f"server {server} has executed {now or 'nothing'}, our position is {known}"
            + ("" if same else f" of server {stored.server}"),
            hint=_AGAIN if same else f"correct `url`, let the replica catch up, or {_AGAIN}",
        )
    purged = Intervals.parse(catalog.variable("gtid_purged"))
    if not known.covers(purged):
        raise GapError(
            f"the log was purged up to {purged}, our position is {known}",
            hint=f"{_AGAIN}; and keep the log longer (binlog_expire_logs_seconds)",
        )
    if same:
        _compare_place(catalog, stored, known)
        return stored
    if stored.commit != stored.complete:
        raise GapError(
            f"this is server {server}, and the position lies inside a transaction of server "
            f"{stored.server}",
            hint=_AGAIN,
        )
    return _moved(stored, server)


def _moved(stored: AnyPosition, server: str) -> Position:
    """Go on at another server of the same topology: files and offsets are its own."""
    counted = (stored.commit, stored.ordinal, stored.complete)
    return Position(stored.incarnation, stored.gtid, server, "", 0, *counted)


def _compare_place(catalog: Catalog, stored: AnyPosition, known: Intervals) -> None:
    """Refuse a log that has another transaction at the place than one we do not have yet."""
    size = log_file(catalog, stored.file)
    if size is None or stored.offset <= 4:
        return
    if not _fits(catalog, stored, known, size):
        raise GapError(
            f"the log at {stored.file}:{stored.offset} does not go on behind {known}: "
            "it was reset, or the server restored",
            hint=_AGAIN,
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
