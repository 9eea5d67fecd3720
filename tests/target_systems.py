"""The databases a sink makes tables in, all alike: targets by rules, and a plain look inside."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol

import duckdb
import psycopg

from cdc.connections.mariadb import fetch
from cdc.connector import Context
from sinks.target import Target
from sinks.targets import duckdb as duckdb_target
from sinks.targets import mariadb as mariadb_target
from sinks.targets import postgres as postgres_target
from sinks.targets import sqlite as sqlite_target

CONTEXT = Context("shop", "mirror")


class System(Protocol):
    """A place of a test's own: targets on it, and what a plain connection finds there."""

    def target(self, rules: object) -> Target: ...
    def query(self, statement: str) -> list[tuple[Any, ...]]: ...
    def columns(self, table: str) -> dict[str, str]: ...


class Postgres:
    def __init__(self, url: str) -> None:
        self._url = url

    def target(self, rules: object) -> Target:
        given = {"url": self._url, "tables": [], "schema_changes": rules}
        return postgres_target.create(CONTEXT, postgres_target.Config.model_validate(given))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._url, autocommit=True) as connection:
            cursor = psycopg.RawCursor(connection).execute(statement)
            return cursor.fetchall() if cursor.description else []

    def columns(self, table: str) -> dict[str, str]:
        return dict(
            self.query(
                "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute WHERE "
                f"attrelid = to_regclass('{table}') AND attnum > 0 AND NOT attisdropped"
            )
        )


class MariaDB:
    module: ClassVar[ModuleType] = mariadb_target

    def __init__(self, server: Any, url: str) -> None:
        self._server = server
        self._url = url
        self._database = url.rpartition("/")[2]

    def target(self, rules: object) -> Target:
        given = {"url": self._url, "tables": [], "schema_changes": rules}
        target: Target = self.module.create(CONTEXT, self.module.Config.model_validate(given))
        return target

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(self._server.connect(self._database)) as connection:
            return list(fetch(connection, statement.rstrip(";")))

    def columns(self, table: str) -> dict[str, str]:
        return dict(
            self.query(
                "SELECT COLUMN_NAME, COLUMN_TYPE FROM information_schema.COLUMNS WHERE "
                f"TABLE_SCHEMA = '{self._database}' AND TABLE_NAME = '{table}'"
            )
        )


class SQLite:
    def __init__(self, path: Path) -> None:
        self._path = path

    def target(self, rules: object) -> Target:
        given = {"path": self._path, "tables": [], "schema_changes": rules}
        return sqlite_target.create(CONTEXT, sqlite_target.Config.model_validate(given))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()

    def columns(self, table: str) -> dict[str, str]:
        return dict(self.query(f"SELECT name, type FROM pragma_table_info('{table}')"))


class DuckDB:
    def __init__(self, path: Path) -> None:
        self._path = path

    def target(self, rules: object) -> Target:
        given = {"path": self._path, "tables": [], "schema_changes": rules}
        return duckdb_target.create(CONTEXT, duckdb_target.Config.model_validate(given))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(duckdb.connect(str(self._path))) as connection:
            return connection.execute(statement).fetchall()

    def columns(self, table: str) -> dict[str, str]:
        found = self.query(f"SELECT name, type FROM pragma_table_info('{table}')")
        return {name: kind.lower() for name, kind in found}
