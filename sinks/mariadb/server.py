"""MariaDB, in the words of `sinks/mariadb/dialect.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cdc.connections.mariadb import Connection, fetch
from cdc.connector import Finding
from cdc.mariadb import server
from cdc.mariadb.dialect import Dialect as SourceDialect
from sinks.mariadb.dialect import IDLE_S, LOCK_S
from sinks.mariadb.forms import Form, Forms, is_
from sinks.mariadb.preflight import logs_statements, older

__all__ = ["MariaDB"]

_OLDEST = (10, 11)
_SCALE = 38
_NARROW_BYTES = 40
_GRANTS = """
SELECT PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE GRANTEE IN %s
UNION SELECT PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES
    WHERE %s LIKE TABLE_SCHEMA AND GRANTEE IN %s
UNION SELECT PRIVILEGE_TYPE FROM information_schema.TABLE_PRIVILEGES
    WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND GRANTEE IN %s
"""


class MariaDB:
    """See `sinks.mariadb.dialect.Dialect`."""

    name = "MariaDB"
    word = "mariadb"
    texts = "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
    forms = Forms(Form(is_("UUID")), _SCALE, _NARROW_BYTES)
    settings: Mapping[str, str | int] = {
        "tx_isolation": "READ-COMMITTED",
        "innodb_lock_wait_timeout": LOCK_S,
        "lock_wait_timeout": LOCK_S,  # of a table that somebody alters
        "idle_transaction_timeout": IDLE_S,
        "foreign_key_checks": 1,
        "unique_checks": 1,
        "check_constraint_checks": 1,
        "max_error_count": 65535,  # warnings kept: one for each refused value of a statement
    }
    source: type[SourceDialect] = server.MariaDB

    def version(self, connection: Connection) -> str:
        """Return what the server says it is."""
        return str(fetch(connection, "SELECT VERSION()")[0][0])

    def unfit(self, connection: Connection) -> Finding | None:
        """Return why the server cannot be a target at all, None where it can."""
        text = self.version(connection)
        if "MariaDB" not in text:
            repair = "Use MariaDB here; for MySQL say `type: mysql`."
            return Finding("fail", "version", f"the server is no MariaDB: {text}", repair)
        return older(text, _OLDEST) or logs_statements(connection)

    def granted(self, connection: Connection, database: str, table: str) -> set[str]:
        """Return the rights of the user and of its role."""
        [(whole, role)] = fetch(connection, "SELECT CURRENT_USER(), CURRENT_ROLE()")
        user, _, host = str(whole).rpartition("@")
        who = [f"'{user}'@'{host}'", f"'{role}'@''", str(role)]
        place = (who, database, who, database, table, who)
        return {row[0] for row in fetch(connection, _GRANTS, place)}

    def begin(self, connection: Connection) -> None:
        """Begin a transaction; `idle_transaction_timeout` is its limit."""
        connection.begin()

    def ended(self, connection: Connection) -> None:
        """Leave the session as it is: its limit is one of transactions alone."""

    def upsert(self, columns: Sequence[str]) -> str:
        """Return ON DUPLICATE KEY UPDATE, where VALUES() is the new row."""
        changes = ", ".join(f"{column} = VALUES({column})" for column in columns)
        return f" ON DUPLICATE KEY UPDATE {changes}"
