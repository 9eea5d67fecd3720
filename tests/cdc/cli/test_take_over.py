"""`cdc position take-over`: from the offset of a Debezium connector to a source that streams."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

import cdc.postgres
from cdc.config import parse_pipeline
from fix_cli import Cdc
from fix_pipeline import Pipeline
from interchange.writing import writing

PAGE = Path(cdc.postgres.__file__).with_name("debezium.md").read_text("utf-8")
GIVEN = {"slot": "debezium", "publication": "dbz_publication", "snapshot": "never"}


@pytest.fixture
def left(pg_database: str, pipeline: Pipeline, tmp_path: Path) -> Callable[[], Path]:
    """What a stopped connector leaves: slot, publication, three rows it wrote, and its offset."""
    with psycopg.connect(pg_database, autocommit=True) as db:
        db.execute("CREATE TABLE item (id int PRIMARY KEY)")
        db.execute("CREATE PUBLICATION dbz_publication FOR ALL TABLES")
        db.execute("SELECT pg_create_logical_replication_slot('debezium', 'pgoutput')")
        db.execute("INSERT INTO item SELECT n FROM generate_series(1, 3) n")
        row = db.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
        assert row is not None
        db.execute("INSERT INTO item VALUES (4)")
    offset = {"lsn": row[0], "lsn_proc": row[0], "lsn_commit": row[0], "messageType": "COMMIT"}
    stored = {"offsets": [{"partition": {"server": "shop"}, "offset": offset}]}

    def write() -> Path:
        kafka = {"bootstrap": pipeline.kafka.bootstrap, "registry": pipeline.kafka.registry.url}
        source = {"type": "postgres", "url": pg_database, **GIVEN}
        file = {"pipeline": pipeline.name, "kafka": kafka, "sources": {pipeline.source: source}}
        (tmp_path / "tailrace.yaml").write_text(json.dumps(file))
        (tmp_path / "offsets.json").write_text(json.dumps(stored))
        return tmp_path / "offsets.json"

    return write


def test_a_source_takes_over_where_debezium_stopped_and_only_once(
    left: Callable[[], Path],
    pipeline: Pipeline,
    pg_database: str,
    cdc: Cdc,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offsets, source = left(), pipeline.source
    monkeypatch.setenv("CDC_CONFIG", str(offsets.with_name("tailrace.yaml")))
    would = cdc("position", "take-over", source, str(offsets))
    assert would.code == 0
    assert would.out.endswith("--yes to do it\n")
    assert cdc("position", "show", source, "--json").json()["position"] is None
    done = cdc("position", "take-over", source, str(offsets), "--yes", "--json").json()
    assert cdc("position", "show", source, "--json").json()["position"] == done["position"]
    again = cdc("position", "take-over", source, str(offsets), "--yes")
    assert (again.code, "has a position of its own" in again.err) == (2, True)
    publish = {"format": "json"}
    with (
        psycopg.connect(pg_database, autocommit=True) as db,
        writing(pipeline, pg_database, publish, tables=["public.item"], **GIVEN) as life,
    ):
        db.execute("INSERT INTO item VALUES (5)")
        life.until_caught_up(db)
    found = pipeline.read(pipeline.topic("public.item"))
    assert [orjson.loads(one.value() or b"")["after"]["id"] for one in found] == [4, 5]


def test_a_file_that_is_missing_or_no_offset_is_named(
    left: Callable[[], Path], pipeline: Pipeline, cdc: Cdc, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = left()
    monkeypatch.setenv("CDC_CONFIG", str(offsets.with_name("tailrace.yaml")))
    missing = cdc("position", "take-over", pipeline.source, "nowhere.json")
    assert (missing.code, "nowhere.json: No such file" in missing.err) == (2, True)
    offsets.write_text("{}")
    wrong = cdc("position", "take-over", pipeline.source, str(offsets))
    assert (wrong.code, "/connectors/NAME/offsets" in wrong.err) == (2, True)


def test_the_pipeline_of_the_page_is_valid() -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    block = "\n".join(line[3:] for line in found[1].splitlines())
    head = 'pipeline: p\nkafka: {bootstrap: "a:1", registry: "http://a:1"}\n'
    url = {"SHOPDB_URL": "postgresql://app:secret@db/shop"}
    config: Any = parse_pipeline(head + block, Path("page.yaml"), url).sources["shop"].config
    assert (config.slot, config.publication, config.snapshot) == tuple(GIVEN.values())
