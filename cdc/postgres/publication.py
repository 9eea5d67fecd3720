"""What the server sends: the publications of a source, kept equal to the tables its globs select.

A table that publishes its updates without a replica identity cannot be updated any more, by
anybody ("cannot update table ... because it does not have a replica identity"). So no such table
is ever added: it is refused by name, with what can be done. A table whose owner chose REPLICA
IDENTITY NOTHING goes into a second publication that carries inserts and truncations alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import psycopg
from psycopg import sql

from cdc.connections.postgres import qualified
from cdc.errors import PreflightFailed
from cdc.postgres.catalog import Catalog, TableFacts
from schemas.table import TableId

__all__ = [
    "INSERTS_ONLY",
    "Carried",
    "Publication",
    "add_sql",
    "carried",
    "create_sql",
    "ensure",
    "existing",
    "identity_remedy",
    "missing_identity",
    "published",
    "refuse_unidentified",
    "unpublished",
]

INSERTS_ONLY = "_inserts"
"""What the name of the second publication ends in."""

_UNIDENTIFIED = """
WITH RECURSIVE part AS (
    SELECT c.oid AS root, c.oid FROM pg_catalog.pg_class c WHERE c.oid = ANY (%s)
    UNION ALL
    SELECT p.root, i.inhrelid FROM part p
    JOIN pg_catalog.pg_class c ON c.oid = p.oid AND c.relkind = 'p'
    JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid)
SELECT DISTINCT p.root::bigint, n.nspname, c.relname, c.relreplident::text
FROM part p JOIN pg_catalog.pg_class c ON c.oid = p.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE CASE c.relreplident
    WHEN 'f' THEN false
    WHEN 'n' THEN (SELECT r.relreplident <> 'n' FROM pg_catalog.pg_class r WHERE r.oid = p.root)
    WHEN 'i' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_index i
        WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid)
    ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_index i
        WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate)
    END ORDER BY 2, 3
"""


_DIRECT = """
SELECT n.nspname::text, c.relname::text, ARRAY(
    SELECT a.attname::text FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND CASE
        WHEN r.prattrs IS NOT NULL THEN a.attnum = ANY (r.prattrs::int2[])
        ELSE a.attgenerated = '' OR (a.attgenerated = 's' AND {generated}) END
    ORDER BY a.attnum), coalesce(pg_get_expr(r.prqual, r.prrelid), '')
FROM unnest(%s::text[], %s::text[]) AS w (nsp, rel)
JOIN pg_catalog.pg_namespace n ON n.nspname = w.nsp
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.rel
JOIN pg_catalog.pg_publication p ON p.pubname IN (%s, %s)
LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
WHERE (p.puballtables OR r.oid IS NOT NULL) AND (p.pubviaroot OR c.relkind = 'r')
AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s WHERE s.pnpubid = p.oid)
"""
"""What pg_publication_tables says, of tables that are published by name or with all others."""

_INDIRECT = """
SELECT t.schemaname::text, t.tablename::text, t.attnames::text[], coalesce(t.rowfilter, '')
FROM unnest(%s::text[], %s::text[]) AS w (nsp, rel)
JOIN pg_catalog.pg_publication_tables t ON t.schemaname = w.nsp AND t.tablename = w.rel
WHERE t.pubname IN (%s, %s)
"""

_AT_ONCE = 500
"""Tables added by one statement, which locks them all: the lock table holds 6,400 by default."""


class Publication(msgspec.Struct, frozen=True):
    """The names of a source's publications. `given` ones are the user's and never changed."""

    name: str
    given: bool = False

    @property
    def inserts_only(self) -> str:
        """The name of the second publication."""
        return self.name + INSERTS_ONLY


def published(catalog: Catalog, publication: Publication) -> dict[TableId, str]:
    """Return the tables published now and the publication each is in."""
    rows = catalog.rows(
        "SELECT schemaname, tablename, pubname FROM pg_catalog.pg_publication_tables"
        " WHERE pubname IN (%s, %s)",
        (publication.name, publication.inserts_only),
    )
    return {TableId(str(schema), str(name)): str(pub) for schema, name, pub in rows}


def missing_identity(
    catalog: Catalog, tables: Sequence[TableFacts]
) -> list[tuple[int, TableId, str]]:
    """Return the tables, or partitions of them, whose updates would fail once published.

    Each with the oid of the selected table it belongs to before, and its identity behind.
    """
    rows = catalog.rows(_UNIDENTIFIED, ([facts.oid for facts in tables],))
    return [
        (int(str(root)), TableId(str(schema), str(name)), str(kind))
        for root, schema, name, kind in rows
    ]


def identity_remedy(table: TableId) -> str:
    """Return what an operator can do about a table without a replica identity."""
    name = qualified(table).as_string(None)
    return (
        f"one of: ALTER TABLE {name} ADD PRIMARY KEY (...);"
        f"  ALTER TABLE {name} REPLICA IDENTITY USING INDEX <unique index over NOT NULL columns>;"
        f"  ALTER TABLE {name} REPLICA IDENTITY FULL;"
        f'  or leave it out: tables: [..., "!{table}"]'
    )


def ensure(catalog: Catalog, publication: Publication, tables: Sequence[TableFacts]) -> list[str]:
    """Create what is missing, add what is selected and not yet published; return all names.

    Raises `errors.PreflightFailed` for a table that must not be published and for missing rights.
    """
    found = existing(catalog, publication)
    if publication.given:
        if publication.name not in found:
            raise PreflightFailed(
                f"publication {publication.name} does not exist",
                hint=create_sql(catalog, publication.name, tables, inserts_only=False),
            )
        return [publication.name]
    refuse_unidentified(catalog, tables)
    groups = {
        publication.name: [t for t in tables if t.identity != "n"],
        publication.inserts_only: [t for t in tables if t.identity == "n"],
    }
    for name, members in groups.items():
        if name not in found:
            first, inserts_only = members[:_AT_ONCE], name != publication.name
            _do(catalog, create_sql(catalog, name, first, inserts_only=inserts_only))
    _add(catalog, publication, tables)
    return list(groups)


def existing(catalog: Catalog, publication: Publication) -> list[str]:
    """Return which of the two names are publications now."""
    rows = catalog.rows(
        "SELECT pubname::text FROM pg_catalog.pg_publication WHERE pubname IN (%s, %s)",
        (publication.name, publication.inserts_only),
    )
    return [str(row[0]) for row in rows]


def refuse_unidentified(catalog: Catalog, tables: Sequence[TableFacts]) -> None:
    """Raise `errors.PreflightFailed` when publishing `tables` would break their updates."""
    without = missing_identity(catalog, tables)
    if without:
        names = ", ".join(str(table) for _, table, _ in without)
        raise PreflightFailed(
            f"without a replica identity, updates would fail once published: {names}",
            hint="\n".join(identity_remedy(table) for _, table, _ in without),
        )


def unpublished(
    catalog: Catalog, publication: Publication, tables: Sequence[TableFacts]
) -> list[TableFacts]:
    """Return those of `tables` that the publications, if they are ours, do not carry yet."""
    if publication.given:
        return []
    now = published(catalog, publication)
    return [facts for facts in tables if facts.table not in now]


class Carried(msgspec.Struct, frozen=True):
    """What a publication sends of one table: `columns`, None for all, and rows by a condition."""

    columns: tuple[str, ...] | None = None
    condition: str = ""


def carried(
    catalog: Catalog, publication: Publication, tables: Sequence[TableId]
) -> dict[TableId, Carried]:
    """Return what is sent of `tables`: column lists and row filters since PostgreSQL 15 (R9).

    pg_publication_tables looks at every table of a publication whichever is asked for: with
    10,000 of them 0.1 s for each question (measured). So only what it alone knows is asked there.
    """
    version = catalog.connection.info.server_version
    if version < 150000:
        return {}
    names = (publication.name, publication.inserts_only)
    generated = "p.pubgencols = 's'" if version >= 180000 else "false"
    found = _carried(catalog, _DIRECT.format(generated=generated), names, tables)
    left = [table for table in tables if table not in found]
    return {**_carried(catalog, _INDIRECT, names, left), **found} if left else found


def _carried(
    catalog: Catalog, query: str, names: tuple[str, str], tables: Sequence[TableId]
) -> dict[TableId, Carried]:
    schemas, tables_named = [t.schema for t in tables], [t.name for t in tables]
    rows = catalog.rows(query, (schemas, tables_named, *names))
    return {
        TableId(str(schema), str(name)): msgspec.convert(
            {"columns": columns, "condition": condition}, Carried
        )
        for schema, name, columns, condition in rows
    }


def _add(catalog: Catalog, publication: Publication, tables: Sequence[TableFacts]) -> None:
    missing = unpublished(catalog, publication, tables)
    for name, inserts_only in ((publication.name, False), (publication.inserts_only, True)):
        members = [facts for facts in missing if (facts.identity == "n") is inserts_only]
        for first in range(0, len(members), _AT_ONCE):
            _do(catalog, add_sql(name, members[first : first + _AT_ONCE]))


def _members(tables: Sequence[TableFacts]) -> sql.Composed:
    names = [sql.SQL("ONLY {}").format(qualified(facts.table)) for facts in tables]
    return sql.SQL(", ").join(names)


def add_sql(name: str, tables: Sequence[TableFacts]) -> str:
    """Return the statement that adds `tables` to the publication `name`."""
    statement = sql.SQL("ALTER PUBLICATION {} ADD TABLE {};")
    return statement.format(sql.Identifier(name), _members(tables)).as_string(None)


def create_sql(
    catalog: Catalog, name: str, tables: Sequence[TableFacts], *, inserts_only: bool
) -> str:
    """Return the statement that makes the publication `name` of exactly `tables`."""
    options = ["publish_via_partition_root = true"]
    if inserts_only:
        options.append("publish = 'insert, truncate'")
    if catalog.connection.info.server_version >= 180000:
        options.append("publish_generated_columns = stored")
    head = sql.SQL("CREATE PUBLICATION {}").format(sql.Identifier(name))
    body = sql.SQL(" FOR TABLE {}").format(_members(tables)) if tables else sql.SQL("")
    tail = sql.SQL(" WITH (" + ", ".join(options) + ");")
    return (head + body + tail).as_string(None)


def _do(catalog: Catalog, statement: str) -> None:
    try:
        catalog.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        user = sql.Identifier(catalog.connection.info.user).as_string(None)
        database = sql.Identifier(catalog.connection.info.dbname).as_string(None)
        raise PreflightFailed(
            f"no right to publish: {str(error).strip()}",
            hint=f"as the owner of the tables: {statement}\n"
            "then name it with `publication:`; or let this role do it: "
            f"GRANT CREATE ON DATABASE {database} TO {user}; and make it own the tables",
        ) from error
