"""What `cdc check` looks at before a sink writes into a SQLite file; nothing is changed by it.

The file is only ever opened by SQLite itself: a process that opens and closes it otherwise loses
the locks SQLite holds on it (sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from cdc.connector import Finding
from cdc.errors import CdcError
from schemas.table import TableId
from sinks.folder import missing_folder, room, writable
from sinks.refusals import unwanted
from sinks.sqlite.catalog import Catalog, table_name
from sinks.sqlite.files import named_errors

__all__ = ["findings"]

_OLDEST = (3, 31, 0)  # generated columns; upserts came with 3.24
_WAIT_S = 1.0


def findings(
    path: Path, tables: list[TableId], *, may_create: bool, buffer_bytes: int
) -> Iterator[Finding]:
    """Yield one finding for each precondition; `tables` are those the mapping names."""
    yield _version()
    missing = missing_folder(path)
    if missing is not None:
        yield missing
        return
    yield writable(path, "SQLite puts -wal and -shm into the folder")
    yield room(path, buffer_bytes)
    if not path.exists():
        yield Finding("ok", "file", f"{path} will be made")
        yield from (_absent(table, may_create=may_create) for table in tables)
        return
    try:
        with named_errors(path), closing(_opened(path)) as connection:
            yield _database(connection, path)
            yield from (_table(connection, table, may_create=may_create) for table in tables)
    except CdcError as error:
        yield Finding("fail", "file", str(error), error.hint)


def _opened(path: Path) -> sqlite3.Connection:
    """Open a file that is there, without our settings: they would change it."""
    place = f"{path.as_uri()}?mode=rw"
    return sqlite3.connect(place, uri=True, timeout=_WAIT_S, isolation_level=None)


def _version() -> Finding:
    text = f"SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info >= _OLDEST:
        return Finding("ok", "version", text)
    oldest = ".".join(map(str, _OLDEST))
    repair = "Use a Python that brings a newer SQLite."
    return Finding("fail", "version", f"{text} is older than {oldest}", repair)


def _database(connection: sqlite3.Connection, path: Path) -> Finding:
    """Read the file's header, and see that the write lock can be had."""
    connection.execute("PRAGMA schema_version").fetchone()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")
    return Finding("ok", "file", f"{path} is a database, and its lock can be had")


def _absent(table: TableId, *, may_create: bool) -> Finding:
    if may_create:
        return Finding("ok", table_name(table), "will be made")
    return unwanted(table_name(table))


def _table(connection: sqlite3.Connection, table: TableId, *, may_create: bool) -> Finding:
    try:
        existing = Catalog(connection).read(table)
    except CdcError as error:
        return Finding("fail", table_name(table), str(error), error.hint)
    if existing is None:
        return _absent(table, may_create=may_create)
    return Finding("ok", table_name(table), "can be written")
