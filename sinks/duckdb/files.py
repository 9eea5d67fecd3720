"""How to reach a DuckDB file: one connection at a time, transactions, and what its errors mean.

DuckDB lets one process have a file, and with it keeps every other one out, readers too. So the
file is held for one batch only and let go of behind it: between batches it is whole, without a
log beside it, and free to be read. (To open and close one takes 30 to 40 ms, measured.)

Sources: duckdb.org/docs/current/connect/concurrency; what errors say was seen with DuckDB 2.0.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from cdc.errors import CdcError, DataError, PreflightFailed, StateError, TargetUnavailable

__all__ = ["BUSY_S", "Connection", "File", "connect", "named_errors", "quoted"]

Connection = duckdb.DuckDBPyConnection

BUSY_S = 5.0
"""How long a file that another process has is waited for."""
_POLL_S = 0.05

_OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}
"""Nothing is downloaded, and no variable of ours is taken for a table."""

_REFUSED = (DataError, "the target refuses a row: {error}", "")
_LOCKED = (
    TargetUnavailable,
    "{path} is open in another process, and DuckDB lets one in at a time: {error}",
    "Close it there; whoever reads between batches opens it for a query. The batch is tried again.",
)
_FULL = (
    TargetUnavailable,
    "{path} could not be written: {error}",
    "When there is no room, free some: `df {folder}`. The same batch is tried again.",
)
_DAMAGED = (
    StateError,
    "{path} is no DuckDB file that this version reads: {error}",
    "Name another `path`, or move the file away: a new one is filled from the topics.",
)
_FORBIDDEN = (
    PreflightFailed,
    "{path} cannot be opened: {error}",
    "Let this user write the file and its folder; DuckDB puts a .wal beside it.",
)
_CHANGED = (
    StateError,
    "a table or column changed under the sink: {error}",
    "Restart the sink; when a table was dropped, `cdc sink rewind` fills it again.",
)
_SMALL = (
    TargetUnavailable,
    "the batch does not fit into `memory_limit`: {error}",
    "Raise `memory_limit`, or lower `buffer_bytes`.",
)
_AWAY = (TargetUnavailable, "{path} did not take the batch: {error}", "")
_Meaning = tuple[type[CdcError], str, str]

_BY_TEXT: tuple[tuple[str, _Meaning], ...] = (
    ("Conflicting lock", _LOCKED),
    ("not a valid DuckDB", _DAMAGED),
    ("Is a directory", _FORBIDDEN),
    ("Permission denied", _FORBIDDEN),
    ("Cannot open file", _FORBIDDEN),
    ("Could not write", _FULL),
    ("No space left", _FULL),
    ("onstraint", _REFUSED),
)
"""What is said of the file, or at COMMIT, where the class tells too little."""
_BY_CLASS: tuple[tuple[type[duckdb.Error], _Meaning], ...] = (
    (duckdb.OutOfMemoryException, _SMALL),
    (duckdb.SerializationException, _DAMAGED),
    (duckdb.IntegrityError, _REFUSED),
    (duckdb.DataError, _REFUSED),
    (duckdb.CatalogException, _CHANGED),
    (duckdb.BinderException, _CHANGED),
    (duckdb.DependencyException, _CHANGED),
)


def quoted(name: str) -> str:
    """Return `name` as an identifier, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def connect(path: Path, memory_limit: str, *, wait: float | None = None) -> Connection:
    """Open the file, made where it is missing, when no other process has it.

    Raises as `named_errors`, after `wait` seconds (None: `BUSY_S`) where another one has.
    """
    if not path.parent.is_dir():
        raise PreflightFailed(f"there is no folder {path.parent}", hint=f"mkdir -p {path.parent}")
    with named_errors(path):
        connection = _waited(path, time.monotonic() + (BUSY_S if wait is None else wait))
        try:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"SET memory_limit = '{memory_limit}'")
        except BaseException:
            connection.close()
            raise
    return connection


def _waited(path: Path, deadline: float) -> Connection:
    while True:
        try:
            return duckdb.connect(path, config=_OFFLINE)
        except duckdb.IOException as error:
            if "Conflicting lock" not in str(error) or time.monotonic() >= deadline:
                raise
        time.sleep(_POLL_S)


class File:
    """A file that is open while it is used; uses inside a use share its connection."""

    def __init__(self, path: Path, memory_limit: str) -> None:
        self.path = path
        self._memory_limit = memory_limit
        self._connection: Connection | None = None
        self._inode = 0
        self.is_writing = False

    def note(self) -> None:
        """Remember which file is meant; another one under its path is then not written to."""
        self._inode = self.path.stat().st_ino

    def forget(self) -> None:
        """Take whatever file is under the path."""
        self._inode = 0

    @contextmanager
    def used(self) -> Iterator[Connection]:
        """Have the file. Raises as `connect`, `errors.TargetUnavailable` when it is another."""
        if self._connection is not None:
            with named_errors(self.path):
                yield self._connection
            return
        if self._inode and not (self.path.exists() and self.path.stat().st_ino == self._inode):
            raise TargetUnavailable(f"{self.path} was moved or removed while it was written to")
        self._connection = connect(self.path, self._memory_limit)
        try:
            with named_errors(self.path):
                yield self._connection
        finally:
            connection, self._connection = self._connection, None
            connection.close()

    @contextmanager
    def written(self, *, keep: bool = True) -> Iterator[Connection]:
        """Have the file and one transaction of it: all of it, or nothing when the block raises.

        Of one that is not to be kept nothing stays either way.
        """
        with self.used() as connection:
            connection.execute("BEGIN")
            self.is_writing = True
            try:
                yield connection
                connection.execute("COMMIT" if keep else "ROLLBACK")
            except BaseException:
                # A COMMIT that failed has rolled back already, and says so as an error.
                with suppress(duckdb.Error):
                    connection.execute("ROLLBACK")
                raise
            finally:
                self.is_writing = False


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Raise what DuckDB says as what it means for the worker (R4)."""
    try:
        yield
    except duckdb.Error as error:
        raise _translated(error, path) from error


def _translated(error: duckdb.Error, path: Path) -> CdcError:
    said = str(error).partition("\n")[0]
    named = [meaning for text, meaning in _BY_TEXT if text in said and not _is_about_rows(error)]
    known = [meaning for kind, meaning in _BY_CLASS if isinstance(error, kind)]
    meanings: list[_Meaning] = [*named, *known, _AWAY]
    kind, message, hint = meanings[0]
    facts = {"path": path, "folder": path.parent, "error": said}
    return kind(message.format(**facts), hint=hint.format(**facts))


def _is_about_rows(error: duckdb.Error) -> bool:
    """Tell whether the text may quote a value, in which anything can stand."""
    return isinstance(error, (duckdb.DataError, duckdb.IntegrityError))
