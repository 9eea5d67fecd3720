"""One topic into several tables of a sink, on real servers: together, each once, each repaired."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cdc.publish import Publisher
from fix_pipeline import wait_until
from fix_sink import Sink, delete, insert, update
from fix_sink_commands import Mirror
from schemas.change import ABSENT, Change, Op

if TYPE_CHECKING:
    from fix_cli import Cdc

MakeSink = Callable[..., Sink]
PARTS: list[dict[str, Any]] = [
    {"to": "crm.items"},
    {
        "to": "crm.shorts",
        "where": "name != 'hidden'",
        "fields": {"item": "id", "name": {"from": "name", "as": "text"}},
    },
]
NARROW = """
CREATE SCHEMA crm;
CREATE TABLE crm.items (id bigint PRIMARY KEY, name text);
CREATE TABLE crm.shorts (item bigint PRIMARY KEY, name varchar(8));
CREATE TABLE crm.audit (of text, op text, name text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO crm.audit VALUES (TG_TABLE_NAME, TG_OP, NEW.name); RETURN NEW; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON crm.items FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON crm.shorts FOR EACH ROW EXECUTE FUNCTION note();
"""
WIDEN = "ALTER TABLE crm.shorts ALTER COLUMN name TYPE text"
LONG = b"much too long"
ALL = (
    "SELECT 'items', id, name FROM crm.items "
    "UNION ALL SELECT 'shorts', item, name FROM crm.shorts ORDER BY 1, 2"
)
TIMES = "SELECT of, count(*) FROM crm.audit GROUP BY of ORDER BY of"


class Twofold(Mirror):
    """A topic that goes to two tables, the second of which takes short names only."""

    def __init__(self, publisher: Publisher, make_sink: MakeSink, cdc: Cdc, folder: Path) -> None:
        super().__init__(make_sink(), publisher, cdc, folder)
        self._make_sink = make_sink
        self.topic = self.pipeline.topic()
        self.write(PARTS)
        self.execute(NARROW)

    def write(self, parts: list[dict[str, Any]]) -> None:
        """Write the pipeline file, and begin with a new sink."""
        tables = {self.topic: parts}
        self.configure(tables)
        self.sink = self._make_sink(tables=tables)

    def states(self, *arguments: str) -> list[tuple[int, str, str]]:
        """Replay letters; return offset and table of each, and what became of it."""
        known = {one["letter"]: (one["offset"], one["table"]) for one in self.open()}
        told = self.replay(*arguments)
        return sorted((*known[one["letter"]], one["state"]) for one in told)

    def letters(self, count: int) -> None:
        """Wait for as many records in the topic of letters."""
        wait_until(lambda: self.raw() == count, f"{count} letters")


@pytest.fixture
def twofold(publisher: Publisher, make_sink: MakeSink, cdc: Cdc, tmp_path: Path) -> Twofold:
    return Twofold(publisher, make_sink, cdc, tmp_path)


def test_every_kind_of_change_reaches_each_table_in_one_transaction(twofold: Twofold) -> None:
    sink = twofold.sink.start()
    twofold.change(insert(b"1", b"one"), insert(b"2", b"hidden"), insert(b"3", b"three"))
    three = [("items", 1, "one"), ("items", 2, "hidden"), ("items", 3, "three")]
    sink.wait_for(ALL, [*three, ("shorts", 1, "one"), ("shorts", 3, "three")])
    both = "SELECT xmin::text FROM crm.items UNION SELECT xmin::text FROM crm.shorts"
    assert len(sink.query(both)) == 1
    moved = Change(Op.UPDATE, (b"1", None), (b"9", b"one"))
    twofold.change(moved, update(b"2", b"seen"), update(b"3", b"hidden"))
    three = [("items", 2, "seen"), ("items", 3, "hidden"), ("items", 9, "one")]
    sink.wait_for(ALL, [*three, ("shorts", 2, "seen"), ("shorts", 9, "one")])
    twofold.change(delete(b"2", None))
    sink.wait_for(ALL, [*three[1:], ("shorts", 9, "one")])
    twofold.change(Change(Op.TRUNCATE), insert(b"4", b"new"))
    sink.wait_for(ALL, [("items", 4, "new"), ("shorts", 4, "new")])
    assert twofold.open() == []


def test_a_refused_part_is_a_letter_of_its_own_and_is_replayed_alone(twofold: Twofold) -> None:
    twofold.change(insert(b"1", b"short"), insert(b"2", LONG))
    applied = [("items", 1, "short"), ("items", 2, "much too long"), ("shorts", 1, "short")]
    twofold.sink.start().wait_for(ALL, applied)
    [letter] = twofold.pipeline.read(twofold.letter_topic)
    headers: Any = dict(letter.headers() or ())
    assert (headers["cdc.table"], headers["cdc.part"]) == (b"crm.shorts", b"crm.shorts")
    twofold.execute(WIDEN)
    assert twofold.states() == [(1, "crm.shorts", "replayed")]
    assert twofold.sink.query(ALL) == [*applied, ("shorts", 2, "much too long")]
    assert twofold.sink.query(TIMES) == [("items", 2), ("shorts", 2)]


def test_a_letter_is_superseded_by_what_its_own_table_was_given_since(twofold: Twofold) -> None:
    twofold.execute("ALTER TABLE crm.items ADD CHECK (name <> 'refused')")
    twofold.change(insert(b"1", b"refused"), insert(b"2", LONG))
    twofold.sink.start()
    twofold.letters(2)
    twofold.change(update(b"1", LONG), insert(b"3", b"last"))
    rest = [("items", 2, "much too long"), ("items", 3, "last"), ("shorts", 1, "refused")]
    twofold.sink.wait_for(ALL, [("items", 1, "much too long"), *rest, ("shorts", 3, "last")])
    twofold.execute(WIDEN, "ALTER TABLE crm.items DROP CONSTRAINT items_name_check")
    assert twofold.states() == [
        (0, "crm.items", "superseded"),
        (1, "crm.shorts", "replayed"),
        (3, "crm.shorts", "replayed"),
    ]
    shorts = [("shorts", n, "much too long") for n in (1, 2)]
    items = [("items", 1, "much too long"), *rest[:2]]
    assert twofold.sink.query(ALL) == [*items, *shorts, ("shorts", 3, "last")]


def test_a_key_change_that_was_refused_in_one_table_is_replayed_there(twofold: Twofold) -> None:
    twofold.sink.on_poison = "block_key"
    twofold.sink.start()
    twofold.change(insert(b"1", LONG))
    twofold.letters(1)
    twofold.change(Change(Op.UPDATE, (b"1", None), (b"7", b"moved")), insert(b"2", b"free"))
    twofold.letters(3)
    items = [("items", 2, "free"), ("items", 7, "moved")]
    twofold.sink.wait_for(ALL, [*items, ("shorts", 2, "free")])
    twofold.execute(WIDEN)
    assert [told[1:] for told in twofold.states()] == [("crm.shorts", "replayed")] * 3
    assert twofold.sink.query(ALL) == [*items, ("shorts", 2, "free"), ("shorts", 7, "moved")]


def test_a_letter_of_a_table_that_the_mapping_lost_is_not_applied_to_another(
    twofold: Twofold,
) -> None:
    twofold.change(insert(b"1", b"short"), insert(b"2", LONG))
    twofold.sink.start()
    twofold.letters(1)
    twofold.sink.stop()
    twofold.write(PARTS[:1])
    told = twofold.replay()
    assert (told[0]["state"], "no table crm.shorts any more" in told[0]["reason"]) == (
        "refused", True,
    )  # fmt: skip
    twofold.write([PARTS[1]])
    twofold.execute(WIDEN)
    assert twofold.states() == [(1, "crm.shorts", "replayed")]


@pytest.mark.parametrize("point", ["sink.before_commit", "sink.after_commit"])
def test_a_worker_that_is_killed_leaves_each_row_once_in_each_table(
    twofold: Twofold, point: str
) -> None:
    twofold.change(insert(b"1", b"short"), insert(b"2", LONG), insert(b"3", b"hidden"))
    twofold.killed(point, "sink", "mirror")
    twofold.change(insert(b"4", b"later"))
    twofold.sink.start().wait_for(
        "SELECT name FROM crm.items JOIN crm.shorts USING (name) ORDER BY 1",
        [("later",), ("short",)],
    )
    assert twofold.sink.query(TIMES) == [("items", 4), ("shorts", 2)]
    assert [(one["offset"], one["table"]) for one in twofold.open()] == [(1, "crm.shorts")]
    assert twofold.raw() == 1


def test_rows_histories_and_journals_are_kept_side_by_side(twofold: Twofold) -> None:
    twofold.write(
        [
            {"to": "kept.now"},
            {"to": "kept.versions", "mode": "history"},
            {"to": "kept.log", "mode": "append"},
        ]
    )
    sink = twofold.sink.start()
    twofold.change(insert(b"1", b"a"), update(b"1", b"b"), insert(b"2", b"c"))
    twofold.change(Change(Op.UPDATE, (b"1", None), (b"5", ABSENT)), delete(b"2", None))
    sink.wait_for("SELECT id, name FROM kept.now", [(5, "b")])
    asked = "SELECT id, name, valid_to IS NULL FROM kept.versions ORDER BY id, cdc_until"
    assert sink.query(asked) == [(1, "a", False), (1, "b", False), (2, "c", False), (5, "b", True)]
    assert sink.query("SELECT cdc_op, id FROM kept.log ORDER BY cdc_offset") == [
        ("c", 1), ("u", 1), ("c", 2), ("d", 1), ("c", 5), ("d", 2),
    ]  # fmt: skip


def test_a_trial_and_a_check_tell_of_each_table(twofold: Twofold) -> None:
    twofold.change(insert(b"1", b"hidden"), insert(b"2", b"two"))
    tried = twofold.run("map", "try", "--table", "public.items", "--json").json()["records"]
    assert [(one["offset"], one["does"], one["table"]) for one in tried] == [
        (0, "upsert", "crm.items"),
        (0, "delete", "crm.shorts"),
        (1, "upsert", "crm.items"),
        (1, "upsert", "crm.shorts"),
    ]
    assert tried[3]["after"] == {"item": "2", "name": "two"}
    twofold.write([PARTS[0], {"to": "crm.shorts", "fields": {"item": "id", "name": "nought"}}])
    checked = twofold.run("check", "mirror", "--json")
    said = [one for one in checked.json()["findings"] if one["subject"] == twofold.topic]
    assert (checked.code, [one["level"] for one in said]) == (3, ["fail"])
    assert f"tables.{twofold.topic}[1].fields.name" in said[0]["message"]


def test_many_rows_go_to_each_table(twofold: Twofold) -> None:
    rows = [insert(b"%d" % n, b"%d" % n) for n in range(2_000)]
    twofold.change(*rows)
    counts = "SELECT (SELECT count(*) FROM crm.items), (SELECT count(*) FROM crm.shorts)"
    twofold.sink.start().wait_for(counts, [(2_000, 2_000)])
    wait_until(lambda: twofold.sink.told.rows == 4_000, "every row of each table is counted")


def test_a_table_that_is_added_later_stops_the_sink_until_it_is_filled(twofold: Twofold) -> None:
    twofold.write(PARTS[:1])
    twofold.change(insert(b"1", b"before"), insert(b"2", b"gone"))
    twofold.sink.start().wait_for(ALL, [("items", 1, "before"), ("items", 2, "gone")])
    twofold.change(delete(b"2", None))
    twofold.sink.wait_for(ALL, [("items", 1, "before")])
    twofold.sink.stop()
    twofold.write([PARTS[0], {"to": "crm.later"}])
    twofold.change(insert(b"3", b"since"))
    failed = twofold.sink.start().wait_to_fail()
    assert "crm.later" in str(failed)
    assert twofold.sink.query("SELECT to_regclass('crm.later')") == [(None,)]
    rewound = ["sink", "rewind", "mirror", "--to", "earliest", "--topic", twofold.topic]
    assert twofold.run(*rewound).code == 0
    twofold.write([PARTS[0], {"to": "crm.later"}])
    both = "SELECT id, name FROM crm.{} ORDER BY id"
    twofold.sink.start().wait_for(both.format("later"), [(1, "before"), (3, "since")])
    assert twofold.sink.query(both.format("items")) == [(1, "before"), (3, "since")]
