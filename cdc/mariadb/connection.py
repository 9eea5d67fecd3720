"""Connections that read: a value of a result is its bytes, or None, as the log's values are."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pymysql
from pymysql.cursors import Cursor

from cdc.connections import mariadb
from cdc.connections.mariadb import Connection, Login, code_of
from cdc.errors import Stop

__all__ = [
    "Arguments",
    "Connection",
    "Login",
    "connect",
    "leave",
    "quoted",
    "rows",
    "text",
    "unread",
    "whole_guard",
]

Arguments = tuple[object, ...] | Mapping[str, object]
"""Of a query, by place (%s) or by name (%(name)s)."""

_READING: Mapping[str, str | int] = {"lock_wait_timeout": 3}
_BLOCK = 1 << 18
_PASSING = {1158, 1159, 1160, 1161, 1205, 1213, 1969, 3024}
"""Network, lock waits, a statement that was ended."""


def connect(login: Login) -> Connection:
    """Connect as `cdc.connections.mariadb.connect` does; results are bytes, and read in blocks."""
    connection = mariadb.connect(login, _READING)
    connection.query("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.use_unicode = False
    connection.decoders = {}
    driver = vars(connection)  # nothing is under way, so its small buffer is empty
    driver["_rfile"] = io.BufferedReader(driver["_rfile"].detach(), _BLOCK)
    return connection


def leave(connection: Connection) -> None:
    """Close a connection; nobody waits for the rest of a result, which may be a whole table."""
    result: Any = vars(connection)["_result"]
    if result is not None:
        result.unbuffered_active = False  # the driver would read it to its end, as garbage too
    if connection.open:
        connection.close()


def unread(cursor: Cursor) -> bool:
    """Tell whether the server still sends what the cursor asked for."""
    result: Any = vars(cursor)["_result"]
    return result is not None and result.unbuffered_active


def rows(
    connection: Connection, query: str, arguments: Arguments = ()
) -> list[tuple[bytes | None, ...]]:
    """Run `query` and return its rows, whose texts are UTF-8. Raises as the driver does."""
    with connection.cursor() as cursor:
        cursor.execute(query, arguments or None)
        return list(cursor.fetchall())


def quoted(*names: str) -> str:
    """Return identifiers, dots between them, as SQL."""
    return ".".join(map(mariadb.quoted, names))


@contextmanager
def whole_guard(login: Login) -> Iterator[None]:
    """Turn every error of the driver into ours.

    Raises `login.unavailable` for what passes by itself, `errors.Stop` for the rest.
    """
    try:
        with mariadb.guard(login):
            yield
    except pymysql.Error as error:
        text = (
            f"{login.system} answers: {error.args[-1] if error.args else error} ({code_of(error)})"
        )
        if code_of(error) in _PASSING:
            raise login.unavailable(text, hint="the worker tries again") from error
        raise Stop(text, hint="run `cdc check`; the server's log says more") from error


def text(value: Any) -> str:
    """Return a value of a result as text, NULL as the empty one."""
    return "" if value is None else bytes(value).decode()
