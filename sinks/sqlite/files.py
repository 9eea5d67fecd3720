"""How to reach a SQLite file: settings, transactions, and what an error of it means to the worker.

Write-ahead logging lets others read while a batch is applied; FULL makes each commit survive a
power cut. A transaction takes the file's one write lock when it begins, never half-way: a lock
that is not to be had then costs nothing but the wait.

Sources: sqlite.org/wal.html, pragma.html, rescode.html.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cdc.errors import CdcError, DataError, PreflightFailed, StateError, TargetUnavailable

__all__ = [
    "BUSY_S",
    "connect",
    "is_foreign_key",
    "named_errors",
    "quoted",
    "rolled_back",
    "savepoint",
    "writing",
]

BUSY_S = 5.0
"""How long the write lock is waited for."""

_SETTINGS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -8192",  # KiB; the default of 2 MB makes upserts of old rows read again
    "PRAGMA journal_size_limit = 67108864",  # bytes; else the log stays as large as it ever was
)

_REFUSED = (DataError, "the target refuses a row: {error}", "")
_LOCKED = (
    TargetUnavailable,
    "{path} is locked: another process has been writing to it for {wait} s",
    "`fuser {path}` names it. The same batch is tried again.",
)
_FULL = (
    TargetUnavailable,
    "there is no room for {path}: {error}",
    "Free some in {folder}: `df {folder}`. The same batch is tried again.",
)
_DAMAGED = (
    StateError,
    "{path} is no SQLite database, or is damaged: {error}",
    "Name another `path`, or move the file away: a new one is filled from the topics.",
)
_FORBIDDEN = (
    PreflightFailed,
    "{path} cannot be written: {error}",
    "Let this user write the file and its folder; SQLite puts -wal and -shm beside it.",
)
_CHANGED = (
    StateError,
    "a table or column changed under the sink: {error}",
    "Restart the sink; when a table was dropped, `cdc sink rewind` fills it again.",
)
_AWAY = (TargetUnavailable, "{path} did not take the batch: {error}", "")
_MEANINGS: dict[int, tuple[type[CdcError], str, str]] = {
    sqlite3.SQLITE_CONSTRAINT: _REFUSED,
    sqlite3.SQLITE_MISMATCH: _REFUSED,
    sqlite3.SQLITE_TOOBIG: _REFUSED,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FORMAT: _DAMAGED,
    sqlite3.SQLITE_READONLY: _FORBIDDEN,
    sqlite3.SQLITE_CANTOPEN: _FORBIDDEN,
    sqlite3.SQLITE_PERM: _FORBIDDEN,
    sqlite3.SQLITE_AUTH: _FORBIDDEN,
    sqlite3.SQLITE_ERROR: _CHANGED,
}
"""Primary result code → what it means, how it is told, what repairs it."""


def quoted(name: str) -> str:
    """Return `name` as an identifier, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, made where it is missing, with our settings.

    Raises `errors.PreflightFailed` where it cannot be made or has no write-ahead log, and as
    `named_errors`.
    """
    if not path.parent.is_dir():
        raise PreflightFailed(f"there is no folder {path.parent}", hint=f"mkdir -p {path.parent}")
    with named_errors(path):
        connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            for setting in _SETTINGS:
                connection.execute(setting)
        except BaseException:
            connection.close()
            raise
    if mode != "wal":
        connection.close()
        raise PreflightFailed(
            f"{path} cannot have a write-ahead log (its journal mode is {mode})",
            hint="Put the file on a local disk: network file systems have none.",
        )
    return connection


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold one write transaction: all of it, or nothing when the block raises.

    Foreign keys are judged at its end, whatever the tables say.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("PRAGMA defer_foreign_keys = ON")
        yield
        connection.execute("COMMIT")
    finally:
        _end(connection)


@contextmanager
def rolled_back(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold a write transaction of which nothing stays; foreign keys are judged at each row."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        _end(connection)


def _end(connection: sqlite3.Connection) -> None:
    # Some errors (a full disk) have rolled back already, and a COMMIT that was refused has not.
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@contextmanager
def savepoint(connection: sqlite3.Connection) -> Iterator[None]:
    """Take back what the block did when it raises, and nothing of what was before it."""
    connection.execute("SAVEPOINT step")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK TO step")
        raise
    finally:
        connection.execute("RELEASE step")


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Raise what SQLite says as what it means for the worker (R4)."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(error, path) from error
    except OverflowError as error:  # an integer beyond 64 bits, found when it is bound
        raise DataError(f"the target refuses a row: {error}") from error


def is_foreign_key(error: DataError) -> bool:
    """Tell whether a row was refused by a foreign key."""
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY


def _translated(error: sqlite3.Error, path: Path) -> CdcError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF
    kind, message, hint = _MEANINGS.get(code, _AWAY)
    facts = {"path": path, "folder": path.parent, "error": error, "wait": f"{BUSY_S:.0f}"}
    return kind(message.format(**facts), hint=hint.format(**facts))
