"""A server that dies and comes back, and values larger than a packet of its protocol."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pymysql
import pytest

from cdc.errors import SourceUnavailable
from cdc.local import LocalMariaDB
from fix_mariadb_capture import Database, MariaCapture, database_of

LARGE = 20 << 20
"""Bytes of a value: more than the 16 MiB of one packet."""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalMariaDB]:
    """A server of this module's own, which it may kill."""
    with LocalMariaDB(
        settings={"max_allowed_packet": "64M", "innodb_log_file_size": "256M"}
    ) as own:
        yield own


@pytest.fixture
def own(server: LocalMariaDB) -> Iterator[Database]:
    with database_of(server, server.create_database("own")) as database:
        yield database
    server.drop_database("own")


def test_a_value_larger_than_a_packet_arrives_whole(own: Database) -> None:
    own.execute("CREATE TABLE t (id int PRIMARY KEY, data longblob)")
    with MariaCapture(own) as maria:
        maria.until_read()
        own.execute(f"INSERT INTO t VALUES (1, REPEAT('x', {LARGE})), (2, 'y')")
        own.execute(f"INSERT INTO t VALUES (3, REPEAT('z', {(1 << 24) - 60}))")
        maria.until_caught_up()
        sizes = [len(event.row()["data"]) for event in maria.events]
    assert sizes == [2 + 2 * LARGE, 4, 2 + 2 * ((1 << 24) - 60)]


def test_a_server_killed_while_it_writes_loses_and_repeats_nothing(
    own: Database, server: LocalMariaDB
) -> None:
    own.execute("CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, note varchar(200))")

    def write() -> None:
        insert = "INSERT INTO t (note) SELECT REPEAT('x', 100) FROM seq_1_to_500"
        with (
            suppress(pymysql.Error),
            closing(server.connect("own")) as connection,
            connection.cursor() as cursor,
        ):
            while True:
                cursor.execute(insert)

    with MariaCapture(own) as maria:
        maria.until_read()
        writer = threading.Thread(target=write)
        writer.start()
        maria.until(lambda: len(maria.events) > 5_000, "rows")
        server.server.kill()
        writer.join()
        with pytest.raises(SourceUnavailable):
            maria.until(lambda: False, "the loss of the server")
        maria.kill()
        server.server.restart()
        with database_of(server, own.url) as again:
            maria.database = again
            again.execute("INSERT INTO t (note) VALUES ('after')")
            maria.until_caught_up()
            assert maria.same("t", "id, note")
        stamps = [event.stamp for event in maria.events]
        assert stamps == sorted(set(stamps))
        assert len(maria.events) == len(maria.model.rows("own.t"))


def test_what_was_prepared_before_the_server_was_killed_leaves_when_it_is_committed(
    own: Database, server: LocalMariaDB
) -> None:
    own.execute("CREATE TABLE x (id int PRIMARY KEY)")
    with MariaCapture(own) as maria:
        maria.until_read()
        own.execute("XA START 'a'", "INSERT INTO x VALUES (1)", "XA END 'a'", "XA PREPARE 'a'")
        maria.until_caught_up()
        server.server.kill()
        with pytest.raises(SourceUnavailable):
            maria.until(lambda: False, "the end of the log")
        maria.kill()
        server.server.restart()
        server.execute("XA COMMIT 'a'", "INSERT INTO own.x VALUES (2)")
        with database_of(server, own.url) as maria.database:
            maria.until_caught_up()
        assert [event.row() for event in maria.events] == [{"id": b"1"}, {"id": b"2"}]


def test_a_chunk_has_what_the_log_sent_before_the_server_carried_it_out(
    own: Database, server: LocalMariaDB
) -> None:
    """Under semi-synchronous replication a commit waits between the log and the tables."""
    own.execute("CREATE TABLE y (id int PRIMARY KEY, n int)", "INSERT INTO y VALUES (1, 0)")
    with MariaCapture(own) as maria:
        maria.until_read()
        server.execute(
            "SET GLOBAL rpl_semi_sync_master_timeout = 60000",
            "SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC'",
            "SET GLOBAL rpl_semi_sync_master_enabled = ON",
        )
        late = threading.Thread(target=own.execute, args=("UPDATE y SET n = 1",))
        late.start()
        maria.until(lambda: len(maria.events) == 2, "the update")
        assert maria.source is not None
        maria.source.command("backfill", {"table": "own.y"})
        maria.until(lambda: "not committed all" in maria.said(), "the reason")
        server.execute("SET GLOBAL rpl_semi_sync_master_enabled = OFF")
        late.join()
        maria.until_read()
        assert maria.same("y", "id, n")
