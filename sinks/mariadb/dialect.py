"""What differs between the servers this target writes into, in one place for each of them.

    MariaDB   sinks/mariadb/server.py
    MySQL     sinks/mysql/server.py

All else in this package asks here, and does not know which of them it talks to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cdc.connections.mariadb import Connection
from cdc.connector import Finding
from cdc.mariadb.dialect import Dialect as SourceDialect
from sinks.mariadb.forms import Forms

__all__ = ["IDLE_S", "LOCK_S", "Dialect"]

LOCK_S = 5
"""Seconds that a statement waits for a lock."""
IDLE_S = 20
"""Seconds that a worker may be silent inside a transaction."""


class Dialect(Protocol):
    """One server's own words.

    `name` is what it is called, `word` what a pipeline file and native types call it. `texts` is
    how texts are declared that are equal byte for byte, blanks at their end too; `forms` is how
    values are stored, `settings` what a session is pinned to. `source` reads tables of it.
    """

    name: str
    word: str
    texts: str
    forms: Forms
    settings: Mapping[str, str | int]
    source: type[SourceDialect]

    def version(self, connection: Connection) -> str:
        """Return what the server says it is."""
        ...

    def unfit(self, connection: Connection) -> Finding | None:
        """Return why the server cannot be a target at all, None where it can."""
        ...

    def granted(self, connection: Connection, database: str, table: str) -> set[str]:
        """Return what the user may do with a table, or with a whole database where it is empty."""
        ...

    def begin(self, connection: Connection) -> None:
        """Begin a transaction that the server ends once its worker is silent for `IDLE_S`."""
        ...

    def ended(self, connection: Connection) -> None:
        """Let the connection be silent again, now that its transaction has ended."""
        ...

    def upsert(self, columns: Sequence[str]) -> str:
        """Return what follows the rows of an INSERT, so that one that is there is updated."""
        ...
