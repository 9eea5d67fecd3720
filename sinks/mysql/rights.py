"""What a user of MySQL may do, as SHOW GRANTS has it, with the roles that are active.

Its information schema has no rights that come with a role, and a user may not look elsewhere.

Source: MySQL documentation, "SHOW GRANTS Statement", "Partial Revokes", "GRANT Statement".
"""

from __future__ import annotations

import re

from cdc.connections.mariadb import Connection, fetch

__all__ = ["granted", "told"]

_NAME = r"\*|`(?:[^`]|``)*`"
_LINE = re.compile(rf"(GRANT|REVOKE) (.+?) ON ({_NAME})\.({_NAME}) (?:TO|FROM) ", re.DOTALL)
_OF_COLUMNS = re.compile(r"[A-Z ]+ \([^)]*\),? ?")
_EVERY = "ALL PRIVILEGES"
_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "CREATE TEMPORARY TABLES")


def granted(connection: Connection, database: str, table: str) -> set[str]:
    """Return the rights to a table, or to the whole database where `table` is empty."""
    [(roles, literal)] = fetch(connection, "SELECT CURRENT_ROLE(), @@partial_revokes")
    using = "" if roles == "NONE" else f" USING {roles}"
    lines = [row[0] for row in fetch(connection, f"SHOW GRANTS FOR CURRENT_USER(){using}")]
    return told(lines, database, table, literal=bool(literal))


def told(lines: list[str], database: str, table: str, *, literal: bool) -> set[str]:
    """Return the rights that lines of SHOW GRANTS give.

    `literal`: names of databases are no patterns, since rights may be revoked in part.
    """
    held: set[str] = set()
    for found in filter(None, map(_LINE.match, lines)):
        deed, what, schema, name = found.groups()
        if not _means(schema, database, literal=literal) or _unquoted(name) not in ("*", table):
            continue
        rights = {right.strip() for right in _OF_COLUMNS.sub("", what).split(",")}
        if _EVERY in rights:
            rights = set(_ALL)
        held = held | rights if deed == "GRANT" else held - rights
    return held


def _means(quoted: str, database: str, *, literal: bool) -> bool:
    if quoted == "*":
        return True
    name = _unquoted(quoted)
    return name == database if literal else _like(name).fullmatch(database) is not None


def _unquoted(name: str) -> str:
    return name if name == "*" else name[1:-1].replace("``", "`")


def _like(pattern: str) -> re.Pattern[str]:
    r"""Return the pattern of a LIKE: `%`, `_`, and `\` before one that is meant itself."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    known = {"%": ".*", "_": "."}
    return re.compile("".join(known.get(part, re.escape(part[-1])) for part in parts), re.DOTALL)
