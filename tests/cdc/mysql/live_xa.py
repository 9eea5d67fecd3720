"""XA transactions of a real MySQL: what leaves, when, and beside snapshots. Run by `make mysql`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pymysql
import pytest

from cdc.errors import SourceUnavailable
from fix_mariadb_capture import Database
from mysql_capture import TABLE as NUMBERED
from mysql_capture import MyCapture, equal, numbers
from mysql_server import RealMySQL
from xa_stories import (
    TABLE,
    XaStories,
    XaWriters,
    end,
    ids,
    prepare,
    streams_what_was_prepared_before,
)

Make = Callable[..., MyCapture]


@pytest.fixture
def begun(shop: Database, capture: MyCapture) -> MyCapture:
    """A source that has read what was there of a table, nothing."""
    shop.execute(TABLE)
    capture.until_read()
    capture.until_caught_up()
    return capture


class TestMySQL(XaStories):
    pass


@pytest.mark.since(8, 0, 29)
@pytest.mark.parametrize("detached", ["ON", "OFF"])
def test_it_may_stay_with_its_session_or_not(
    shop: Database, begun: MyCapture, detached: str
) -> None:
    shop.execute(f"SET SESSION xa_detach_on_prepare = {detached}")
    for number in (1, 2):
        shop.execute("XA START 'a'", f"INSERT INTO t VALUES ({number}, 1)", "XA END 'a'")
        shop.execute("XA PREPARE 'a'")
        begun.until_caught_up()
        shop.execute("XA COMMIT 'a'" if number == 1 else "XA ROLLBACK 'a'")
    begun.until_caught_up()
    assert ids(begun) == [1]


@pytest.mark.since(8, 3)
def test_tagged_and_compressed_ones_are_read_again_from_the_log(
    shop: Database, begun: MyCapture, server: RealMySQL
) -> None:
    shop.execute("SET GTID_NEXT = 'AUTOMATIC:blue'", "INSERT INTO t VALUES (1, 0)")
    shop.execute("SET SESSION binlog_transaction_compression = ON")
    shop.execute("XA START 'a'", f"INSERT INTO t {numbers(3_000, 100)}", "XA END 'a'")
    shop.execute("XA PREPARE 'a'", "SET GTID_NEXT = 'AUTOMATIC'", "INSERT INTO t VALUES (2, 0)")
    server.execute("FLUSH BINARY LOGS")
    begun.until_caught_up()
    begun.kill()
    shop.execute("XA COMMIT 'a'", "INSERT INTO t VALUES (3, 0)")
    shop.execute("SET SESSION binlog_transaction_compression = OFF")
    begun.until_caught_up()
    assert ids(begun) == [1, 2, *range(100, 3_100), 3]
    assert equal(begun)


def test_a_stream_alone_has_what_was_prepared_before_it_began(
    shop: Database, make: Make, server: RealMySQL
) -> None:
    streams_what_was_prepared_before(make(snapshot="never"), server, shop)


def test_a_snapshot_need_not_wait_for_what_was_prepared_before_the_source_began(
    shop: Database, capture: MyCapture, server: RealMySQL
) -> None:
    shop.execute(TABLE, "INSERT INTO t VALUES (1, 1)")
    prepare(server, shop, "early", "UPDATE t SET n = 2", "INSERT INTO t VALUES (2, 2)")
    capture.until_read()
    capture.until_caught_up()
    assert capture.model.rows(f"{shop.name}.t") == [(b"1", b"1")]
    end(capture, "XA COMMIT 'early'")
    capture.until_caught_up()
    assert capture.same("t", "id, n")


def test_what_was_prepared_before_the_server_was_killed_leaves_when_it_is_committed(
    own: RealMySQL,
) -> None:
    url = own.create_database("shop")
    with closing(own.connect("shop")) as connection:
        capture = MyCapture(Database(url, connection))
        capture.database.execute(TABLE)
        capture.until_read()
        prepare(own, capture.database, "a", "INSERT INTO t VALUES (1, 1)")
        capture.until_caught_up()
    own.kill()
    with pytest.raises(SourceUnavailable):
        capture.until(lambda: False, "the end of the log")
    capture.kill()
    own.start()
    own.execute("XA COMMIT 'a'", "INSERT INTO shop.t VALUES (2, 2)")
    with closing(own.connect("shop")) as connection:
        capture.database.connection = connection
        capture.until_caught_up()
        assert ids(capture) == [1, 2]
        assert equal(capture)
        capture.kill()


@pytest.mark.since(8, 0, 30)
def test_a_server_killed_in_the_midst_of_them_is_gone_on_from(own: RealMySQL) -> None:
    """What it had logged of an XA COMMIT and not carried out, it carries out when it comes back."""
    url = own.create_database("shop")
    own.execute("USE shop", NUMBERED, f"INSERT INTO shop.t {numbers(999)}")
    with closing(own.connect("shop")) as connection:
        capture = MyCapture(Database(url, connection), chunk_rows=100)
    for _ in range(4):
        writers = XaWriters(own, "shop", 6).start()
        for _ in range(10):
            capture.step()
        own.kill()
        failed = writers.stopped()
        assert all(isinstance(error, pymysql.Error) for error in failed)
        capture.kill()
        own.start()
    for kind, size, _, data in own.execute("XA RECOVER CONVERT XID"):
        own.execute(f"XA COMMIT X'{data[2 : 2 + 2 * size]}',X'{data[2 + 2 * size :]}',{kind}")
    with closing(own.connect("shop")) as connection:
        capture.database.connection = connection
        capture.until_read()
        capture.until_caught_up()
        assert equal(capture)
        capture.kill()


@pytest.mark.parametrize(
    "settings",
    [
        ("sync_binlog = 1",),
        ("sync_binlog = 0",),
        ("binlog_order_commits = OFF",),
        ("sync_binlog = 0", "binlog_group_commit_sync_delay = 5000"),
    ],
)
def test_a_snapshot_under_xa_transactions_ends_equal(
    server: RealMySQL, shop: Database, make: Make, settings: tuple[str, ...]
) -> None:
    """The last have a commit in the log for 5 ms before the tables have it."""
    server.execute(*(f"SET GLOBAL {setting}" for setting in settings))
    shop.execute(NUMBERED, f"INSERT INTO t {numbers(999)}")
    try:
        for _ in range(4):
            capture = make(chunk_rows=20)
            writers = XaWriters(server, shop.name)
            capture.until_read_under(writers)
            assert equal(capture)
            assert writers.done > 50
            capture.kill()
    finally:
        server.execute("SET GLOBAL sync_binlog = 1", "SET GLOBAL binlog_order_commits = ON")
        server.execute("SET GLOBAL binlog_group_commit_sync_delay = 0")


def test_a_table_without_a_key_ends_equal_under_xa_transactions(
    server: RealMySQL, shop: Database, make: Make
) -> None:
    shop.execute("CREATE TABLE t (id int NOT NULL, n int NOT NULL, UNIQUE KEY (id))")
    shop.execute(f"INSERT INTO t {numbers(999)}")
    capture = make(chunk_rows=100)
    with XaWriters(server, shop.name):
        for _ in range(10):
            capture.step()
    capture.until_read()
    capture.until_caught_up()
    there = shop.execute("SELECT id, n FROM t")
    wanted = sorted(tuple(b"%d" % cell for cell in cells) for cells in there)
    assert sorted(capture.rows_left("t").elements()) == wanted
