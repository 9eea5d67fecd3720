"""What the two databases tell: the journal, the audit, and every row as it stands."""

from __future__ import annotations

import json

import psycopg

from crash.evidence import Effect, Entry, Floor, Stand

JOURNAL = """
select id, relation, key, version, op, xid, row::text, pair, kept from journal.entries order by id
"""
COLUMNS = """
select string_agg(quote_ident(attname), ', ' order by attname) from pg_attribute
where attrelid = %s::regclass and attnum > 0 and not attisdropped
"""


def journal(source: str) -> list[Entry]:
    with psycopg.connect(source) as connection, connection.cursor("journal") as cursor:
        cursor.itersize = 20_000
        rows = cursor.execute(JOURNAL)
        return [
            Entry(*row[:6], json.loads(row[6]) if row[6] else None, row[7], row[8]) for row in rows
        ]


def target_facts(target: str) -> list[Effect]:
    """Return every effect in the order it happened."""
    with psycopg.connect(target) as connection:
        query = "select relation, key, version, op from audit.effects order by id"
        return [Effect(*row) for row in connection.execute(query)]


def rows_of(url: str, source: str, table: str) -> dict[str, Stand]:
    """Return a table's rows by key, over the columns the source has; {} where it lacks one.

    Poison stays where it is: the target refuses it.
    """
    with psycopg.connect(source) as connection:
        columns = (connection.execute(COLUMNS, (table,)).fetchone() or ("",))[0]
    query = f"select id::text, version, md5((row({columns}))::text) from {table}"
    if table == "refused":
        query += " where value <> 'poison'"
    with psycopg.connect(url, options="-c timezone=UTC") as connection:
        try:
            return {
                key: Stand(version, digest) for key, version, digest in connection.execute(query)
            }
        except psycopg.errors.UndefinedColumn:
            return {}


def floor_of(source: str, slot: str) -> Floor | None:
    """Return what is visible now, once the slot has its consistent point."""
    query = "select confirmed_flush_lsn from pg_replication_slots where slot_name = %s"
    with psycopg.connect(source) as connection:
        if connection.execute(query, (slot,)).fetchone() in {None, (None,)}:
            return None
        row = connection.execute("select pg_current_snapshot()::text").fetchone()
        return Floor.parse(str(row[0])) if row else None
