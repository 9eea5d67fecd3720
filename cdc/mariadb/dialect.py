"""What differs between the servers that speak this protocol, in one place for each of them.

    MariaDB   cdc/mariadb/server.py     a position is one transaction per domain
    MySQL     cdc/mysql/server.py       a position is a set of transactions

All else in this package asks here, and does not know which of them it talks to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from cdc.decode.gtid import Gtids, Intervals
from cdc.mariadb.connection import Connection
from cdc.mariadb.position import Place, Position
from cdc.mariadb.xa import Held

if TYPE_CHECKING:  # these ask a dialect themselves
    from cdc.connector import Finding
    from cdc.mariadb.catalog import Catalog

__all__ = ["Dialect", "Request", "View"]


class View(msgspec.Struct, frozen=True):
    """A consistent snapshot: what it has, said in places and transactions of the log.

    It has nothing behind `place`. It has all before `place` where `seen` is None, else all of
    `seen`, and perhaps some of what lies between. What XA COMMIT did it may lack though it lies
    before `place`, as far as `held` says so.
    """

    place: Place
    seen: Intervals | None = None
    held: Held = Held()


class Request(msgspec.Struct, frozen=True):
    """How to ask for the log: statements first, then a command with its arguments."""

    statements: Sequence[tuple[str, tuple[object, ...]]]
    command: int
    arguments: bytes


class Dialect(Protocol):
    """One server's own words.

    `name` is what it is called, `word` what native types begin with. `columns` is the query for the
    columns of the table %(schema)s, %(name)s, `charsets` that for (collation number, character
    set). `grants` are the rights that a user needs beside SELECT, `texts` the types the log has a
    collation for. `names_only`: rows that were logged without the names of their columns are
    refused.
    """

    name: str
    word: str
    position: type[Position]
    columns: str
    charsets: str
    grants: str
    texts: frozenset[int]
    names_only: bool

    def log_end(self, connection: Connection) -> Place:
        """Return where the log ends now. Raises `errors.Stop` when there is none."""
        ...

    def first(self, catalog: Catalog, lost: Position | None = None) -> Position:
        """Return the end of the log, of an incarnation that neither `lost` nor another one had.

        Raises `errors.PreflightFailed`.
        """
        ...

    def guarded(self, catalog: Catalog, stored: Position) -> Position:
        """Return where to go on, behind `stored`. Raises `errors.Stop` when that cannot be."""
        ...

    def executed(self, catalog: Catalog) -> str:
        """Return the transactions the log has by now."""
        ...

    def findings(self, catalog: Catalog) -> Iterator[Finding]:
        """Yield what is to be said of the server and its log."""
        ...

    def begins(self, catalog: Catalog, file: str) -> Gtids | None:
        """Return what was executed before a file of the log, None when it cannot be told."""
        ...

    def request(self, gtid: str, server_id: int) -> Request:
        """Return how to ask for all that follows `gtid`, as the replica `server_id`."""
        ...

    def settle(self, connection: Connection, transaction: str, place: Place) -> None:
        """Wait until the tables show what a transaction of this id, which ends at `place`, did.

        Raises `chunks.TableBusy` when that takes long.
        """
        ...

    def settle_xa(self, connection: Connection, xid: str) -> None:
        """Wait until the tables show what XA COMMIT of `xid` did, as far as `settle` does not.

        Raises `errors.SourceUnavailable` when that takes long.
        """
        ...

    def view(self, connection: Connection, delivered: Position) -> View:
        """Begin a transaction that reads, in a snapshot that has all that was `delivered`.

        Raises `chunks.TableBusy` when the server has not come to that yet.
        """
        ...
