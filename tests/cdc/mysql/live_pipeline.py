"""MySQL → Kafka → Postgres by the commands a user runs; the source is killed on the way.

Run by `make mysql`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fix_mariadb_capture import Database
from mysql_server import RealMySQL, known
from product_pipeline import COLUMNS, TABLE, ProductPipeline

INSERT = """
INSERT INTO product (name, price, quantity, weight, made, seen, day, payload, note, facts)
WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {count})
SELECT /*+ SET_VAR(cte_max_recursion_depth=1M) */
       CONCAT('product ', i, ' é'), i / 7, 4294967295 - i, i / 3,
       '2026-01-31 10:00:00.000001' + INTERVAL i SECOND, '2026-03-29 02:30:00.125',
       '2026-12-31', UNHEX(LEFT(SHA2(i, 256), 40)), 'naïve € note',
       JSON_OBJECT('n', i, 'half', i / 2)
FROM s
"""


class MyPipeline(ProductPipeline):
    """`ProductPipeline` on MySQL, with a document in each row."""

    type = "mysql"
    columns = f"{COLUMNS}, facts"

    def source_rows(self) -> list[tuple[Any, ...]]:
        return [(*row[:-1], json.loads(row[-1])) for row in super().source_rows()]


@pytest.fixture
def pair(tmp_path: Path, pg_database: str, kafka: Any, registry: Any) -> Iterator[MyPipeline]:
    with RealMySQL() as server:
        url = server.create_database("shop")
        with closing(server.connect("shop")) as connection:
            shop = Database(url, connection)
            shop.execute(TABLE, "ALTER TABLE product ADD facts json")
            servers = {"bootstrap": kafka.bootstrap, "registry": registry.url}
            made = MyPipeline(tmp_path, shop, pg_database, servers)
            yield made
            made.end()


def test_rows_arrive_equal_in_postgres_although_the_source_worker_is_killed(
    pair: MyPipeline,
) -> None:
    shop = pair.shop
    shop.execute(INSERT.format(count=300))
    pair.start("sink", "copy")
    worker = pair.start("source", pair.source)
    pair.settle()
    shop.execute(
        *known((8, 0, 20), "SET SESSION binlog_transaction_compression = ON"),
        INSERT.format(count=4_000),
        *known((8, 3), "SET GTID_NEXT = 'AUTOMATIC:night'"),
        "UPDATE product SET price = price + 1 WHERE id % 3 = 0",
        "SET GTID_NEXT = 'AUTOMATIC'",
    )
    worker.kill()
    worker.wait()
    shop.execute(
        "SET SESSION binlog_row_image = 'MINIMAL'",
        INSERT.format(count=200),
        "UPDATE product SET price = 0 WHERE id % 7 = 0",
        "UPDATE product SET id = id + 100000 WHERE id % 13 = 0",
        "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'",
        "UPDATE product SET facts = JSON_SET(facts, '$.n', -1) WHERE id % 5 = 0",
        "DELETE FROM product WHERE id % 11 = 0",
    )
    pair.start("source", pair.source, "--take-over")
    pair.settle()
    assert len(pair.target_rows()) > 3_000
