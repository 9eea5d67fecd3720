"""MySQL, in the words of `sinks/mariadb/dialect.py`. Run on 9.7.4; 8.0 and 8.4 were not.

It has no limit for a transaction that stands still, only one for a connection that does
(`wait_timeout`): so that is short as long as a transaction is open. How many warnings are kept
(`max_error_count`, 1,024) is no user's own to set: more refused rows of a statement are named in
the next try.

Source: MySQL documentation, "Server System Variables", "INSERT ... ON DUPLICATE KEY UPDATE",
"Fixed-Point Types", "Restrictions on Replication with GTIDs".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pymysql

from cdc.connections.mariadb import Connection, code_of, fetch
from cdc.connector import Finding
from cdc.mariadb.dialect import Dialect as SourceDialect
from cdc.mysql import server
from sinks.mariadb.dialect import IDLE_S, LOCK_S
from sinks.mariadb.forms import Form, Forms, is_, text_literal
from sinks.mariadb.preflight import logs_statements, older
from sinks.mysql.rights import granted

__all__ = ["MySQL"]

_OLDEST = (8, 0, 19)
"""Has names for new rows, texts without padding, CHECK, and expressions as defaults."""
_SCALE = 30
_NARROW_BYTES = 144
"""A uuid in a key: 36 characters of four bytes."""
_ROW = "tailrace_row"
_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UNKNOWN_VARIABLE = 1193


def _uuid(text: bytes) -> bytes:
    folded = text.lower()
    if _UUID.fullmatch(folded) is None:
        raise ValueError(f"{text[:40].decode()!r} is no uuid")
    return text_literal(folded)


class MySQL:
    """See `sinks.mariadb.dialect.Dialect`."""

    name = "MySQL"
    word = "mysql"
    texts = "CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin"
    forms = Forms(Form(is_("CHAR(36)"), _uuid), _SCALE, _NARROW_BYTES)
    settings: Mapping[str, str | int] = {
        "transaction_isolation": "READ-COMMITTED",
        "innodb_lock_wait_timeout": LOCK_S,
        "lock_wait_timeout": LOCK_S,  # of a table that somebody alters
        "foreign_key_checks": 1,
        "unique_checks": 1,
    }
    source: type[SourceDialect] = server.MySQL

    def version(self, connection: Connection) -> str:
        """Return what the server says it is, and of whom."""
        [(version, comment)] = fetch(connection, "SELECT VERSION(), @@version_comment")
        return f"{version} {comment}"

    def engine(self, connection: Connection) -> str:
        """Return the version of InnoDB, empty where there is none."""
        try:
            return str(fetch(connection, "SELECT @@innodb_version")[0][0])
        except pymysql.Error as error:
            if code_of(error) != _UNKNOWN_VARIABLE:
                raise
            return ""

    def unfit(self, connection: Connection) -> Finding | None:
        """Return why the server cannot be a target at all, None where it can.

        MySQL's InnoDB has the server's own version; others that speak its protocol have none, or
        one they were made after.
        """
        text, engine = self.version(connection), self.engine(connection)
        if "MariaDB" in text:
            repair = "Use MySQL here; for MariaDB say `type: mariadb`."
            return Finding("fail", "version", f"the server is no MySQL: {text}", repair)
        if not engine or not re.match(rf"{re.escape(engine)}(?![.\d])", text):
            repair = "Use MySQL; this target is made for no other server, nor tested with one."
            told = f"the server is no MySQL: {text} (InnoDB {engine or 'is not there'})"
            return Finding("fail", "version", told, repair)
        return older(text, _OLDEST) or logs_statements(connection)

    def granted(self, connection: Connection, database: str, table: str) -> set[str]:
        """Return the rights of the user and of its active roles."""
        return granted(connection, database, table)

    def begin(self, connection: Connection) -> None:
        """Begin a transaction; a connection that is silent in it for long is ended."""
        connection.query(f"SET SESSION wait_timeout = {IDLE_S}")
        connection.begin()

    def ended(self, connection: Connection) -> None:
        """Give the connection the server's own limit again."""
        connection.query("SET SESSION wait_timeout = DEFAULT")

    def upsert(self, columns: Sequence[str]) -> str:
        """Return ON DUPLICATE KEY UPDATE, with a name for the new row."""
        changes = ", ".join(f"{column} = {_ROW}.{column}" for column in columns)
        return f" AS {_ROW} ON DUPLICATE KEY UPDATE {changes}"
