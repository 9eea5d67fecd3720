"""A MySQL source driven as the worker drives it, and what its tests compare it with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from cdc.connector import Finding
from cdc.decode.gtid import Intervals
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.connection import Login, quoted
from cdc.mariadb.selecting import asked, reader
from cdc.mysql.position import Position
from cdc.mysql.server import MySQL
from cdc.source import Source
from cdc.sources import mysql
from fix_mariadb_capture import Database, MariaCapture
from mariadb_writers import Writers
from mysql_server import RealMySQL
from schemas.table import TableId

TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL)"


class MyCapture(MariaCapture):
    """`MariaCapture` on MySQL."""

    def config(self) -> Any:
        return mysql.Config.model_validate(self.options)

    def open(self) -> Source:
        return self.opened(mysql.create(self.context(), self.config()))

    def stored(self) -> Position:
        return Position.decode(self.position or {})

    def until_caught_up(self, _: Any = None) -> None:
        [(end,)] = self.database.execute("SELECT @@GLOBAL.gtid_executed")
        wanted = Intervals.parse(end)

        def there() -> bool:
            position = self.position or {}
            known = Intervals.parse(position.get("gtid", ""))
            return known.covers(wanted) and position["complete"] >= position["commit"]

        self.until(there, f"the log's end, {end}")

    def findings(self) -> dict[str, Finding]:
        return {found.subject: found for found in mysql.check(self.context(), self.config())}


def writers(
    server: RealMySQL,
    database: str,
    count: int = 4,
    before: Sequence[str] = (),
    more: Sequence[str] = (),
) -> Writers:
    """Sessions that insert, update, delete and move rows of `t`.

    Each begins with `before`; `more` are further statements about the row {one}.
    """

    def change(dice: random.Random) -> str:
        one, other = dice.randrange(2_000), dice.randrange(2_000)
        return dice.choice(
            [
                f"INSERT INTO t (id, n) VALUES ({one}, 0) ON DUPLICATE KEY UPDATE n = n + 1",
                f"UPDATE t SET n = n + 1 WHERE id = {one}",
                f"UPDATE t SET n = n + 1 WHERE id BETWEEN {one} AND {one + 50}",
                f"DELETE FROM t WHERE id = {one}",
                f"UPDATE IGNORE t SET id = {other} WHERE id = {one}",
                *(statement.format(one=one) for statement in more),
            ]
        )

    return Writers(server, database, change, count, before)


def rows(shop: Database) -> list[tuple[bytes, ...]]:
    return sorted((b"%d" % id_, b"%d" % n) for id_, n in shop.execute("SELECT id, n FROM t"))


def equal(capture: MyCapture) -> bool:
    return capture.model.rows(f"{capture.database.name}.t") == rows(capture.database)


def numbers(count: int, first: int = 1) -> str:
    return (
        f"WITH RECURSIVE s (i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM s "
        f"WHERE i < {first + count - 1}) SELECT /*+ SET_VAR(cte_max_recursion_depth=1M) */ i, 0 "
        "FROM s"
    )


def selected_rows(server: RealMySQL, shop: Database, table: str) -> list[tuple[Any, ...]]:
    """What SELECT gives, in the form of a record."""
    with closing(server.connect(shop.name)) as connection:
        connection.use_unicode = False
        connection.decoders = {}
        facts = Catalog(connection, Login("", ""), MySQL()).find(TableId(shop.name, table))
        assert facts is not None
        columns = [found.column for found in facts.columns]
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {asked(columns)} FROM {quoted(table)}")
            found = cursor.fetchall()
    texts = reader(columns)
    return sorted((tuple(texts(row)) for row in found), key=repr)
