"""MariaDB, in the words of `dialect.py`."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cdc.connector import Finding
from cdc.decode.binlogtables import MARIADB_TEXTS
from cdc.decode.gtid import Domains, Gtids
from cdc.errors import SourceUnavailable, Stop
from cdc.mariadb import opening, preflight
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.chunks import settled
from cdc.mariadb.connection import Connection, rows, text
from cdc.mariadb.dialect import Request, View
from cdc.mariadb.position import Place, Position
from cdc.mariadb.xa import held, prepared_now

__all__ = ["MariaDB"]

_DUMP = 0x12
_PATIENCE_S = 10.0
_COLUMNS = """
SELECT c.COLUMN_NAME, c.DATA_TYPE, c.COLUMN_TYPE, c.IS_NULLABLE, c.COLUMN_DEFAULT,
       c.GENERATION_EXPRESSION IS NOT NULL, c.CHARACTER_SET_NAME, c.NUMERIC_PRECISION,
       c.NUMERIC_SCALE, c.DATETIME_PRECISION, c.CHARACTER_MAXIMUM_LENGTH,
       c.COLUMN_NAME IN (SELECT k.CONSTRAINT_NAME FROM information_schema.CHECK_CONSTRAINTS k
               WHERE k.CONSTRAINT_SCHEMA = %(schema)s AND k.TABLE_NAME = %(name)s
               AND k.LEVEL = 'Column' AND k.CHECK_CLAUSE LIKE 'json_valid(%%'),
       (SELECT s.SEQ_IN_INDEX FROM information_schema.STATISTICS s
        WHERE s.TABLE_SCHEMA = %(schema)s AND s.TABLE_NAME = %(name)s
        AND s.COLUMN_NAME = c.COLUMN_NAME AND s.INDEX_NAME = 'PRIMARY')
FROM information_schema.COLUMNS c
WHERE c.TABLE_SCHEMA = %(schema)s AND c.TABLE_NAME = %(name)s ORDER BY c.ORDINAL_POSITION
"""
"""Each part names the table itself: by a join the server would look through those of every database
(measured, 11.4: 0.7 ms instead of 17, and of 290 where the table has 150 columns).
"""
_CHARSETS = """
SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY
WHERE ID IS NOT NULL
"""


class MariaDB:
    """See `cdc.mariadb.dialect.Dialect`."""

    name = "MariaDB"
    word = "mariadb"
    position = Position
    columns = _COLUMNS
    charsets = _CHARSETS
    grants = "REPLICATION SLAVE, BINLOG MONITOR"
    texts = MARIADB_TEXTS
    names_only = False

    def __init__(self) -> None:
        self._shown = Place("", 0)

    def log_end(self, connection: Connection) -> Place:
        """Inside a consistent snapshot: where the log ended then."""
        told = rows(connection, "SHOW STATUS LIKE 'Binlog_snapshot_%'")
        found = {text(name): text(value) for name, value in told}
        if not found.get("Binlog_snapshot_file"):
            raise Stop("the server says of no place where its binary log ends")
        return Place(found["Binlog_snapshot_file"], int(found["Binlog_snapshot_position"]))

    def first(self, catalog: Catalog, lost: Position | None = None) -> Position:
        """See `opening.first_position`."""
        return opening.first_position(catalog, lost)

    def guarded(self, catalog: Catalog, stored: Position) -> Position:
        """See `opening.guarded`."""
        return opening.guarded(catalog, stored)

    def executed(self, catalog: Catalog) -> str:
        """See `Dialect`."""
        return catalog.variable("gtid_binlog_pos")

    def findings(self, catalog: Catalog) -> Iterator[Finding]:
        """See `preflight.log_findings`."""
        return preflight.log_findings(catalog)

    def begins(self, catalog: Catalog, file: str) -> Gtids | None:
        """See `Dialect`."""
        return catalog.gtid_at(Place(file, 4))

    def request(self, gtid: str, server_id: int) -> Request:
        """COM_BINLOG_DUMP; where it begins is said in a variable."""
        statements = (
            ("SET @mariadb_slave_capability = 4", ()),
            ("SET @slave_gtid_strict_mode = 1", ()),
            ("SET @slave_connect_state = %s", (gtid,)),
        )
        return Request(statements, _DUMP, struct.pack("<IHI", 4, 0, server_id))

    def view(self, connection: Connection, delivered: Position) -> View:
        """InnoDB's view and the log's end are taken as one, so it has just what lies before.

        That may be less than was delivered: a commit is sent before it is carried out, and under
        `rpl_semi_sync_master_wait_point = AFTER_SYNC` long before; then the view is made again.

        What XA COMMIT did the view may lack: it is logged first and carried out then, each in its
        own time (measured, 11.4). Until then XA RECOVER has it, so that is asked before.

        Source: MariaDB documentation, "Enhancements for START TRANSACTION WITH CONSISTENT
        SNAPSHOT".
        """
        before = held(connection, {item.xid for item in delivered.prepared})

        def begin() -> Place:
            connection.query("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            return self.log_end(connection)

        def enough(place: Place) -> bool:
            return place.covers(delivered.place) or self._has(connection, place, delivered)

        return View(settled(begin, enough), held=before)

    def _has(self, connection: Connection, place: Place, delivered: Position) -> bool:
        """Tell whether a place has all transactions; behind it may be what is none."""
        [[gtid]] = rows(connection, "SELECT BINLOG_GTID_POS(%s, %s)", place)
        return Domains.parse(text(gtid)).covers(Domains.parse(delivered.gtid))

    def settle(self, connection: Connection, _: str, place: Place) -> None:
        """The log's end moves, and tables show a transaction, under one lock of the server.

        Source: MariaDB 11.4 `sql/log.cc` (trx_group_commit_leader, LOCK_commit_ordered). Measured
        with `sync_binlog = 1`: 2 of 13,000 inserts were read in the log and not yet in the table.
        """
        if not self._shown.covers(place):
            self._shown = settled(lambda: self.log_end(connection), lambda s: s.covers(place))

    def settle_xa(self, connection: Connection, xid: str) -> None:
        """See `view`: what is logged of XA COMMIT may be carried out later than the log says."""
        late = SourceUnavailable(
            f"the server has logged XA COMMIT {xid} and not carried it out",
            hint=f"XA RECOVER tells whether it still is prepared: XA COMMIT {xid}",
        )
        settled(lambda: prepared_now(connection), lambda now: xid not in now, late, _PATIENCE_S)
