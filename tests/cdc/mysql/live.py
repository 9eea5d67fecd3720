"""A MySQL source against a real server. Run by `make mysql`, which fetches one.

`test_recorded.py` is what `make test` runs instead, without a server.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fix_mariadb_capture import Database
from mysql_capture import TABLE, MyCapture, equal, numbers, selected_rows, writers
from mysql_server import RELEASE, RealMySQL, known
from mysql_values import DOCUMENTS, SINCE, VALUES

Make = Callable[..., MyCapture]


def test_every_type_is_the_same_in_a_snapshot_in_the_log_and_in_select(
    server: RealMySQL, shop: Database, capture: MyCapture
) -> None:
    shop.execute("SET sql_mode = 'ALLOW_INVALID_DATES'")
    values = {kind: told for kind, told in VALUES.items() if SINCE.get(kind, ()) <= RELEASE}
    documents = [told for told in DOCUMENTS if SINCE.get(told, ()) <= RELEASE]
    columns = ", ".join(f"c{place} {kind}" for place, kind in enumerate(values))
    shop.execute(f"CREATE TABLE every (id int PRIMARY KEY, {columns})")
    shop.execute("CREATE TABLE doc (id int AUTO_INCREMENT PRIMARY KEY, j json)")

    def insert(first: int) -> None:
        for place, told in enumerate(values.values()):
            for number, value in enumerate(told):
                key = first + place * 10 + number
                shop.execute(f"INSERT INTO every (id, c{place}) VALUES ({key}, {value})")
        shop.execute(f"INSERT INTO doc (j) VALUES ({'), ('.join(documents)})")

    insert(0)
    capture.until_read()
    insert(10_000)
    capture.until_caught_up()
    counts = {"every": 2 * sum(map(len, values.values())), "doc": 2 * len(documents)}
    for table, count in counts.items():
        found = [
            tuple(row.values()) for row in capture.model.tables[f"{shop.name}.{table}"].values()
        ]
        assert sorted(found, key=repr) == selected_rows(server, shop, table)
        assert len(found) == count
        assert {event.snapshot for event in capture.events_of(table)} == {True, False}


def test_partial_json_is_whole(server: RealMySQL, shop: Database, capture: MyCapture) -> None:
    shop.execute("CREATE TABLE doc (id int PRIMARY KEY, j json)")
    shop.execute(
        """INSERT INTO doc VALUES (1, '{"a": [1, 2, {"k": "a long text"}], "bb": 1.50}')"""
    )
    capture.until_read()
    shop.execute(
        "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'",
        "UPDATE doc SET j = JSON_SET(j, '$.a[1]', 'two', '$.c', CAST('2024-01-02' AS DATE))",
        "UPDATE doc SET j = JSON_ARRAY_INSERT(j, '$.a[0]', JSON_OBJECT('z', 1.50))",
        "UPDATE doc SET j = JSON_REMOVE(j, '$.a[2]')",
    )
    capture.until_caught_up()
    assert capture.model.rows(f"{shop.name}.doc") == selected_rows(server, shop, "doc")
    assert len(capture.events) == 4


@pytest.mark.parametrize("flushes", [1, 0])
def test_a_snapshot_under_writes_ends_equal(
    server: RealMySQL, shop: Database, make: Make, flushes: int
) -> None:
    """With slow commits a transaction is long in the log before the tables have it."""
    server.execute(f"SET GLOBAL sync_binlog = {flushes}")
    shop.execute(TABLE, f"INSERT INTO t {numbers(2_000)}")
    for _ in range(4):
        capture = make(chunk_rows=40)
        under = writers(server, shop.name)
        capture.until_read_under(under)
        assert equal(capture)
        assert under.done > 100
        capture.kill()


def test_a_killed_source_repeats_no_event_and_loses_none(
    server: RealMySQL, shop: Database, make: Make
) -> None:
    shop.execute(TABLE, f"INSERT INTO t {numbers(500)}")
    capture = make(chunk_rows=100, memory=2_000)
    with writers(server, shop.name, 2):
        for life in range(12):
            for _ in range(life):
                capture.step(0.02)
            capture.kill()
    compressed = known((8, 0, 20), "SET SESSION binlog_transaction_compression = ON")
    shop.execute(*compressed, "BEGIN")
    shop.execute(f"INSERT IGNORE INTO t {numbers(30_000, 10_000)}", "COMMIT")
    for _ in range(20):
        capture.step()
        capture.kill()
    capture.until_read()
    capture.until_caught_up()
    assert equal(capture)
    streamed = [event.stamp for event in capture.events if not event.snapshot]
    assert len(set(streamed)) == len(streamed)
    assert streamed == sorted(streamed)


@pytest.mark.since(8, 3)
def test_tagged_and_compressed_transactions_arrive_once(shop: Database, capture: MyCapture) -> None:
    shop.execute(TABLE)
    capture.until_read()
    shop.execute("INSERT INTO t VALUES (1, 0)", "SET GTID_NEXT = 'AUTOMATIC:blue'")
    shop.execute("INSERT INTO t VALUES (2, 0)", "INSERT INTO t VALUES (3, 0)")
    capture.until_caught_up()
    capture.kill()
    shop.execute("INSERT INTO t VALUES (4, 0)", "SET GTID_NEXT = 'AUTOMATIC'")
    shop.execute("SET SESSION binlog_transaction_compression = ON")
    shop.execute(f"INSERT INTO t {numbers(3_000, 100)}", "UPDATE t SET n = n + 1")
    capture.until_caught_up()
    assert ":blue:1-3" in (capture.position or {})["gtid"]
    assert equal(capture)
    assert len(capture.events) == 4 + 3_000 + 3_004


def test_tables_that_are_emptied_and_altered_end_equal(shop: Database, capture: MyCapture) -> None:
    shop.execute(TABLE, "INSERT INTO t VALUES (1, 1), (2, 2)")
    capture.until_read()
    shop.execute("TRUNCATE t", "INSERT INTO t VALUES (3, 3)")
    shop.execute("ALTER TABLE t ADD COLUMN more int DEFAULT 7", "UPDATE t SET more = 8")
    capture.until_caught_up()
    capture.until_read()
    assert capture.model.rows(f"{shop.name}.t") == [(b"3", b"3", b"8")]


@pytest.mark.since(8, 0, 21)
def test_a_table_that_is_made_with_its_rows_arrives(shop: Database, capture: MyCapture) -> None:
    shop.execute(TABLE, "INSERT INTO t VALUES (3, 3)")
    capture.until_read()
    shop.execute("CREATE TABLE made (id int PRIMARY KEY, n int) AS SELECT id, n FROM t")
    capture.until_caught_up()
    capture.until_read()
    assert capture.model.rows(f"{shop.name}.made") == [(b"3", b"3")]


def test_a_backfill_reads_a_table_again(shop: Database, capture: MyCapture) -> None:
    shop.execute(TABLE, f"INSERT INTO t {numbers(10)}")
    capture.until_read()
    assert capture.source is not None
    capture.source.command("backfill", {"table": f"{shop.name}.t", "where": "id > 7"})
    capture.until(lambda: len(capture.events) == 13, "three rows")


def test_a_table_without_a_key_is_read_whole(shop: Database, make: Make) -> None:
    shop.execute("CREATE TABLE t (id int, n int)", f"INSERT INTO t {numbers(500)}")
    capture = make(chunk_rows=100)
    capture.step()
    shop.execute("INSERT INTO t VALUES (9, 1)", "DELETE FROM t WHERE id = 7")
    capture.until_read()
    capture.until_caught_up()
    assert capture.rows_left("t").total() == len(shop.execute("SELECT * FROM t"))


def test_never_begins_with_the_log(shop: Database, make: Make) -> None:
    shop.execute(TABLE, "INSERT INTO t VALUES (1, 0)")
    capture = make(snapshot="never")
    capture.until_read()
    shop.execute("INSERT INTO t VALUES (2, 0)")
    capture.until_caught_up()
    assert [event.row()["id"] for event in capture.events] == [b"2"]


def test_only_reads_what_is_there_and_is_done(shop: Database, make: Make) -> None:
    shop.execute(TABLE, f"INSERT INTO t {numbers(500)}")
    capture = make(snapshot="only", chunk_rows=200)
    capture.ends_behind_the_snapshot(500, "INSERT INTO t VALUES (1000, 0)")


@pytest.mark.since(9, 6)
def test_rows_that_a_cascade_deletes_arrive(shop: Database, capture: MyCapture) -> None:
    """The server carries it out above the engine since 9.6, and logs it."""
    shop.execute(TABLE, "INSERT INTO t VALUES (1, 0), (2, 0)")
    shop.execute(
        "CREATE TABLE child (id int PRIMARY KEY, parent int, "
        "FOREIGN KEY (parent) REFERENCES t (id) ON DELETE CASCADE)",
        "INSERT INTO child VALUES (10, 1), (20, 2)",
    )
    capture.until_read()
    shop.execute("DELETE FROM t WHERE id = 1")
    capture.until_caught_up()
    assert capture.model.rows(f"{shop.name}.child") == [(b"20", b"2")]
