"""Rows whose values cannot be written: put aside once and whole, or a stop; nothing in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from cdc.brokers import topic_ids
from cdc.columns import ColumnRule
from cdc.errors import Stop
from cdc.publish import PublishConfig, Written
from cdc.quarantine import readable_row
from cdc.routes import Messages, Outgoing, Routes
from cdc.source import Batch
from fix_mariadb_capture import Database
from fix_pipeline import ITEMS, At, Pipeline, wait_until
from schemas.change import ABSENT, UNREADABLE, Change, Form, Op, Origin, Rows, Stamp
from schemas.plan import SourceName

if TYPE_CHECKING:
    from fix_cli import Cdc

BAD = UNREADABLE + b"caf\x81"


def rows_of(*items: Any, form: Form = "changes") -> Rows:
    return Rows(ITEMS, form, Origin(1, 7, 0, "9"), list(items), range(len(items)))


def made(key: bytes, name: bytes) -> Change:
    return Change(Op.CREATE, None, (key, name))


def row(*cells: bytes) -> bytes:
    """A tuple of the log."""
    parts = [b"t" + len(cell).to_bytes(4, "big") + cell for cell in cells]
    return len(cells).to_bytes(2, "big") + b"".join(parts)


def encoded(
    pipeline: Pipeline, rows: Rows, columns: dict[str, ColumnRule] | None = None, **publish: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What a run becomes: its records, and the letters of those of its rows that are put aside."""
    written = Written(PublishConfig.model_validate(publish), columns or {}, "quarantine")
    block = SourceName("test", "test", pipeline.source)
    routes = Routes(pipeline.context, pipeline.kafka, pipeline.registry, block, written)
    out: Messages = {}
    assert routes.encode(rows, 0, out) == len(out[pipeline.topic()].messages)
    letters = out.get(f"{pipeline.name}.quarantine", Outgoing()).messages
    return out[pipeline.topic()].messages, letters


def facts_of(headers: Any) -> dict[str, str]:
    return {name: value.decode() for name, value in headers}


@pytest.mark.parametrize("form", ["avro", "json"])
def test_one_bad_row_is_put_aside_and_its_neighbours_are_not(pipeline: Pipeline, form: str) -> None:
    rows = rows_of(made(b"1", b"a"), made(b"2", BAD), made(b"3", b"c"))
    records, [letter] = encoded(pipeline, rows, format=form)
    alone, _ = encoded(pipeline, rows_of(made(b"1", b"a"), made(b"3", b"c")), format=form)
    assert [record["key"] for record in records] == [record["key"] for record in alone]
    assert letter["key"] == b'{"id":"2"}'
    facts = facts_of(letter["headers"])
    assert facts["cdc.table"] == "public.items"
    assert facts["cdc.topic"] == pipeline.topic()
    assert [facts[f"cdc.{name}"] for name in ("incarnation", "commit", "ordinal")] == [*"171"]
    assert "column name is no text in its character set: 63 61 66 81" in facts["cdc.reason"]


def test_a_row_is_kept_byte_by_byte_and_shown_by_column(pipeline: Pipeline) -> None:
    moved = b"UO" + row(b"1", BAD) + b"N" + row(b"2", b"ok")
    partly = Change(Op.UPDATE, (b"8", ABSENT), (b"8", BAD))
    _, [first] = encoded(pipeline, rows_of(moved, form="pgoutput"))
    _, [second] = encoded(pipeline, rows_of(partly))
    assert first["value"] == moved
    shown = [
        readable_row(facts_of(letter["headers"])["cdc.form"], ["id", "name"], letter["value"])
        for letter in (first, second)
    ]
    assert shown[0] == {
        "op": "u",
        "before": {"id": "1", "name": "caf\\x81"},
        "after": {"id": "2", "name": "ok"},
    }
    assert shown[1]["before"] == {"id": "8"}


def test_without_being_asked_to_it_stops_and_names_the_column(pipeline: Pipeline) -> None:
    publisher = pipeline.publisher()
    publisher.acquire()
    with pytest.raises(Stop, match=r"row of public\.items in transaction 9 .*column name is") as no:
        publisher.add(Batch([rows_of(made(b"1", b"a"), made(b"2", BAD))], At(7), Stamp(1, 7)))
    publisher.close()
    assert "on_undecodable: quarantine" in no.value.hint


@pytest.mark.parametrize(
    "item", [b"IN" + row(b"1"), b"IN" + row(b"1", b"a")[:-1], b"XN"], ids=["width", "torn", "kind"]
)
def test_a_row_that_is_torn_or_of_another_table_stops_whatever_was_asked_for(
    pipeline: Pipeline, item: bytes
) -> None:
    with pytest.raises(Stop, match="cannot be encoded"):
        encoded(pipeline, rows_of(item, form="pgoutput"))


def test_a_column_that_does_not_leave_the_source_puts_no_row_aside(pipeline: Pipeline) -> None:
    rule = {"public.items.name": ColumnRule(drop=True)}
    assert encoded(pipeline, rows_of(made(b"1", BAD)), rule)[1] == []


def test_no_hash_is_made_of_what_is_no_text(pipeline: Pipeline) -> None:
    rule = {"public.items.name": ColumnRule.model_validate({"hash": "pepper"})}
    assert len(encoded(pipeline, rows_of(made(b"1", BAD)), rule)[1]) == 1


class Worker:
    """A source worker as a process, and the commands on its quarantine."""

    def __init__(self, pipeline: Pipeline, folder: Path, cdc: Cdc, source: dict[str, Any]) -> None:
        self.pipeline, self._folder, self._cdc = pipeline, folder, cdc
        self._processes: list[subprocess.Popen[bytes]] = []
        kafka = {"bootstrap": pipeline.kafka.bootstrap, "registry": pipeline.kafka.registry.url}
        options = {"on_undecodable": "quarantine", **source}
        written = {
            "pipeline": pipeline.name,
            "kafka": kafka,
            "metrics": {"port": None},
            "sources": {pipeline.source: options},
        }
        self.file = folder / "tailrace.yaml"
        self.file.write_text(json.dumps(written))

    def start(self, failpoints: str = "") -> subprocess.Popen[bytes]:
        command = ["source", self.pipeline.source, "--take-over", "-c", str(self.file)]
        with (self._folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cdc", *command],
                env={**os.environ, "CDC_FAILPOINTS": failpoints},
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def log(self) -> str:
        return (self._folder / "worker.log").read_text()[-3000:]

    def run(self, *arguments: str) -> Any:
        return self._cdc("dead", *arguments, "-c", str(self.file))

    def open(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.run("list", self.pipeline.source, "--json").json()[
            "letters"
        ]
        return found

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


MakeWorker = Callable[..., Worker]


@pytest.fixture
def worker(pipeline: Pipeline, tmp_path: Path, cdc: Cdc) -> Iterator[MakeWorker]:
    made: list[Worker] = []

    def make(**source: Any) -> Worker:
        made.append(Worker(pipeline, tmp_path, cdc, source))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_a_worker_killed_around_its_commit_puts_each_row_aside_once(
    pipeline: Pipeline, worker: MakeWorker, pg_database: str
) -> None:
    """The key is one the operator chose, and a row has none: a real server's undecodable row."""
    with psycopg.connect(pg_database, autocommit=True) as db:
        db.execute("CREATE TABLE t (id int, v text)")
        db.execute("ALTER TABLE t REPLICA IDENTITY FULL")
        db.execute("INSERT INTO t VALUES (1, 'snapshot'), (NULL, 'bad snapshot')")
        one = worker(type="postgres", url=pg_database, key={"public.t": ["id"]}, heartbeat=0.5)
        topic = pipeline.topic("public.t")
        for turn, point in enumerate(("before_commit", "after_commit")):
            doomed = one.start(f"publish.{point}=kill:{3 + turn}")

            def dead(doomed: subprocess.Popen[bytes] = doomed) -> bool:
                db.execute("INSERT INTO t VALUES (2, 'good'), (NULL, 'bad'), (3, 'good')")
                return doomed.poll() is not None

            wait_until(dead, f"{point}\n{one.log()}", 60)
            assert doomed.returncode == -signal.SIGKILL, one.log()
        one.start()
        found = db.execute("SELECT count(*), count(id) FROM t").fetchone()
    assert found is not None
    total, keyed = found

    wait_until(lambda: len(one.open()) >= total - keyed, f"{total} rows\n{one.log()}", 60)
    assert len(pipeline.read(topic)) == keyed
    told = one.open()
    assert len({(letter["commit"], letter["ordinal"]) for letter in told}) == total - keyed


def test_a_text_that_is_none_in_its_character_set_is_listed_shown_and_dropped(
    pipeline: Pipeline, worker: MakeWorker, shop: Database
) -> None:
    """cp1250 has no character 0x81, and the server keeps it all the same."""
    shop.execute("CREATE TABLE t (id int PRIMARY KEY, note varchar(20) CHARACTER SET cp1250)")
    one = worker(type="mariadb", url=shop.url, tables=[f"{shop.name}.*"], heartbeat=0.2)
    one.start()
    topic = pipeline.topic(f"{shop.name}.t")
    shop.execute("INSERT INTO t VALUES (0, 'first')")
    wait_until(lambda: topic_ids(pipeline.kafka, [topic]), f"the first row\n{one.log()}", 60)
    shop.execute("INSERT INTO t VALUES (1, 'ž'), (7, _cp1250 x'6361668162'), (3, 'after')")
    source = pipeline.source
    [letter] = wait_until(one.open, f"a letter\n{one.log()}", 30)
    assert len(pipeline.read(topic)) == 3
    assert letter["key"] == {"id": "7"}
    assert letter["table"] == f"{shop.name}.t"
    assert "note is no text in its character set: 63 61 66 81 62" in letter["reason"]
    shown = one.run("show", f"source/{source}", letter["letter"], "--json").json()
    assert shown["value"]["after"] == {"id": "7", "note": "caf\\x81b"}
    assert "63 61 66 81 62" in shown["value_hex"]
    refused = one.run("replay", source)
    assert refused.code == 2
    assert "cdc backfill" in refused.err
    assert one.run("drop", source, "--key", "7", "--yes").code == 0
    assert one.run("list", source).out == f"no open letters of source {source}\n"
