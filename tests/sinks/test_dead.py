"""Dead letters after they were written: looked at, replayed once, dropped, and what blocks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import TopicPartition as Place

from cdc.errors import Stop
from cdc.kafka import admin_client, producer_client
from cdc.publish import Publisher
from debezium_records import field, struct, with_schema
from fix_pipeline import Pipeline, wait_until
from fix_sink import Sink, as_they_are, delete, insert, update
from fix_sink_commands import Mirror
from schemas.change import Change, Op
from sinks.targets import postgres

if TYPE_CHECKING:
    from fix_cli import Cdc

MakeSink = Callable[..., Sink]
ALL = "SELECT id, name FROM public.items ORDER BY id"
NARROW = """
CREATE TABLE items (id bigint PRIMARY KEY, name varchar(8));
CREATE TABLE audit (op text, id bigint, name text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO audit VALUES (TG_OP, NEW.id, NEW.name); RETURN NEW; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION note();
"""
WIDEN = "ALTER TABLE items ALTER COLUMN name TYPE text"
LONG = b"much too long"
APPLIED = "SELECT count(*) FROM audit WHERE name = 'much too long'"


class Dead(Mirror):
    """A sink whose target takes short names only, and the commands on its letters."""

    def __init__(self, sink: Sink, cdc: Cdc, publisher: Publisher, folder: Path) -> None:
        super().__init__(sink, publisher, cdc, folder)
        self.execute(NARROW)
        self.write()

    def write(self, **options: Any) -> None:
        """Write the pipeline file for a sink with these options."""
        self.configure(as_they_are(self.pipeline), **options)

    def states(self, *arguments: str) -> list[str]:
        """Replay and return what became of each letter."""
        return [one["state"] for one in self.replay(*arguments)]


@pytest.fixture
def dead(
    pipeline: Pipeline, make_sink: MakeSink, publisher: Publisher, cdc: Cdc, tmp_path: Path
) -> Dead:
    return Dead(make_sink(tables=as_they_are(pipeline)), cdc, publisher, tmp_path)


def test_letters_are_listed_and_shown_with_record_bytes_and_reason(dead: Dead) -> None:
    dead.change(insert(b"1", b"short"), insert(b"2", LONG), insert(b"3", LONG))
    dead.sink.start().wait_for(ALL, [(1, "short")])
    listed = dead.run("dead", "list", "mirror", "--json").json()
    [summed] = listed["sums"]
    assert (summed["topic"], summed["letters"], listed["open"]) == (dead.pipeline.topic(), 2, 2)
    assert [one["key"] for one in listed["letters"]] == [{"id": 2}, {"id": 3}]
    assert "too long" in dead.run("dead", "list", "mirror").out
    assert dead.run("dead", "list", "mirror", "--key", "3", "--json").json()["open"] == 1
    shown = dead.run("dead", "show", "mirror", f"{dead.letter_topic}-0-0", "--json").json()
    [record] = [m for m in dead.pipeline.read(dead.pipeline.topic()) if m.offset() == 1]
    assert bytes.fromhex(shown["value_hex"]) == record.value()
    assert bytes.fromhex(shown["key_hex"]) == record.key()
    assert shown["value"]["after"] == {"id": 2, "name": "much too long"}
    assert (shown["state"], shown["offset"]) == ("open", 1)
    assert "too long" in shown["reason"]
    assert "much too long" in dead.run("dead", "show", "mirror", "0").out
    unknown = dead.run("dead", "show", "mirror", "77")
    assert (unknown.code, "no letter 77" in unknown.err) == (2, True)


def test_a_repaired_target_takes_each_letter_once_while_the_sink_works(dead: Dead) -> None:
    dead.change(insert(b"1", b"short"), *(insert(b"%d" % n, LONG) for n in range(2, 6)))
    dead.sink.start().wait_for(ALL, [(1, "short")])
    end = len(dead.pipeline.read(dead.pipeline.topic()))
    refused = dead.run("dead", "replay", "mirror", "--json")
    assert refused.code == 1
    assert {one["state"] for one in refused.json()["letters"]} == {"refused"}
    dead.execute(WIDEN)
    assert dead.states("--limit", "1") == ["replayed"]
    assert dead.states() == ["replayed"] * 3
    assert dead.states() == []
    assert dead.sink.query("SELECT count(*) FROM items") == [(5,)]
    assert dead.sink.query(APPLIED) == [(4,)]
    assert len(dead.pipeline.read(dead.pipeline.topic())) == end
    dead.change(update(b"2", b"newer"))
    dead.sink.wait_for("SELECT name FROM items WHERE id = 2", [("newer",)])


@pytest.mark.parametrize("point", ["sink.before_commit", "sink.after_commit"])
def test_a_replay_that_is_killed_has_applied_once_after_the_next(dead: Dead, point: str) -> None:
    dead.change(insert(b"1", b"short"), insert(b"2", LONG))
    dead.sink.start().wait_for(ALL, [(1, "short")])
    dead.sink.stop()
    dead.execute(WIDEN)
    dead.killed(point, "dead", "replay", "mirror")
    assert len(dead.open()) == 1
    assert dead.states() == ["replayed"]
    assert dead.open() == []
    assert dead.sink.query(APPLIED) == [(1,)]


def test_a_letter_whose_row_was_changed_since_is_superseded_and_can_be_dropped(dead: Dead) -> None:
    dead.change(insert(b"1", LONG), insert(b"2", LONG), insert(b"3", LONG))
    dead.sink.start()
    wait_until(lambda: dead.raw() == 3, "the letters")
    dead.change(insert(b"1", b"newer"), delete(b"2", None))
    dead.sink.wait_for(ALL, [(1, "newer")])
    dead.execute(WIDEN)
    assert dead.states() == ["superseded", "superseded", "replayed"]
    dead.sink.wait_for(ALL, [(1, "newer"), (3, "much too long")])
    assert "add --yes" in dead.run("dead", "drop", "mirror").out
    assert len(dead.open()) == 2
    assert dead.run("dead", "drop", "mirror", "--yes").code == 0
    assert dead.open() == []
    assert dead.run("dead", "show", "mirror", "0", "--json").json()["state"] == "dropped"


def test_a_truncation_supersedes_the_letters_before_it(dead: Dead) -> None:
    dead.change(insert(b"1", LONG))
    dead.change(insert(b"2", b"gone"))
    dead.sink.start().wait_for(ALL, [(2, "gone")])
    dead.change(Change(Op.TRUNCATE, None, None))
    dead.sink.wait_for(ALL, [])
    dead.execute(WIDEN)
    assert dead.states() == ["superseded"]


def test_a_tombstone_supersedes_the_letter_of_an_unwrapped_row_before_it(
    pipeline: Pipeline, dead: Dead
) -> None:
    identity, name = field("id", "int64"), field("name", "string")
    producer = producer_client(pipeline.kafka)

    def write(number: int, text: str | None) -> None:
        key = with_schema(struct(identity), {"id": number})
        row = with_schema(struct(identity, name), {"id": number, "name": text})
        value = None if text is None else json.dumps(row)
        producer.produce(pipeline.topic(), value, json.dumps(key))
        producer.flush(10)

    dead.change(insert(b"9", b"ours"))
    write(1, LONG.decode())
    write(2, LONG.decode())
    dead.sink.start().wait_for(ALL, [(9, "ours")])
    wait_until(lambda: dead.raw() == 2, "the letters")
    write(1, None)
    write(3, "short")
    dead.sink.wait_for(ALL, [(3, "short"), (9, "ours")])
    dead.execute(WIDEN)
    assert dead.states() == ["superseded", "replayed"]


def test_a_change_the_sink_applies_during_the_replay_is_not_overwritten(
    dead: Dead, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead.change(insert(b"1", LONG), insert(b"2", b"short"))
    dead.sink.start().wait_for(ALL, [(2, "short")])
    dead.execute(WIDEN)
    passed: list[str] = []

    def meanwhile(name: str) -> None:
        if threading.current_thread() is threading.main_thread():
            passed.append(name)
            if passed == ["sink.before_stage"]:
                dead.change(insert(b"1", b"newer"))
                dead.sink.wait_for(ALL, [(1, "newer"), (2, "short")])

    monkeypatch.setattr(postgres, "failpoint", meanwhile)
    assert dead.states() == ["superseded"]
    assert dead.sink.query(ALL) == [(1, "newer"), (2, "short")]


def test_a_letter_whose_record_left_the_topic_is_not_applied(dead: Dead) -> None:
    dead.change(insert(b"1", LONG))
    dead.change(insert(b"2", b"short"))
    dead.sink.start().wait_for(ALL, [(2, "short")])
    dead.execute(WIDEN)
    admin, place = admin_client(dead.pipeline.kafka), Place(dead.pipeline.topic(), 0, 2)
    admin.delete_records([place])[place].result(10)
    told = dead.replay()
    assert told[0]["state"] == "superseded"
    assert "no longer holds its record" in told[0]["reason"]


def test_a_record_that_still_cannot_be_read_stays_a_letter(pipeline: Pipeline, dead: Dead) -> None:
    dead.change(insert(b"1", b"short"))
    producer = producer_client(pipeline.kafka)
    producer.produce(pipeline.topic(), b"garbage", b"key")
    producer.flush(10)
    dead.change(insert(b"2", b"short"))
    dead.sink.start().wait_for("SELECT count(*) FROM items", [(2,)])
    assert dead.states() == ["refused"]
    assert len(dead.open()) == 1


def test_block_key_keeps_the_order_of_a_key_across_a_restart(
    dead: Dead, make_sink: MakeSink
) -> None:
    dead.write(on_poison="block_key")
    dead.sink.on_poison = "block_key"
    dead.change(insert(b"1", LONG), insert(b"2", b"free"))
    dead.sink.start().wait_for(ALL, [(2, "free")])
    dead.sink.stop()
    again = make_sink(tables=as_they_are(dead.pipeline))
    again.on_poison = "block_key"
    dead.change(update(b"1", b"two"), update(b"1", b"three"), insert(b"3", b"free"))
    again.start().wait_for(ALL, [(2, "free"), (3, "free")])
    reasons = [one["reason"] for one in dead.open()]
    assert ["waits behind" in reason for reason in reasons] == [False, True, True]
    late = dead.replay("1")
    assert late[0]["state"] == "held"
    assert dead.states() == ["refused"] * 3
    dead.execute(WIDEN)
    assert dead.states() == ["replayed"] * 3
    again.wait_for("SELECT name FROM items WHERE id = 1", [("three",)])
    dead.change(update(b"1", b"four"))
    again.wait_for("SELECT name FROM items WHERE id = 1", [("four",)])
    assert dead.open() == []


def test_dropping_the_letters_of_a_blocked_key_lets_it_go_on(dead: Dead) -> None:
    dead.sink.on_poison = "block_key"
    dead.change(insert(b"1", LONG), insert(b"2", b"free"))
    dead.sink.start().wait_for(ALL, [(2, "free")])
    assert dead.run("dead", "drop", "mirror", "--yes").code == 0
    dead.change(insert(b"1", b"anew"))
    dead.sink.wait_for(ALL, [(1, "anew"), (2, "free")])


def test_stop_names_the_record_and_a_repaired_target_takes_it(
    dead: Dead, make_sink: MakeSink
) -> None:
    dead.sink.on_poison = "stop"
    dead.change(insert(b"1", b"short"), insert(b"2", LONG))
    failed = dead.sink.start().wait_to_fail()
    assert isinstance(failed, Stop)
    assert f"{dead.pipeline.topic()}[0] at offset 1" in str(failed)
    assert "on_poison: dead_letter" in failed.hint
    assert dead.sink.query(ALL) == []
    dead.execute(WIDEN)
    again = make_sink(tables=as_they_are(dead.pipeline))
    again.on_poison = "stop"
    again.start().wait_for(ALL, [(1, "short"), (2, "much too long")])
    assert dead.open() == []


@pytest.mark.parametrize(
    "point", ["sink.before_letters", "sink.after_letters", "sink.after_commit"]
)
def test_a_worker_killed_around_its_letters_leaves_each_once(
    dead: Dead, make_sink: MakeSink, point: str
) -> None:
    dead.change(insert(b"1", b"short"), insert(b"2", LONG), insert(b"3", LONG))
    dead.killed(point, "sink", "mirror")
    make_sink(tables=as_they_are(dead.pipeline)).start().wait_for(ALL, [(1, "short")])
    dead.change(insert(b"4", b"later"))
    dead.sink.wait_for(ALL, [(1, "short"), (4, "later")])
    assert dead.raw() == 2
    assert [one["offset"] for one in dead.open()] == [1, 2]


def test_a_letter_is_repaired_by_an_expression_and_applied(dead: Dead) -> None:
    dead.change(insert(b"1", b"short"), insert(b"2", LONG), insert(b"3", LONG))
    dead.sink.start().wait_for(ALL, [(1, "short")])
    wrong = dead.run("dead", "replay", "mirror", "--fix", '{"id": 9}')
    assert (wrong.code, "id is a column of the key" in wrong.err) == (2, True)
    still = dead.run(
        "dead", "replay", "mirror", "--key", "3", "--fix", '{"name": name + "!"}', "--json"
    )
    assert [one["state"] for one in still.json()["letters"]] == ["refused"]
    assert dead.states("--key", "3", "--fix", '{"name": name.substring(0, 4)}') == ["replayed"]
    assert dead.sink.query(ALL) == [(1, "short"), (3, "much")]
    assert [one["key"] for one in dead.open()] == [{"id": 2}]
