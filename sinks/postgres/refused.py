"""Which rows a COPY left out, since a value does not fit its column: PostgreSQL 17 and later.

`COPY … (ON_ERROR ignore, LOG_VERBOSITY verbose)` goes on behind such a row and sends a notice with
its line and column, in whatever language. So one pass over a batch finds all rows of that kind,
where a COPY that fails finds one and must be halved again and again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

__all__ = ["OPTIONS", "Skipped", "heard", "reasons", "tells"]

Connection = psycopg.Connection[Any]

_SINCE = 170000
_PLACE = re.compile(r"(\d+)\D*?\bc(\d+)\b")
"""The line, and the column of staging; the value, which may hold anything, comes last."""
_REASONS = """
SELECT (pg_input_error_info(v, t)).message
FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY u (v, t, n) ORDER BY n
"""

OPTIONS = sql.SQL(" (ON_ERROR ignore, LOG_VERBOSITY verbose)")


class Skipped(NamedTuple):
    """A row that was left out: its line, from 1, and the place of the column, from 0."""

    line: int
    column: int


@contextmanager
def heard(connection: Connection) -> Iterator[list[Skipped]]:
    """Collect what a COPY with `OPTIONS` leaves out; nothing from an older server."""
    found: list[Skipped] = []

    def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
        place = _PLACE.search(diagnostic.message_primary or "")
        if place is not None:
            found.append(Skipped(int(place[1]), int(place[2])))

    connection.add_notice_handler(notice)
    try:
        yield found
    finally:
        connection.remove_notice_handler(notice)


def tells(connection: Connection) -> bool:
    """Tell whether the server knows `OPTIONS`."""
    return connection.info.server_version >= _SINCE


def reasons(
    connection: Connection, values: Sequence[str], types: Sequence[str]
) -> list[str | None]:
    """Return what the server says against each value of a type; None where it says nothing."""
    rows = connection.execute(_REASONS, (list(values), list(types))).fetchall()
    return [row[0] for row in rows]
