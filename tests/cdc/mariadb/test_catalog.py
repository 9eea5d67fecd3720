"""What the catalogue says of tables, and what it costs the server to say it."""

from __future__ import annotations

from contextlib import closing

from cdc.connections.mariadb import Login
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.connection import connect
from cdc.mariadb.server import MariaDB
from fix_mariadb_capture import Database
from schemas.table import TableId

TABLE = """
CREATE TABLE t (
    part varchar(3), id int, n int UNIQUE, document json, `it's` longtext, PRIMARY KEY (part, id)
)
"""


def test_a_table_is_looked_up_without_looking_through_all_others(shop: Database) -> None:
    shop.execute(TABLE)
    with closing(connect(Login(shop.url, "test"))) as connection:
        catalog = Catalog(connection, Login(shop.url, "test"), MariaDB())
        query = f"EXPLAIN {MariaDB.columns}"
        plan = catalog.rows(query, {"schema": shop.name, "name": "t"})
    assert len(plan) == 3
    assert all("Scanned 0 databases" in step[-1] for step in plan)


def test_a_table_is_found_with_its_key_and_the_documents_in_it(shop: Database) -> None:
    other = "CREATE TABLE other (id int PRIMARY KEY, `it's` json)"
    shop.execute(TABLE, other)
    with closing(connect(Login(shop.url, "test"))) as connection:
        found = Catalog(connection, Login(shop.url, "test"), MariaDB()).find(
            TableId(shop.name, "t")
        )
    assert found is not None
    kinds = {facts.column.name: facts.column.kind for facts in found.columns}
    assert found.primary_key == ("part", "id")
    assert kinds == {
        "part": "varchar", "id": "int", "n": "int", "document": "json", "it's": "longtext",
    }  # fmt: skip
