"""`cdc check` for a PostgreSQL target: what must hold before the first row, and what repairs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from cdc.connector import Finding
from schemas.table import TableId
from sinks.refusals import unwanted

__all__ = ["findings"]

Connection = psycopg.Connection[Any]

_OLDEST = 140000
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_CONSTRAINTS = """
SELECT conname::text, contype::text FROM pg_constraint
WHERE conrelid = %s AND contype IN ('f', 'u', 'x') ORDER BY conname
"""


def findings(
    connection: Connection, schema: str, tables: list[TableId], *, may_create: bool, workers: int
) -> Iterator[Finding]:
    """Yield one finding for each precondition; `tables` are those the mapping names."""
    yield _version(connection)
    yield _staging(connection)
    yield _cursors(connection, schema, "cursors")
    if workers > 1:
        yield _cursors(connection, schema, "barriers")
    for table in tables:
        yield from _table(connection, table, may_create=may_create, workers=workers)


def _one(connection: Connection, query: str, *parameters: Any) -> Any:
    row = connection.execute(query, parameters).fetchone()
    return None if row is None else row[0]


def _role(connection: Connection) -> str:
    name = _one(connection, "SELECT current_user::text")
    return sql.Identifier(name).as_string(connection)


def _version(connection: Connection) -> Finding:
    number = connection.info.server_version
    text = f"PostgreSQL {number // 10000}"
    if number >= _OLDEST:
        return Finding("ok", "version", text)
    return Finding("fail", "version", f"{text} is older than 14", "Upgrade the server.")


def _staging(connection: Connection) -> Finding:
    """Changes are staged in temporary tables before they are merged."""
    if _one(connection, "SELECT has_database_privilege(current_database(), 'TEMPORARY')"):
        return Finding("ok", "staging", "temporary tables can be made")
    database = _one(connection, "SELECT current_database()::text")
    base = sql.Identifier(database).as_string(connection)
    repair = f"GRANT TEMPORARY ON DATABASE {base} TO {_role(connection)};"
    return Finding("fail", "staging", "the role may not make temporary tables", repair)


def _closed(connection: Connection, schema: str, place: str) -> Finding | None:
    """Return what is wrong when the role may not look into a schema that exists."""
    query = "SELECT NOT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = %s"
    if not _one(connection, query, schema):
        return None
    name = sql.Identifier(schema).as_string(connection)
    repair = f"GRANT USAGE, CREATE ON SCHEMA {name} TO {_role(connection)};"
    return Finding("fail", place, f"the role may not use the schema {schema}", repair)


def _cursors(connection: Connection, schema: str, table_name: str) -> Finding:
    """Look at one of our own tables, which the sink makes at its first start."""
    place = f"{schema}.{table_name}"
    if (closed := _closed(connection, schema, place)) is not None:
        return closed
    name = sql.Identifier(schema).as_string(connection)
    role, database = _role(connection), _one(connection, "SELECT current_database()::text")
    base = sql.Identifier(database).as_string(connection)
    exists = _one(connection, "SELECT 1 FROM pg_namespace WHERE nspname = %s", schema)
    if not exists:
        if _one(connection, "SELECT has_database_privilege(current_database(), 'CREATE')"):
            return Finding("ok", place, "will be made")
        return Finding(
            "fail",
            place,
            f"the schema {schema} is missing and the role may not make it",
            f"CREATE SCHEMA {name} AUTHORIZATION {role};  -- or: "
            f"GRANT CREATE ON DATABASE {base} TO {role};",
        )
    table = _one(connection, "SELECT to_regclass(%s)::oid", f"{name}.{table_name}")
    if table is None and not _one(connection, "SELECT has_schema_privilege(%s, 'CREATE')", schema):
        repair = f"GRANT USAGE, CREATE ON SCHEMA {name} TO {role};"
        return Finding("fail", place, "the role may not make the table", repair)
    if table is not None and _lacking(connection, table):
        repair = f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.{table_name} TO {role};"
        return Finding("fail", place, "the role lacks rights", repair)
    return Finding("ok", place, "can be used")


def _lacking(connection: Connection, oid: int) -> list[str]:
    query = "SELECT has_table_privilege(%s::oid, %s)"
    return [right for right in _RIGHTS if not _one(connection, query, oid, right)]


def _table(
    connection: Connection, table: TableId, *, may_create: bool, workers: int
) -> Iterator[Finding]:
    place = sql.Identifier(table.schema, table.name).as_string(connection)
    if (closed := _closed(connection, table.schema, str(table))) is not None:
        yield closed
        return
    oid = _one(connection, "SELECT to_regclass(%s)::oid", place)
    if oid is None:
        yield _missing(connection, table, may_create=may_create)
        return
    lacking = _lacking(connection, oid)
    if lacking:
        repair = f"GRANT {', '.join(lacking)} ON {place} TO {_role(connection)};"
        yield Finding("fail", str(table), f"the role lacks {', '.join(lacking)}", repair)
    else:
        yield Finding("ok", str(table), "can be written")
    bound = connection.execute(_CONSTRAINTS, (oid,)).fetchall()
    if bound and workers > 1:
        names = ", ".join(name for name, _ in bound)
        yield Finding(
            "warn",
            str(table),
            f"with several workers a row may come before what {names} asks for",
            "Set `workers: 1` for consistent cuts, or drop the constraints on the target.",
        )


def _missing(connection: Connection, table: TableId, *, may_create: bool) -> Finding:
    if not may_create:
        return unwanted(str(table))
    schema = _one(connection, "SELECT oid FROM pg_namespace WHERE nspname = %s", table.schema)
    if schema is None:
        allowed = _one(connection, "SELECT has_database_privilege(current_database(), 'CREATE')")
    else:
        allowed = _one(connection, "SELECT has_schema_privilege(%s::oid, 'CREATE')", schema)
    if allowed:
        return Finding("ok", str(table), "will be made")
    role, name = _role(connection), sql.Identifier(table.schema).as_string(connection)
    repair = f"GRANT USAGE, CREATE ON SCHEMA {name} TO {role};"
    if schema is None:
        repair = f"CREATE SCHEMA {name} AUTHORIZATION {role};"
    return Finding("fail", str(table), "is missing and the role may not make it", repair)
