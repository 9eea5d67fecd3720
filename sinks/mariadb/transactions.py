"""Transactions on MariaDB, and what an error inside one means to the worker (R4).

READ COMMITTED: each statement sees what was committed before it, which the meeting of several
workers at a truncation asks for, and nothing is locked between rows.

A worker that freezes inside a transaction holds its locks for `dialect.IDLE_S` and no longer: the
server then ends its connection.

Source: MariaDB documentation, "InnoDB Lock Modes", "idle_transaction_timeout", "Error Codes"; MySQL
documentation, "InnoDB Locking", "Server Error Message Reference".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pymysql
from pymysql.constants import ER

from cdc.connections.mariadb import Connection, Login, code_of, guard
from cdc.errors import CdcError, DataError, PreflightFailed, StateError, TargetUnavailable
from sinks.mariadb.dialect import Dialect

__all__ = ["LACKING", "LOCKED", "named_errors", "rolled_back", "savepoint", "writing"]

_DATA_CLASSES = ("22", "23", "45")
"""Data, constraints, and what a trigger raises by SIGNAL."""
_DATA = (
    ER.WARN_DATA_TRUNCATED,
    ER.NO_DEFAULT_FOR_FIELD,
    ER.TOO_BIG_ROWSIZE,
    ER.TRUNCATED_WRONG_VALUE_FOR_FIELD,
    1300,  # a text that its column's character set does not hold
    1644,  # SIGNAL without a state of its own
    3819,  # CHECK, of MySQL
    4025,  # CHECK, of MariaDB
)
"""Codes of a refused row outside those classes."""
LACKING = (
    ER.DBACCESS_DENIED_ERROR,
    ER.TABLEACCESS_DENIED_ERROR,
    ER.COLUMNACCESS_DENIED_ERROR,
    ER.SPECIFIC_ACCESS_DENIED_ERROR,
)
"""Codes of a right that is not there."""
LOCKED = (ER.LOCK_WAIT_TIMEOUT, ER.LOCK_DEADLOCK)
_CHANGED = (ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR, ER.BAD_TABLE_ERROR, ER.BAD_DB_ERROR)


@contextmanager
def writing(connection: Connection, dialect: Dialect) -> Iterator[None]:
    """Hold one transaction: all of it, or nothing when the block raises."""
    with _begun(connection, dialect):
        try:
            yield
            connection.commit()
        except BaseException:
            _roll_back(connection)
            raise


@contextmanager
def rolled_back(connection: Connection, dialect: Dialect) -> Iterator[None]:
    """Hold a transaction of which nothing stays."""
    with _begun(connection, dialect):
        try:
            yield
        finally:
            _roll_back(connection)


@contextmanager
def _begun(connection: Connection, dialect: Dialect) -> Iterator[None]:
    dialect.begin(connection)
    try:
        yield
    finally:
        # A connection that is lost by now is noticed, and told, when it is used again.
        if connection.open:
            with suppress(pymysql.Error):
                dialect.ended(connection)


def _roll_back(connection: Connection) -> None:
    # Where it cannot be said any more the server rolls back by itself, and the reason is told.
    if connection.open:
        with suppress(pymysql.Error):
            connection.rollback()


@contextmanager
def savepoint(connection: Connection) -> Iterator[None]:
    """Take back what the block did when it raises, and nothing of what was before it."""
    connection.query("SAVEPOINT step")
    try:
        yield
    except DataError:
        connection.query("ROLLBACK TO SAVEPOINT step")
        raise


@contextmanager
def named_errors(login: Login) -> Iterator[None]:
    """Raise what the server says as what it means for the worker."""
    try:
        with guard(login):
            yield
    except pymysql.Error as error:
        raise _translated(error, login.system) from error


def _translated(error: pymysql.Error, system: str) -> CdcError:
    code, state = code_of(error), getattr(error, "sqlstate", None) or ""
    text = str(error.args[-1]) if error.args else type(error).__name__
    if code in LACKING:
        return PreflightFailed(
            f"the target's user lacks a right: {text}",
            hint="GRANT SELECT, INSERT, UPDATE, DELETE ON <table> TO <user>; see the page "
            f"sinks/targets/{system.lower()}.md.",
        )
    if code in _CHANGED:
        return StateError(
            f"a table or column changed under the sink: {text}",
            hint="Restart the sink; when a table was dropped, `cdc sink rewind` fills it again.",
        )
    if code in _DATA or state[:2] in _DATA_CLASSES:
        return DataError(f"the target refuses a row: {text}")
    return TargetUnavailable(f"the target did not take the batch: {text}")
