"""The whole mapping language on real servers: topic → mapping → rows, letters, counts, a trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
import pytest
import yaml

from cdc.publish import Publisher
from fix_pipeline import wait_until
from fix_sink import Sink, changes, commit, delete, insert, piece, update
from schemas.change import ABSENT, Change, Op
from schemas.table import Column, TableId, TableSchema, Type

if TYPE_CHECKING:
    from fix_cli import Cdc

MakeSink = Callable[..., Sink]
PEOPLE = TableSchema(
    TableId("public", "people"),
    (
        Column("id", Type("int64", "postgres bigint")),
        Column("name", Type("string", "postgres text")),
        Column("born", Type("string", "postgres text")),
        Column("grams", Type("int32", "postgres integer")),
        Column("country", Type("string", "postgres text")),
        Column("attrs", Type("json", "postgres jsonb")),
        Column("state", Type("string", "postgres text")),
        Column("secret", Type("string", "postgres text")),
    ),
    ("id",),
)
ATTRS = b'{"sku": "A1", "size": {"w": 2}}'
GOOD = (b"Ada", b"10.12.1815", b"1500", b"DE", ATTRS, b"paid", b"x")


def person(number: int, **cells: bytes | None) -> tuple[bytes | None, ...]:
    names = [column.name for column in PEOPLE.columns[1:]]
    return (b"%d" % number, *{**dict(zip(names, GOOD, strict=True)), **cells}.values())


def mapping(countries: Path) -> dict[str, Any]:
    return {
        "to": "crm.persons",
        "where": "state != 'draft'",
        "rename": {"id": "person_id"},
        "drop": ["secret"],
        "flatten": {"attrs": ["sku", "size.w"]},
        "fields": {
            "name": {"expr": "name == null ? null : name.trim()"},
            "born": {"from": "born", "as": "date", "format": "%d.%m.%Y"},
            "grams": {"from": "grams", "unit": "g->kg"},
            "country": {"from": "country", "lookup": str(countries), "default": "unknown"},
            "tenant": {"value": "acme"},
        },
        "rules": [
            {"field": "name", "required": True},
            {"field": "grams", "range": [0, 500]},
            {"field": "state", "enum": ["paid", "open"], "on_invalid": "skip"},
            {"field": "attrs_sku", "unique": True},
        ],
    }


class People:
    """A topic of people, and a sink whose mapping uses everything."""

    def __init__(self, publisher: Publisher, make_sink: MakeSink, folder: Path) -> None:
        self._publisher, self._make_sink = publisher, make_sink
        self._commits = 0
        countries = folder / "countries.csv"
        countries.write_text("code,name\nDE,Germany\n")
        pipeline = make_sink().pipeline
        self.topic = pipeline.topic("public.people")
        tables = {self.topic: mapping(countries)}
        self.sink = make_sink(tables=tables)
        self.file = folder / "tailrace.yaml"
        target = {"type": "postgres", "url": self.sink.url, "tables": tables}
        kafka = {"bootstrap": pipeline.kafka.bootstrap, "registry": pipeline.kafka.registry.url}
        sinks = {"mirror": target}
        self.file.write_text(
            yaml.safe_dump({"pipeline": pipeline.name, "kafka": kafka, "sinks": sinks})
        )

    def change(self, *items: Change) -> None:
        """Commit one source transaction."""
        self._commits += 1
        rows = changes(self._commits, *items, schema=PEOPLE)
        commit(self._publisher, piece(self._commits, rows))

    def mapped(self, **options: Any) -> Sink:
        """Start a sink with another mapping of the topic."""
        self.sink = self._make_sink(tables={self.topic: options}).start()
        return self.sink

    def ids(self, *wanted: int) -> None:
        self.sink.wait_for(
            "SELECT person_id FROM crm.persons ORDER BY person_id", [(n,) for n in wanted]
        )


@pytest.fixture
def people(publisher: Publisher, make_sink: MakeSink, tmp_path: Path) -> People:
    return People(publisher, make_sink, tmp_path)


def sku(text: bytes) -> bytes:
    return ATTRS.replace(b"A1", text)


def test_rows_are_mapped_chosen_judged_and_counted(people: People) -> None:
    people.change(
        insert(*person(1, name=b" Ada ")),
        insert(*person(2, state=b"draft", attrs=sku(b"A2"))),
        insert(*person(3, country=b"XX", attrs=sku(b"A3"), grams=None)),
        insert(*person(4, name=None, attrs=sku(b"A4"))),
        insert(*person(5, born=b"soon", attrs=sku(b"A5"))),
        insert(*person(6, state=b"lost", attrs=sku(b"A6"))),
        insert(*person(7)),
    )
    people.sink.start()
    people.sink.wait_for(
        "SELECT person_id, name, born::text, grams::text, country, attrs_sku, attrs_size_w, state, "
        "tenant FROM crm.persons ORDER BY person_id",
        [
            (1, "Ada", "1815-12-10", "1.5", "Germany", "A1", "2", "paid", "acme"),
            (3, "Ada", "1815-12-10", None, "unknown", "A3", "2", "paid", "acme"),
        ],
    )
    pipeline = people.sink.pipeline
    letters = pipeline.read(f"{pipeline.name}.dead")
    reasons = [dict(letter.headers() or [])["cdc.reason"].decode() for letter in letters]
    assert sorted(reasons) == [
        "'soon' is not written as %d.%m.%Y",
        "crm.persons breaks the rule `attrs_sku.unique`: attrs_sku is there twice",
        "crm.persons breaks the rule `name.required`: name is NULL",
    ]
    table = "crm.persons"
    wanted = {(table, "name.required"): 1, (table, "state.enum"): 1, (table, "attrs_sku.unique"): 1}
    wait_until(lambda: people.sink.told.broken == wanted, "every broken rule is counted")


def test_a_row_leaves_the_target_with_the_filter_and_comes_back(people: People) -> None:
    people.change(insert(*person(1)), insert(*person(2, attrs=sku(b"A2"))))
    people.sink.start()
    people.ids(1, 2)
    people.change(update(*person(1, state=b"draft")), update(*person(2, name=b"B")))
    people.ids(2)
    people.change(update(*person(1, state=b"open")), delete(b"2", *[ABSENT] * 7))
    people.ids(1)
    people.sink.wait_for("SELECT state, name FROM crm.persons", [("open", "Ada")])


def test_a_trial_shows_records_before_and_after_and_writes_nothing(
    people: People, cdc: Cdc, tmp_path: Path
) -> None:
    people.change(
        insert(*person(1)), update(*person(1, state=b"draft")), update(*person(1, name=None))
    )
    tried = cdc("map", "try", "--table", "public.people", "-c", str(people.file), "--json").json()
    assert tried["topic"] == people.topic
    assert [one["does"] for one in tried["records"]] == ["upsert", "delete", "dead_letter"]
    first, second, third = tried["records"]
    assert (first["op"], first["before"]["born"], first["after"]["born"]) == (
        "c", "10.12.1815", "1815-12-10",
    )  # fmt: skip
    assert (first["table"], second["after"]) == ("crm.persons", {"person_id": "1"})
    assert "breaks the rule `name.required`" in third["reason"]
    rows = tmp_path / "rows.jsonl"
    given = {"id": 9, "name": "Bo", "born": "1.2.1999", "attrs": {"sku": "B"}, "state": "open"}
    rows.write_bytes(orjson.dumps(given) + b"\n" + orjson.dumps({**given, "state": "lost"}))
    said = cdc(
        "map", "try", "--table", people.topic, "-c", str(people.file), "--records", str(rows)
    )
    assert "c → upsert crm.persons" in said.out
    assert "1999-02-01" in said.out
    assert "c → skip crm.persons" in said.out
    wrong = cdc("map", "try", "--table", "peeple", "-c", str(people.file))
    assert (wrong.code, people.topic in wrong.err) == (2, True)
    pipeline = people.sink.pipeline
    assert pipeline.read(f"{pipeline.name}.dead") == []


def test_a_soft_delete_keeps_the_row_and_a_new_one_of_the_key_revives_it(people: People) -> None:
    sink = people.mapped(to="crm.kept", soft_delete="gone_at", fields={"id": "id", "name": "name"})
    asked = "SELECT id, name, gone_at IS NOT NULL FROM crm.kept ORDER BY id"
    people.change(insert(*person(1)), insert(*person(2)))
    sink.wait_for(asked, [(1, "Ada", False), (2, "Ada", False)])
    people.change(delete(b"1", *[ABSENT] * 7))
    sink.wait_for(asked, [(1, "Ada", True), (2, "Ada", False)])
    people.change(insert(*person(1, name=b"Bo")), insert(*person(3)), delete(b"3", *[ABSENT] * 7))
    sink.wait_for(asked, [(1, "Bo", False), (2, "Ada", False), (3, "Ada", True)])
    assert sink.query("SELECT to_char(gone_at, 'YYYY') FROM crm.kept WHERE id = 3") == [("2023",)]


def test_a_journal_holds_every_change_once_across_restarts(people: People) -> None:
    options: dict[str, Any] = {"mode": "append", "to": "crm.log", "fields": {"who": "name"}}
    sink = people.mapped(**options)
    asked = "SELECT who, cdc_op, cdc_absent, cdc_offset FROM crm.log ORDER BY cdc_offset"
    people.change(insert(*person(1)), update(*person(1, name=b"Bo")))
    sink.wait_for(asked, [("Ada", "c", None, 0), ("Bo", "u", None, 1)])
    sink.stop()
    people.change(delete(b"1", *[ABSENT] * 7), Change(Op.TRUNCATE))
    sink = people.mapped(**options)
    sink.wait_for(f"SELECT count(*), max(cdc_op) FROM ({asked}) AS log", [(4, "u")])
    ops = [(who, op, absent) for who, op, absent, _ in sink.query(asked)]
    assert ops[2:] == [(None, "d", "who"), (None, "t", None)]


def test_a_history_keeps_every_version_across_restarts_and_a_truncation(people: People) -> None:
    options: dict[str, Any] = {
        "mode": "history",
        "to": "crm.versions",
        "fields": {"id": "id", "name": "name", "attrs": "attrs"},
    }
    sink = people.mapped(**options)
    asked = (
        "SELECT id, name, attrs->>'sku', valid_to IS NULL, cdc_until FROM crm.versions "
        "ORDER BY id, cdc_until"
    )
    now = 2**63 - 1
    people.change(insert(*person(1)), insert(*person(2)))
    sink.wait_for(asked, [(1, "Ada", "A1", True, now), (2, "Ada", "A1", True, now)])
    rest = (*GOOD[1:4], ABSENT, *GOOD[5:])
    people.change(update(b"1", b"Bo", *rest), update(b"1", b"Cy", *rest))
    ended = [(1, "Ada", "A1", False, 3), (1, "Bo", "A1", False, 4)]
    sink.wait_for(asked, [*ended, (1, "Cy", "A1", True, now), (2, "Ada", "A1", True, now)])
    sink.stop()
    people.change(delete(b"1", *[ABSENT] * 7), Change(Op.TRUNCATE), insert(*person(1)))
    sink = people.mapped(**options)
    ended.append((1, "Cy", "A1", False, 6))
    sink.wait_for(asked, [*ended, (1, "Ada", "A1", True, now), (2, "Ada", "A1", True, now)])
    assert sink.query("SELECT count(*) FROM crm.versions WHERE valid_from <= valid_to") == [(3,)]
    [letter] = sink.pipeline.read(f"{sink.pipeline.name}.dead")
    assert b"would empty the history" in dict(letter.headers() or [])["cdc.reason"]


def test_two_topics_go_to_one_table_with_a_constant_in_its_key(
    publisher: Publisher, make_sink: MakeSink
) -> None:
    south = msgspec.structs.replace(PEOPLE, table=TableId("south", "people"))
    topics = [make_sink().pipeline.topic(name) for name in ("public.people", "south.people")]
    tables = {
        topic: {
            "to": "crm.everyone",
            "key": ["shop", "id"],
            "fields": {"shop": {"value": shop}, "id": "id", "name": "name"},
        }
        for topic, shop in zip(topics, ("north", "south"), strict=True)
    }
    sink = make_sink(tables=tables).start()
    asked = "SELECT shop, id, name FROM crm.everyone ORDER BY shop, id"
    first = changes(1, insert(*person(1)), insert(*person(2)), schema=PEOPLE)
    second = changes(1, insert(*person(1, name=b"Bo")), schema=south, first=2)
    commit(publisher, piece(1, first, second))
    sink.wait_for(asked, [("north", 1, "Ada"), ("north", 2, "Ada"), ("south", 1, "Bo")])
    gone = changes(2, delete(b"1", *GOOD), schema=PEOPLE)
    commit(publisher, piece(2, gone, changes(2, update(*person(1)), schema=south, first=1)))
    sink.wait_for(asked, [("north", 2, "Ada"), ("south", 1, "Ada")])


def test_a_check_finds_a_mapping_that_does_not_fit_a_table_in_kafka(
    people: People, cdc: Cdc
) -> None:
    people.change(insert(*person(1)))

    def told() -> list[tuple[str, str, str]]:
        found = cdc("check", "sink/mirror", "-c", str(people.file), "--json").json()["findings"]
        rows = [(one["subject"], one["level"], one["message"]) for one in found]
        return [row for row in rows if row[0] in ("mapping", people.topic)]

    assert told() == [("mapping", "ok", "fits the tables that are in Kafka, 1")]
    text = people.file.read_text()
    people.file.write_text(text.replace("name.trim()", "nickname.trim()"))
    [(subject, level, message)] = told()
    assert (subject, level) == (people.topic, "fail")
    assert "fields.name.expr" in message
    assert "names nickname, which is no column" in message
