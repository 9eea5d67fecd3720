"""Tables of every kind: identities, partitions, changes of shape, values the log leaves out."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from cdc.errors import PreflightFailed
from fix_capture import Capture, table_rows
from schemas.change import ABSENT, Op

Db = psycopg.Connection[Any]


def test_all_four_replica_identities_publish_what_they_can(capture: Capture, db: Db) -> None:
    for name in ("usual", "indexed", "whole", "none"):
        db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, code text NOT NULL UNIQUE, n int)")
    db.execute("ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code_key")
    db.execute("ALTER TABLE whole REPLICA IDENTITY FULL")
    db.execute("ALTER TABLE none REPLICA IDENTITY NOTHING")
    capture.until_snapshot_done()
    for name in ("usual", "indexed", "whole", "none"):
        db.execute(f"INSERT INTO {name} VALUES (1, 'a', 1)")
        db.execute(f"UPDATE {name} SET n = 2")
        db.execute(f"DELETE FROM {name}")
    capture.until_caught_up(db)
    found = {n: [(e.op, e.before) for e in capture.of(f"public.{n}")] for n in db_names()}
    assert found == {
        "usual": [(Op.CREATE, None), (Op.UPDATE, None), (Op.DELETE, (b"1", None, None))],
        "indexed": [(Op.CREATE, None), (Op.UPDATE, None), (Op.DELETE, (None, b"a", None))],
        "whole": [
            (Op.CREATE, None),
            (Op.UPDATE, (b"1", b"a", b"1")),
            (Op.DELETE, (b"1", b"a", b"2")),
        ],
        "none": [(Op.CREATE, None)],
    }
    keys = {n: capture.of(f"public.{n}")[0].schema.key for n in db_names()}
    assert keys == {"usual": ("id",), "indexed": ("code",), "whole": ("id",), "none": ("id",)}


def db_names() -> tuple[str, ...]:
    return ("usual", "indexed", "whole", "none")


def test_columns_an_index_merely_includes_are_no_key(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (a int, b int, c text, PRIMARY KEY (b, a) INCLUDE (c))")
    db.execute("INSERT INTO item SELECT i % 7, i, 'x' FROM generate_series(1, 100) i")
    capture.options["chunk_rows"] = 9
    capture.until_snapshot_done()
    db.execute("UPDATE item SET c = 'y' WHERE a = 3")
    capture.until_caught_up(db)
    assert {event.schema.key for event in capture.events} == {("a", "b")}
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_a_table_whose_updates_would_fail_is_refused_and_stays_updatable(
    capture: Capture, db: Db
) -> None:
    db.execute("CREATE TABLE good (id int PRIMARY KEY)")
    db.execute("CREATE TABLE bad (line text)")
    db.execute("INSERT INTO bad VALUES ('x')")
    with pytest.raises(PreflightFailed, match=r"public\.bad") as caught:
        capture.open()
    assert 'ALTER TABLE "public"."bad" REPLICA IDENTITY FULL' in caught.value.hint
    assert "!public.bad" in caught.value.hint
    db.execute("UPDATE bad SET line = 'y'")


def test_a_new_table_without_identity_is_refused_while_the_others_go_on(
    capture: Capture, db: Db
) -> None:
    db.execute("CREATE TABLE good (id int PRIMARY KEY)")
    capture.until_snapshot_done()
    db.execute("CREATE TABLE bad (line text)")
    source = capture.source
    assert source is not None
    capture.until(lambda: "public.bad" in source.status().waiting, "the refusal")
    db.execute("INSERT INTO bad VALUES ('x'); UPDATE bad SET line = 'y'")
    db.execute("INSERT INTO good VALUES (1)")
    capture.until_caught_up(db)
    capture.kill()
    db.execute("INSERT INTO good VALUES (2)")
    capture.until_caught_up(db)
    assert [event.table for event in capture.events] == ["public.good"] * 2
    db.execute("UPDATE bad SET line = 'z'")


def test_tables_are_selected_and_left_out_by_globs(capture: Capture, db: Db) -> None:
    db.execute("CREATE SCHEMA crm; CREATE TABLE crm.client (id int PRIMARY KEY)")
    for name in ("item", "audit_item", "part"):
        db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY)")
        db.execute(f"INSERT INTO {name} VALUES (1)")
    db.execute("INSERT INTO crm.client VALUES (1)")
    capture.options["tables"] = ["public.*", "crm.cl*", "!public.audit_*"]
    capture.until_snapshot_done()
    assert {event.table for event in capture.events} == {
        "public.item",
        "public.part",
        "crm.client",
    }


def test_a_new_table_is_picked_up_whole_while_running(
    capture: Capture, db: Db, pg_database: str
) -> None:
    capture.until_streaming()
    with psycopg.connect(pg_database) as slow:
        slow.execute("CREATE TABLE item (id int PRIMARY KEY)")
        slow.commit()
        slow.execute("INSERT INTO item VALUES (1)")
        capture.until(lambda: "table/public.item" in capture.progress, "the new table")
        db.execute("INSERT INTO item VALUES (2)")
        source = capture.source
        assert source is not None
        capture.until(lambda: "to end" in source.status().waiting, "the writer")
        slow.commit()
    capture.until_snapshot_done()
    capture.until_caught_up(db)
    assert capture.model.rows("public.item") == [(b"1",), (b"2",)]


def test_an_added_column_is_backfilled(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    db.execute("INSERT INTO item SELECT i, 'x' FROM generate_series(1, 500) i")
    capture.until_snapshot_done()
    db.execute("ALTER TABLE item ADD COLUMN price numeric(10,2) DEFAULT 9.50")
    db.execute("INSERT INTO item VALUES (1000, 'new', 1)")
    capture.until_caught_up(db)
    capture.until_snapshot_done()
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")
    assert capture.events[-1].schema.column("price").type.native == "postgres numeric(10,2)"


def test_a_column_added_while_nobody_watched_is_backfilled(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
    db.execute("INSERT INTO item SELECT i, 'x' FROM generate_series(1, 50) i")
    capture.until_snapshot_done()
    capture.kill()
    db.execute("ALTER TABLE item ADD COLUMN n int DEFAULT 3")
    db.execute("INSERT INTO item VALUES (1000, 'new', 1)")
    capture.until_caught_up(db)
    capture.until_snapshot_done()
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_a_changed_type_is_backfilled(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, n int)")
    db.execute("INSERT INTO item SELECT i, i FROM generate_series(1, 50) i")
    capture.until_snapshot_done()
    db.execute("ALTER TABLE item ALTER n TYPE numeric(12,3) USING n + 0.125")
    db.execute("INSERT INTO item VALUES (100, 1)")
    capture.until_caught_up(db)
    capture.until_snapshot_done()
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_a_dropped_column_needs_no_backfill(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text, n int)")
    db.execute("INSERT INTO item VALUES (1, 'x', 1)")
    capture.until_snapshot_done()
    db.execute("ALTER TABLE item DROP COLUMN name")
    db.execute("INSERT INTO item VALUES (2, 2)")
    capture.until_caught_up(db)
    assert [event.row() for event in capture.events][1:] == [{"id": b"2", "n": b"2"}]


@pytest.mark.parametrize("rows", [0, 3])
def test_a_table_made_anew_is_emptied_and_read_again(capture: Capture, db: Db, rows: int) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    db.execute("INSERT INTO item SELECT i FROM generate_series(100, 150) i")
    capture.until_snapshot_done()
    db.execute("DROP TABLE item; CREATE TABLE item (id int PRIMARY KEY, name text)")
    db.execute("INSERT INTO item SELECT i, 'n' FROM generate_series(1, %s) i", (rows,))
    expected = table_rows(db, "SELECT * FROM item")
    capture.until(lambda: capture.model.rows("public.item") == expected, "the new table's rows")
    capture.until_snapshot_done()
    db.execute("INSERT INTO item VALUES (77, 'z')")
    capture.until_caught_up(db)
    capture.until_snapshot_done()
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def big(letter: str) -> str:
    return f"(SELECT string_agg(md5('{letter}' || i), '') FROM generate_series(1, 300) i)"


def test_an_unchanged_large_value_is_absent_and_not_null(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, body text, n int)")
    capture.until_snapshot_done()
    db.execute(f"INSERT INTO item VALUES (1, {big('a')}, 1)")
    db.execute("UPDATE item SET n = 2")
    capture.until_caught_up(db)
    assert capture.events[-1].after == (b"1", ABSENT, b"2")
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_a_key_change_carries_the_large_value_it_left_alone(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, body text, n int)")
    capture.until_snapshot_done()
    db.execute(f"INSERT INTO item VALUES (1, {big('a')}, 1), (2, {big('b')}, 2)")
    db.execute("UPDATE item SET id = id + 10")
    capture.until_caught_up(db)
    for event in capture.events[2:]:
        assert event.after is not None
        assert ABSENT not in event.after
        assert event.before is not None
        assert event.before[1] is ABSENT
    assert [event.stamp.ordinal for event in capture.events[2:]] == [1, 2]
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_full_identity_fills_the_large_value_from_the_old_row(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, body text, n int)")
    db.execute("ALTER TABLE item REPLICA IDENTITY FULL")
    capture.until_snapshot_done()
    db.execute(f"INSERT INTO item VALUES (1, {big('a')}, 1)")
    db.execute("UPDATE item SET id = 2")
    capture.until_caught_up(db)
    assert capture.events[-1].after is not None
    assert ABSENT not in capture.events[-1].after


def test_a_partitioned_table_is_one_table_under_its_root(capture: Capture, db: Db) -> None:
    db.execute(
        "CREATE TABLE item (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)"
    )
    db.execute(
        "CREATE TABLE item_a PARTITION OF item FOR VALUES FROM ('2026-01-01') TO ('2026-07-01')"
    )
    db.execute("INSERT INTO item VALUES (1, '2026-02-03')")
    capture.until_snapshot_done()
    db.execute(
        "CREATE TABLE item_b PARTITION OF item FOR VALUES FROM ('2026-07-01') TO ('2027-01-01')"
    )
    db.execute("INSERT INTO item VALUES (2, '2026-08-01')")
    db.execute("UPDATE item SET day = '2026-09-09' WHERE id = 1")
    capture.until_caught_up(db)
    assert {event.table for event in capture.events} == {"public.item"}
    assert capture.model.rows("public.item") == table_rows(db, "SELECT * FROM item")


def test_children_of_plain_inheritance_are_tables_of_their_own(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE parent (id int PRIMARY KEY)")
    db.execute("CREATE TABLE child (more int, PRIMARY KEY (id)) INHERITS (parent)")
    db.execute("INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 3)")
    capture.until_snapshot_done()
    db.execute("INSERT INTO child VALUES (4, 5)")
    capture.until_caught_up(db)
    assert capture.model.rows("public.parent") == [(b"1",)]
    assert capture.model.rows("public.child") == [(b"2", b"3"), (b"4", b"5")]


def test_stored_generated_columns_are_captured(capture: Capture, db: Db) -> None:
    db.execute(
        "CREATE TABLE item (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)"
    )
    db.execute("INSERT INTO item VALUES (1)")
    capture.until_snapshot_done()
    db.execute("INSERT INTO item VALUES (2)")
    capture.until_caught_up(db)
    assert [event.row() for event in capture.events] == [
        {"id": b"1", "twice": b"2"},
        {"id": b"2", "twice": b"4"},
    ]
    assert capture.events[0].schema == capture.events[1].schema


def test_a_given_publication_decides_columns_and_rows_of_stream_and_snapshot(
    capture: Capture, db: Db
) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, name text, secret text)")
    db.execute("CREATE TABLE other (id int PRIMARY KEY)")
    db.execute("INSERT INTO item SELECT i, 'n', 's' FROM generate_series(-5, 5) i")
    db.execute("CREATE PUBLICATION theirs FOR TABLE item (id, name) WHERE (id > 0), other")
    capture.options.update(publication="theirs", tables=["*.item", "*.absent"])
    capture.until_snapshot_done()
    db.execute("INSERT INTO item VALUES (6, 'n', 's'), (-6, 'n', 's')")
    db.execute("INSERT INTO other VALUES (1)")
    capture.until_caught_up(db)
    assert {event.table for event in capture.events} == {"public.item"}
    wanted = table_rows(db, "SELECT id, name FROM item WHERE id > 0")
    assert capture.model.rows("public.item") == wanted
    assert len({event.schema for event in capture.events}) == 1


def test_a_table_added_to_a_given_publication_or_renamed_is_read_whole(
    capture: Capture, db: Db
) -> None:
    for name in ("item", "late"):
        db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY)")
        db.execute(f"INSERT INTO {name} VALUES (1)")
    db.execute("CREATE PUBLICATION theirs FOR TABLE item")
    capture.options["publication"] = "theirs"
    capture.until_snapshot_done()
    db.execute("ALTER PUBLICATION theirs ADD TABLE late")
    db.execute("INSERT INTO late VALUES (2)")
    db.execute("ALTER TABLE item RENAME TO thing")
    db.execute("INSERT INTO thing VALUES (2)")
    capture.until_caught_up(db)
    capture.until_snapshot_done()
    for name in ("late", "thing"):
        assert capture.model.rows(f"public.{name}") == [(b"1",), (b"2",)]


@pytest.mark.parametrize(("key", "said"), [("nr", "no column nr"), ("line", "old values of line")])
def test_a_key_that_old_rows_would_lack_is_refused(
    capture: Capture, db: Db, key: str, said: str
) -> None:
    db.execute("CREATE TABLE log (id int PRIMARY KEY, line text)")
    capture.options["key"] = {"public.log": [key]}
    with pytest.raises(PreflightFailed, match=said):
        capture.open()


def test_a_key_can_be_named_for_a_table_that_has_none(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE log (id int, line text)")
    db.execute("ALTER TABLE log REPLICA IDENTITY FULL")
    db.execute("INSERT INTO log SELECT i, 'x' FROM generate_series(1, 10) i")
    capture.options["key"] = {"public.log": ["id"]}
    capture.until_snapshot_done()
    db.execute("UPDATE log SET line = 'y' WHERE id = 3")
    capture.until_caught_up(db)
    assert {event.schema.key for event in capture.events} == {("id",)}
    assert capture.model.rows("public.log") == table_rows(db, "SELECT * FROM log")
