"""Logs of a real MySQL whose rows have some of their columns only (R6). Run by `make mysql`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc.errors import PreflightFailed
from fix_mariadb_capture import Database
from mysql_capture import MyCapture, selected_rows, writers
from mysql_server import RealMySQL
from schemas.change import Op

Make = Callable[..., MyCapture]

TABLE = (
    "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 5, big blob, "
    "note varchar(9) NOT NULL DEFAULT 'abc', at timestamp(6) DEFAULT current_timestamp(6), "
    "twice int AS (n * 2) STORED, other json, facts json)"
)
PARTS = "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'"
CHANGES = (
    "UPDATE t SET facts = JSON_SET(facts, '$.a', n) WHERE id = {one}",
    "UPDATE t SET big = REPEAT('x', 300), n = n + 1 WHERE id = {one}",
    "UPDATE t SET note = 'other' WHERE id BETWEEN {one} AND {one} + 30",
)


def same(capture: MyCapture, server: RealMySQL) -> bool:
    """Whether a consumer has the table's rows, every column of them."""
    shop = capture.database
    found = capture.model.tables.get(f"{shop.name}.t", {}).values()
    have = sorted((tuple(row.values()) for row in found), key=repr)
    return have == selected_rows(server, shop, "t")


@pytest.mark.parametrize(
    ("image", "lacks"),
    [
        (
            "MINIMAL",
            [
                {"big", "note", "at", "other", "facts"},
                {"n", "big", "at", "twice", "other", "facts"},
                {"n", "note", "at", "twice", "other", "facts"},
            ],
        ),
        ("NOBLOB", [{"big"}, {"big"}, set()]),
    ],
)
def test_what_an_update_leaves_alone_is_absent_and_a_create_is_whole(
    server: RealMySQL, shop: Database, capture: MyCapture, image: str, lacks: list[set[str]]
) -> None:
    shop.execute(TABLE)
    shop.execute("""INSERT INTO t (id, big, facts) VALUES (1, 'x', '{"a": 1}'), (2, 'y', '[]')""")
    capture.until_read()
    shop.execute(
        f"SET SESSION binlog_row_image = '{image}'",
        "INSERT INTO t (id) VALUES (3)",
        "UPDATE t SET n = 7 WHERE id = 1",
        "UPDATE t SET note = 'z' WHERE id = 1",
        "UPDATE t SET big = 'large' WHERE id = 1",
        "UPDATE t SET id = 20 WHERE id = 2",
        "REPLACE INTO t (id, n) VALUES (3, 9)",
        "DELETE FROM t WHERE id = 3",
        "INSERT INTO t (id, facts) VALUES (4, NULL)",
    )
    capture.until_caught_up()
    assert same(capture, server)
    assert capture.absent("t", Op.UPDATE)[:3] == lacks
    assert capture.absent("t", Op.UPDATE)[3] == set()  # the key was changed: a delete and a create
    assert all(names == set() for names in capture.absent("t", Op.CREATE)[1:])


@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB"])
def test_changes_of_a_document_that_was_not_logged_are_read_again(
    server: RealMySQL, shop: Database, capture: MyCapture, image: str
) -> None:
    shop.execute(TABLE)
    shop.execute("""INSERT INTO t (id, facts) VALUES (1, '{"a": [1, 2], "b": "long enough"}')""")
    shop.execute(
        "INSERT INTO t (id, facts) SELECT 2, facts FROM t", "INSERT INTO t (id) VALUES (3)"
    )
    capture.until_read()
    shop.execute(
        f"SET SESSION binlog_row_image = '{image}'",
        PARTS,
        "UPDATE t SET facts = JSON_SET(facts, '$.a[1]', 'two')",
        "UPDATE t SET facts = JSON_REMOVE(facts, '$.a[0]'), id = id + 10 WHERE id = 1",
        "UPDATE t SET facts = JSON_SET(facts, '$.b', 'long enough'), n = 8 WHERE id = 2",
        "UPDATE t SET facts = JSON_ARRAY_APPEND(facts, '$.a', n)",
    )
    capture.until_caught_up()
    assert same(capture, server)
    left = [names for names in capture.absent("t", Op.UPDATE) if "facts" in names]
    assert len(left) == (image == "MINIMAL")  # that of a row whose key was changed before we looked


def test_a_row_that_is_gone_stays_as_it_came_and_its_delete_follows(
    server: RealMySQL, shop: Database, capture: MyCapture
) -> None:
    shop.execute(TABLE)
    shop.execute("""INSERT INTO t (id, facts) VALUES (2, '{"a": 1, "b": "long enough"}')""")
    capture.until_read()
    shop.execute(
        "SET SESSION binlog_row_image = 'MINIMAL'",
        PARTS,
        "INSERT INTO t (id) VALUES (1)",
        "UPDATE t SET facts = JSON_SET(facts, '$.a', 2) WHERE id = 2",
        "DELETE FROM t",
    )
    capture.until_caught_up()
    assert capture.absent("t", Op.CREATE) == [{"n", "big", "note", "other", "facts"}]
    assert capture.absent("t", Op.UPDATE) == [{"n", "big", "note", "at", "twice", "other", "facts"}]
    assert same(capture, server)


@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB"])
def test_a_snapshot_under_writes_ends_equal(
    server: RealMySQL, shop: Database, make: Make, image: str
) -> None:
    """A row that stays behind in its chunk is brought whole by the update that touched it."""
    server.execute("SET GLOBAL sync_binlog = 1")
    shop.execute(TABLE)
    shop.execute(
        "INSERT INTO t (id, big, facts) WITH RECURSIVE s (i) AS "
        "(SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 2000) "
        "SELECT /*+ SET_VAR(cte_max_recursion_depth=1M) */ i, REPEAT('b', 200), "
        "JSON_OBJECT('a', i, 'b', 'long enough for parts') FROM s"
    )
    before = (f"SET SESSION binlog_row_image = '{image}'", PARTS)
    for _ in range(3):
        capture = make(chunk_rows=40)
        under = writers(server, shop.name, before=before, more=CHANGES)
        capture.until_read_under(under)
        assert same(capture, server)
        assert under.done > 100
        capture.kill()


def test_a_create_that_cannot_be_looked_up_stops_it(shop: Database, capture: MyCapture) -> None:
    shop.execute("CREATE TABLE t (a enum('x', 'y') PRIMARY KEY, b int NOT NULL DEFAULT 5)")
    capture.until_read()
    shop.execute("SET SESSION binlog_row_image = 'MINIMAL'", "INSERT INTO t (a) VALUES ('y')")
    with pytest.raises(PreflightFailed, match="cannot be looked up") as found:
        capture.until_caught_up()
    assert "binlog_row_image = 'FULL'" in found.value.hint


def test_updates_and_deletes_of_a_table_without_a_key_are_whole(
    shop: Database, capture: MyCapture
) -> None:
    shop.execute("CREATE TABLE t (a int, b int)", "INSERT INTO t VALUES (1, 1), (2, 2)")
    capture.until_read()
    shop.execute(
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "UPDATE t SET b = 9 WHERE a = 1",
        "DELETE FROM t WHERE a = 2",
    )
    capture.until_caught_up()
    assert capture.rows_left("t") == {(b"1", b"9"): 1}
