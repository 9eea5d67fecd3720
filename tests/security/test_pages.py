"""The grants that the pages of the connectors print are enough: their SQL, run as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.connector import Context, Finding
from cdc.local import LocalPostgres
from cdc.sources.postgres import Config as SourceConfig
from cdc.sources.postgres import check as check_source
from fix_capture import Capture
from fix_pipeline import Pipeline, item_batch
from fix_sink import Sink
from sinks.targets.postgres import Config as SinkConfig
from sinks.targets.postgres import check as check_sink

ROOT = Path(__file__).parents[2]
PASSWORD = "as-printed"
CONTEXT = Context("p", "shopdb")


def printed_grants(page: str) -> tuple[str, str]:
    """Return the page's SQL that makes a role, and the role's name."""
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    [block] = [found for found in blocks if "CREATE ROLE" in found]
    role = re.search(r"CREATE ROLE (\w+)", block)
    assert role is not None
    return block.replace("'…'", f"'{PASSWORD}'"), role[1]


def failed(findings: Iterator[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "fail"]


@pytest.fixture
def server() -> Iterator[LocalPostgres]:
    """Start a server of its own: roles belong to the whole of it."""
    with LocalPostgres(18) as made:
        yield made


def prepared(server: LocalPostgres, database: str, first: str, page: str) -> str:
    """Make the database, run `first` and what the page prints; give the new role's URL."""
    grants, role = printed_grants(page)
    with psycopg.connect(server.create_database(database), autocommit=True) as connection:
        connection.execute(first.encode())
        connection.execute(grants.encode())
    return server.url_of(database, role, PASSWORD)


def test_a_source_works_with_the_grants_of_its_page(server: LocalPostgres) -> None:
    tables = "".join(
        f"CREATE TABLE {name} (id bigint PRIMARY KEY, note text); INSERT INTO {name} VALUES (1);"
        for name in ("orders", "customers")
    )
    url = prepared(server, "shop", tables, "cdc/sources/postgres.md")
    options: dict[str, Any] = {"tables": ["public.*"], "publication": "shop_cdc"}
    config = SourceConfig.model_validate({"url": url, **options})
    assert failed(check_source(CONTEXT, config)) == []
    capture = Capture(url, **options)
    capture.until_snapshot_done()
    with psycopg.connect(server.url_of("shop"), autocommit=True) as connection:
        connection.execute("UPDATE orders SET note = 'changed'")
        capture.until_caught_up(connection)
    capture.kill()
    assert capture.model.rows("public.orders") == [(b"1", b"changed")]
    assert capture.model.rows("public.customers") == [(b"1", None)]


@pytest.mark.parametrize("rules", ["additive", "frozen"])
def test_a_sink_works_with_the_grants_of_its_page(
    server: LocalPostgres, pipeline: Pipeline, rules: str
) -> None:
    there = "CREATE SCHEMA crm;"
    if rules == "frozen":
        there += "CREATE TABLE crm.things (id bigint PRIMARY KEY, name text);"
    url = prepared(server, "warehouse", there, "sinks/targets/postgres.md")
    publisher = pipeline.publisher()
    publisher.acquire()
    publisher.add(item_batch(10, [1, 2]))
    publisher.commit()
    publisher.close()
    tables = {pipeline.topic(): {"to": "crm.things"}}
    config = SinkConfig.model_validate({"url": url, "tables": tables, "schema_changes": rules})
    assert failed(check_sink(CONTEXT, config)) == []
    sink = Sink(pipeline, url, tables=tables, schema_changes=rules).start()
    try:
        sink.wait_for("SELECT id FROM crm.things ORDER BY id", [(1,), (2,)])
    finally:
        sink.stop()
