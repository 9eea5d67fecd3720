"""XA transactions as the server has them: their names, and which of them it holds as prepared.

A name is one text, in the log and in XA RECOVER: that of an SQL statement.

Source: MariaDB documentation, "XA Transactions"; `sql/xa.cc`.
"""

from __future__ import annotations

import re
import struct
import time

import msgspec

from cdc.decode.gtid import Domains
from cdc.errors import UnknownEvent
from cdc.mariadb.connection import Connection, rows, text

__all__ = ["Held", "held", "named", "xid_text"]

_LENGTHS = struct.Struct("<III")
_NAMED = re.compile(r"XA\s+[A-Z]+\s+(X'[0-9a-f]*',X'[0-9a-f]*',-?\d+)", re.IGNORECASE)
_PATIENCE_S = 10.0
_SHORT_S, _PAUSE_S = 0.05, 0.002


class Held(msgspec.Struct, frozen=True):
    """What the server held as prepared just `now`; some of it `lasting`, for longer than it takes.

    The log had `logged` before. What an XA COMMIT did that is neither here nor behind that is in
    every snapshot made since.
    """

    now: frozenset[str] = frozenset()
    lasting: frozenset[str] = frozenset()
    logged: Domains = Domains()


def held(connection: Connection, known: set[str]) -> Held:
    """Look, a little longer where there is what is not `known` from the log.

    A commit between log and tables is over in milliseconds, and so is most that is prepared.
    """
    lasting, deadline = prepared_now(connection), time.monotonic() + _SHORT_S
    while lasting - known and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
        lasting &= prepared_now(connection)
    [[logged]] = rows(connection, "SELECT @@GLOBAL.gtid_binlog_pos")
    now = prepared_now(connection)
    return Held(now, lasting & now, Domains.parse(text(logged)))


def named(statement: str) -> str:
    """Return the name in a statement as a server logs it. Raises `errors.UnknownEvent`."""
    found = _NAMED.match(statement)
    if found is None:
        raise UnknownEvent(f"{statement!r} names no XA transaction in a form that is known")
    return found[1]


def xid_text(xid: bytes) -> str:
    """Return what XA COMMIT takes for the name that an event of the log has."""
    kind, size, _ = _LENGTHS.unpack_from(xid)
    return _text(kind, size, xid[_LENGTHS.size :])


def prepared_now(connection: Connection) -> frozenset[str]:
    """Return the names of the transactions the server holds as prepared.

    One that has been committed stays among them until its tables have what it did, so one that is
    logged as committed and is not here is in every snapshot made from now on (`sql/xa.cc`: it is
    taken out of the cache behind `ha_commit_one_phase`, `ha_commit_or_rollback_by_xid`).
    """
    found = rows(connection, "XA RECOVER")
    return frozenset(
        _text(int(kind or 0), int(size or 0), data or b"") for kind, size, _, data in found
    )


def _text(kind: int, size: int, data: bytes) -> str:
    return f"X'{data[:size].hex()}',X'{data[size:].hex()}',{kind}"
