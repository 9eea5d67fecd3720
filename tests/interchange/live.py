"""A sink fed by a live Debezium ends equal to the source, row by row, in every form.

One Kafka Connect runs four connectors on one database, each with a slot of its own and a target
of its own behind it. Run by `make interchange`; tests/interchange/test_recorded.py reads what it
recorded, without a Debezium.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from bench.peers import Connect, versions
from fix_pipeline import Pipeline, wait_until
from fix_sink import Sink
from interchange.forms import FORMS, mapping, rows
from interchange.recording import Recording, ids, keep, written
from interchange.workload import change, make_tables, prepare, prepare_types

HERE = Path(__file__).parent
STARTING_S = 120.0
ARRIVING_S = 60.0


def settings(form: str, url: str, registry: str, name: str) -> dict[str, str]:
    """The connector's configuration for one form."""
    parts = conninfo_to_dict(url)
    values: Mapping[str, object] = {
        "name": name,
        "registry": registry.replace("/apis/ccompat/v7", "/apis/registry/v2"),
        **{part: parts[part] for part in ("port", "user", "password")},
        "database": parts["dbname"],
    }
    lines: list[str] = []
    for file in ("debezium", form):
        text = (HERE / f"{file}.properties").read_text("utf-8")
        lines += Template(text).substitute(values).splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key: value for key, _, value in pairs}


class Side(NamedTuple):
    """One form: the sink that reads it, and its pipeline."""

    sink: Sink
    pipeline: Pipeline

    def letters(self) -> list[str]:
        """Why records became dead letters."""
        found = self.pipeline.read(f"{self.pipeline.name}.dead")
        return [dict(one.headers() or [])["cdc.reason"].decode() for one in found]


class Live(NamedTuple):
    """The source, and what reads each form of it."""

    source: str
    sides: Mapping[str, Side]

    def equal(self, form: str, table: str) -> bool:
        """Tell whether a target holds what the source does."""
        sink = self.sides[form].sink
        if sink.failed is not None:
            raise AssertionError(f"the sink of {form} failed") from sink.failed
        try:
            return rows(self.source, table) == rows(sink.url, table)
        except psycopg.errors.UndefinedTable:
            return False

    def difference(self, form: str, table: str) -> str:
        """The first rows that differ, and the dead letters."""
        side = self.sides[form]
        here, there = set(rows(self.source, table)), set(rows(side.sink.url, table))
        told = f"missing {sorted(here - there)[:2]}, wrong {sorted(there - here)[:2]}"
        return f"{form} {table}: {told[:3000]}; {side.letters()[:3]}; {side.sink.told.errors[-1:]}"


def streaming(db: psycopg.Connection[Any], connect: Connect, names: Iterable[str]) -> bool:
    """Tell whether every connector runs and reads the log."""
    query = "SELECT slot_name FROM pg_replication_slots WHERE active"
    active = {row[0] for row in db.execute(query).fetchall()}
    return active >= set(names) and all(connect.running(name) for name in names)


def a_side(kafka: Any, registry: Any, url: str, name: str, form: str) -> Side:
    """Return a sink of the topics of one connector."""
    pipeline = Pipeline(kafka.bootstrap, registry.url)
    return Side(Sink(pipeline, url, tables=mapping(form, name)), pipeline)


def record(live: Live, form: str, name: str) -> None:
    """Keep what was written in one form."""
    pipeline = live.sides[form].pipeline
    topics = {
        table: [written(one) for one in pipeline.read(f"{name}.public.{table}")]
        for table in FORMS[form]
    }
    schemas = {number: pipeline.registry.get(number) for number in sorted(ids(topics))}
    config = settings(form, live.source, "", name)
    provenance = {
        **versions(),
        "postgres": "18",
        "by": "INTERCHANGE_RECORD=1 make interchange",
        **{key: text for key, text in config.items() if not key.startswith("database.")},
    }
    rows_ = {table: rows(live.source, table) for table in FORMS[form]}
    keep(form, Recording(provenance, topics, rows_, schemas))


@pytest.fixture(scope="module")
def live(
    kafka: Any, registry: Any, postgres: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """Run everything once."""
    mark = secrets.token_hex(3)
    names = {form: f"{form}{mark}" for form in FORMS}
    with ExitStack() as stack:
        urls = {}
        for name in (f"source{mark}", *names.values()):
            urls[name] = postgres.create_database(name)
            stack.callback(postgres.drop_database, name)
            with psycopg.connect(urls[name], autocommit=True) as db:
                prepare_types(db)
                if name == names["avro"]:
                    make_tables(db)
        source = urls[f"source{mark}"]
        db = stack.enter_context(psycopg.connect(source, autocommit=True))
        prepare(db)
        folder = tmp_path_factory.mktemp("connect")
        connect = Connect("source", folder, kafka=kafka.bootstrap, registry=registry.url)
        stack.enter_context(connect)
        sides = {}
        for form, name in names.items():
            connect.configure(name, settings(form, source, registry.url, name))
            sides[form] = a_side(kafka, registry, urls[name], name, form)
            stack.callback(sides[form].pipeline.registry.close)
            stack.callback(sides[form].sink.start().stop)
        wait_until(lambda: streaming(db, connect, names.values()), "Debezium", STARTING_S)
        change(db)
        live = Live(source, sides)
        yield live
        if "INTERCHANGE_RECORD" in os.environ:
            for form, name in names.items():
                record(live, form, name)


CASES = [(form, table) for form, tables in FORMS.items() for table in tables]


@pytest.mark.parametrize(("form", "table"), CASES)
def test_a_sink_fed_by_a_live_debezium_ends_equal_to_the_source(
    live: Live, form: str, table: str
) -> None:
    try:
        wait_until(lambda: live.equal(form, table), f"{form} {table}", ARRIVING_S)
    except AssertionError as error:
        raise AssertionError(live.difference(form, table)) from error


@pytest.mark.parametrize("form", FORMS)
def test_no_record_of_a_live_debezium_became_a_dead_letter(live: Live, form: str) -> None:
    for table in FORMS[form]:
        wait_until(lambda table=table: live.equal(form, table), f"{form} {table}", ARRIVING_S)
    assert live.sides[form].letters() == []
