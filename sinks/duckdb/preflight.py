"""What `cdc check` looks at before a sink writes into a DuckDB file; nothing is changed by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb

from cdc.connector import Finding
from cdc.errors import CdcError, TargetUnavailable
from schemas.table import TableId
from sinks.duckdb.catalog import read, table_name
from sinks.duckdb.files import Connection, connect
from sinks.folder import missing_folder, room, writable
from sinks.refusals import unwanted

__all__ = ["findings"]

_WAIT_S = 1.0


def findings(
    path: Path, tables: list[TableId], *, may_create: bool, buffer_bytes: int, memory_limit: str
) -> Iterator[Finding]:
    """Yield one finding for each precondition; `tables` are those the mapping names."""
    yield Finding("ok", "version", f"DuckDB {duckdb.__version__}")
    missing = missing_folder(path)
    if missing is not None:
        yield missing
        return
    yield writable(path, "DuckDB puts a .wal into the folder")
    yield room(path, buffer_bytes)
    if not path.exists():
        yield Finding("ok", "file", f"{path} will be made")
        yield from (_absent(table, may_create=may_create) for table in tables)
        return
    try:
        with connect(path, memory_limit, wait=_WAIT_S) as connection:
            yield Finding("ok", "file", f"{path} is a DuckDB file, and no other process has it")
            yield from (_table(connection, table, may_create=may_create) for table in tables)
    except TargetUnavailable as error:
        yield Finding("warn", "file", str(error), error.hint)
    except CdcError as error:
        yield Finding("fail", "file", str(error), error.hint)


def _absent(table: TableId, *, may_create: bool) -> Finding:
    return (
        Finding("ok", table_name(table), "will be made")
        if may_create
        else unwanted(table_name(table))
    )


def _table(connection: Connection, table: TableId, *, may_create: bool) -> Finding:
    try:
        existing = read(connection, table)
    except CdcError as error:
        return Finding("fail", table_name(table), str(error), error.hint)
    if existing is None:
        return _absent(table, may_create=may_create)
    return Finding("ok", table_name(table), "can be written")
