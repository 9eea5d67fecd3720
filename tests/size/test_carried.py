"""What publications send of a table, asked of the catalogue, is what pg_publication_tables says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from cdc.connections.postgres import Login, connect
from cdc.postgres.catalog import Catalog
from cdc.postgres.publication import Publication, carried
from schemas.table import TableId

TABLES = """
CREATE TABLE whole (id int PRIMARY KEY, name text, twice int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE part (id int PRIMARY KEY, name text, secret text);
CREATE TABLE other (id int PRIMARY KEY, "from" text);
CREATE TABLE root (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE leaf PARTITION OF root DEFAULT;
"""
LISTED = "FOR TABLE whole, part (id, name) WHERE (id > 5), root"
VIA_ROOT = "WITH (publish_via_partition_root = true)"
SAID = """
SELECT tablename, attnames::text[], coalesce(rowfilter, '') FROM pg_publication_tables
WHERE pubname = 'p'
"""


@pytest.mark.parametrize(
    "what",
    [
        f"{LISTED} {VIA_ROOT}",
        LISTED,
        f"FOR ALL TABLES {VIA_ROOT}",
        "FOR ALL TABLES",
        f"FOR TABLES IN SCHEMA public {VIA_ROOT}",
        f"FOR TABLES IN SCHEMA public, TABLE part WHERE (id > 5) {VIA_ROOT}",
        "FOR TABLE other",
    ],
)
@pytest.mark.parametrize("version", [16, 18])
def test_the_catalogue_says_the_same(
    postgres_server: Callable[[int], Any], version: int, what: str
) -> None:
    server = postgres_server(version)
    url = server.create_database("carried")
    names = [TableId("public", name) for name in ("whole", "part", "other", "root", "nowhere")]
    try:
        with psycopg.connect(url, autocommit=True) as db:
            db.execute(TABLES)
            db.execute(f"CREATE PUBLICATION p {what}")
            said = {TableId("public", name): (list(a), b) for name, a, b in db.execute(SAID)}
        login = Login(url, "test")
        with connect(login) as connection:
            found = carried(Catalog(connection, login), Publication("p"), names)
        ours = {t: (list(one.columns or ()), one.condition) for t, one in found.items()}
        assert ours == {table: said[table] for table in names if table in said}
    finally:
        server.drop_database("carried")
