"""Replication commands of a walsender connection that answer at once or can be waited for.

Source: PostgreSQL 18 manual, "Streaming Replication Protocol".
"""

from __future__ import annotations

import re

import msgspec
import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn, PGresult

from cdc.connections.postgres import Login, translate
from cdc.decode.lsn import parse_lsn
from cdc.errors import SourceUnavailable

__all__ = ["Fork", "System", "identify", "literal", "quote", "run", "sqlstate", "timeline_forks"]

_FINE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_HISTORY = re.compile(r"^\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)", re.MULTILINE | re.IGNORECASE)


class System(msgspec.Struct, frozen=True):
    """Who the server is: its system identifier, timeline and flush position."""

    identifier: str
    timeline: int
    flush_lsn: int


class Fork(msgspec.Struct, frozen=True):
    """`timeline` ended, and its child began, at `lsn`."""

    timeline: int
    lsn: int


def quote(name: str) -> str:
    """Return `name` as an identifier of the replication grammar."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as a string of the replication grammar, which knows no escapes but ''."""
    return "'" + text.replace("'", "''") + "'"


def sqlstate(result: PGresult) -> str:
    """Return the SQLSTATE of a failed result."""
    return (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()


def run(pgconn: PGconn, command: str, login: Login) -> PGresult:
    """Send a command that answers at once.

    Raises `errors.SourceUnavailable` when it fails or the connection is gone.
    """
    result = pgconn.exec_(command.encode())
    if result.status in _FINE:
        return result
    if pgconn.status != pq.ConnStatus.OK:
        raise translate(psycopg.OperationalError(pgconn.get_error_message()), login)
    verb = command.split(maxsplit=1)[0]
    raise SourceUnavailable(f"{verb} failed: {result.get_error_message()} ({sqlstate(result)})")


def identify(pgconn: PGconn, login: Login) -> System:
    """Return who the server is."""
    row = run(pgconn, "IDENTIFY_SYSTEM", login)
    values = [(row.get_value(0, column) or b"").decode() for column in range(3)]
    return System(values[0], int(values[1]), parse_lsn(values[2]))


def timeline_forks(pgconn: PGconn, timeline: int, login: Login) -> list[Fork]:
    """Return the ancestors of `timeline` and where each of them ended."""
    row = run(pgconn, f"TIMELINE_HISTORY {timeline}", login)
    text = (row.get_value(0, 1) or b"").decode()
    return [Fork(int(parent), parse_lsn(lsn)) for parent, lsn in _HISTORY.findall(text)]
