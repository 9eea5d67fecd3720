"""What we write with `format: json` beside what a live Debezium wrote of the same changes.

The changes are done again here, and each record of ours is compared with the recorded one. The
list of what may differ, and why, is `NORMALISED`; it is on the page `schemas/connect.md` as well.
"""

from __future__ import annotations

import struct
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

import schemas
from cdc.connector import Context
from fix_pipeline import Pipeline, wait_until
from fix_sink import Sink
from interchange.forms import FORMS, mapping, rows
from interchange.recording import Recording, Written, load, written
from interchange.workload import change, prepare, prepare_types
from interchange.writing import writing
from schemas.connect_types import UNAVAILABLE

PAGE = Path(schemas.__file__).with_name("connect.md").read_text("utf-8")
MISSING = (UNAVAILABLE, "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==", [UNAVAILABLE])

Rule = Callable[[Any, Any], bool]


def _number(value: Any) -> Decimal:
    unscaled = int.from_bytes(b64decode(value["value"]), "big", signed=True)
    return Decimal(unscaled).scaleb(-value["scale"])


def _same_number(mine: Any, theirs: Any) -> bool:
    pair = isinstance(mine, dict) and isinstance(theirs, dict)
    return pair and "scale" in mine and _number(mine) == _number(theirs)


def _same_single(mine: Any, theirs: Any) -> bool:
    if not (isinstance(mine, float) and isinstance(theirs, float)):
        return False
    return struct.pack("<f", mine) == struct.pack("<f", theirs)


NORMALISED: dict[str, Rule] = {
    "filled": lambda mine, theirs: theirs in MISSING and mine not in MISSING,
    "zeros": _same_number,
    "single": _same_single,
    "infinity": lambda mine, theirs: (
        (mine, theirs) in ((-2_147_472_692, -622_191_234), (-2_147_472_691, -625_821_272))
    ),
}
OURS = {"source": {"version", "snapshot", "sequence", "ts_ms", "ts_us", "ts_ns", "txId", "lsn"}}
"""What tells of the run, and not of the change."""


class Beside:
    """Compares records; `used` counts the normalisations."""

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()
        self.different: list[str] = []

    def record(self, place: str, mine: Written, theirs: Written) -> None:
        if mine.key != theirs.key:
            self.different.append(f"{place}: key {mine.key!r} is not {theirs.key!r}")
        headers = [one for one in theirs.headers if not one[0].startswith("__debezium.context.")]
        if mine.headers != headers:
            self.different.append(f"{place}: headers {mine.headers} are not {headers}")
        if mine.value is None or theirs.value is None:
            if mine.value != theirs.value:
                self.different.append(f"{place}: {mine.value!r} is not {theirs.value!r}")
            return
        one, other = orjson.loads(mine.value), orjson.loads(theirs.value)
        if "schema" in other:
            head = theirs.value.partition(b',"payload":')[0]
            if not mine.value.startswith(head):
                self.different.append(f"{place}: another schema")
            one, other = one["payload"], other["payload"]
        self._payload(place, one, other)

    def _payload(self, place: str, mine: dict[str, Any], theirs: dict[str, Any]) -> None:
        if list(mine) != list(theirs) or list(mine["source"]) != list(theirs["source"]):
            self.different.append(f"{place}: other fields")
        for name, value in theirs["source"].items():
            if name not in OURS["source"] and mine["source"][name] != value:
                self.different.append(f"{place}: source.{name} {mine['source'][name]!r}")
        if mine["op"] != theirs["op"]:
            self.different.append(f"{place}: {mine['op']} is not {theirs['op']}")
        for side in ("before", "after"):
            self._row(f"{place}.{side}", mine[side], theirs[side])

    def _row(self, place: str, mine: Any, theirs: Any) -> None:
        if mine is None or theirs is None:
            if mine is not theirs:
                self.different.append(f"{place}: {mine!r} is not {theirs!r}")
            return
        for name in theirs.keys() | mine.keys():
            if mine.get(name) != theirs.get(name) or repr(mine.get(name)) != repr(theirs[name]):
                self._value(f"{place}.{name}", mine.get(name), theirs.get(name))

    def _value(self, place: str, mine: Any, theirs: Any) -> None:
        rule = next((name for name, holds in NORMALISED.items() if holds(mine, theirs)), "")
        if rule:
            self.used[rule] += 1
        else:
            self.different.append(f"{place}: {str(mine)[:200]!r} is not {str(theirs)[:200]!r}")


def known(records: list[Written]) -> list[Written]:
    """Without the tombstones that have no key and so remove nothing; we write none."""
    return [one for one in records if one.key is not None or one.value is not None]


def as_recorded(pipeline: Pipeline, recording: Recording) -> str:
    """Name the source as Debezium was, so that topics and schemas have the same names.

    Return the name of the database that Debezium read.
    """
    pipeline.source = recording.provenance["name"]
    pipeline.context = Context(pipeline.name, pipeline.source)
    value = orjson.loads(recording.topics["moves"][0].value or b"")
    return str(value.get("payload", value)["source"]["db"])


def captured(pipeline: Pipeline, form: str, source: str, database: str) -> None:
    """Do the changes again, and write them as JSON."""
    publish = {"format": "json", "json_schemas": form == "json"}
    tables = [f"public.{table}" for table in FORMS[form]]
    with psycopg.connect(source, autocommit=True) as db:
        prepare_types(db)
        prepare(db)
        with writing(pipeline, source, publish, database, tables=tables) as life:
            life.until_streaming()
            life.until_caught_up(db)
            change(db)
            life.until_caught_up(db)


def compared(pipeline: Pipeline, recording: Recording, tables: tuple[str, ...]) -> Beside:
    beside = Beside()
    for table in tables:
        mine = [written(one) for one in pipeline.read(pipeline.topic(f"public.{table}"))]
        theirs = known(recording.topics[table])
        for number, (one, other) in enumerate(zip(mine, theirs, strict=False)):
            beside.record(f"{table}[{number}]", one, other)
        if len(mine) != len(theirs):
            beside.different.append(f"{table}: {len(mine)} records, and not {len(theirs)}")
    return beside


@pytest.mark.parametrize("form", ["json", "bare"])
def test_each_record_is_the_one_debezium_wrote_and_a_sink_reads_it_back(
    form: str, pipeline: Pipeline, fresh_database: Callable[[], str], make_sink: Any
) -> None:
    recording, source = load(form), fresh_database()
    captured(pipeline, form, source, as_recorded(pipeline, recording))
    beside = compared(pipeline, recording, FORMS[form])
    assert beside.different == []
    assert set(beside.used) == ({"filled"} if form == "bare" else set(NORMALISED))
    sink: Sink = make_sink(tables=mapping(form, pipeline.source))
    with psycopg.connect(sink.url, autocommit=True) as db:
        prepare_types(db)
    sink.start()

    def equal(table: str) -> bool:
        assert sink.failed is None
        try:
            return rows(sink.url, table) == rows(source, table)
        except psycopg.errors.UndefinedTable:
            return False

    for table in FORMS[form]:
        wait_until(lambda table=table: equal(table), f"{form} {table}", 60.0)
    assert sum(batch.dead for batch in sink.told.batches) == 0


def test_the_page_says_why_for_everything_that_may_differ() -> None:
    assert [name for name in NORMALISED if f"| `{name}` |" not in PAGE] == []
