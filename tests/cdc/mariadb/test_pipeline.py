"""MariaDB → Kafka → Postgres by the commands a user runs; the source is killed on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fix_mariadb_capture import Database
from fix_pipeline import wait_until
from product_pipeline import TABLE, ProductPipeline

INSERT = """
INSERT INTO product (name, price, quantity, weight, made, seen, day, payload, note)
SELECT CONCAT('product ', seq, ' é'), seq / 7, 4294967295 - seq, seq / 3,
       '2026-01-31 10:00:00.000001' + INTERVAL seq SECOND, '2026-03-29 02:30:00.125',
       '2026-12-31', UNHEX(MD5(seq)), 'naïve € note' FROM seq_1_to_{count}
"""


@pytest.fixture
def demo(
    tmp_path: Path, shop: Database, pg_database: str, kafka: Any, registry: Any
) -> Iterator[ProductPipeline]:
    shop.execute(TABLE)
    servers = {"bootstrap": kafka.bootstrap, "registry": registry.url}
    made = ProductPipeline(tmp_path, shop, pg_database, servers)
    yield made
    made.end()


def test_rows_arrive_equal_in_postgres_although_the_source_worker_is_killed(
    demo: ProductPipeline,
) -> None:
    shop = demo.shop
    shop.execute(INSERT.format(count=300))
    demo.start("sink", "copy")
    worker = demo.start("source", demo.source)
    demo.settle()
    shop.execute(
        INSERT.format(count=4_000), "UPDATE product SET price = price + 1 WHERE id % 3 = 0"
    )
    wait_until(lambda: len(demo.target_rows()) > 300, "something of it", 30)
    worker.kill()
    worker.wait()
    shop.execute(
        "DELETE FROM product WHERE id % 5 = 0",
        "UPDATE product SET id = id + 1000000, note = NULL WHERE id % 7 = 0",
        "INSERT INTO product (name) VALUES ('nothing known')",
    )
    demo.start("source", demo.source, "--take-over")
    demo.settle()
    assert len(demo.source_rows()) > 3_000
