"""A MySQL source goes on at a promoted replica, or says what it lacks. Run by `make mysql`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from cdc.errors import GapError
from fix_mariadb_capture import Database
from mysql_capture import TABLE, MyCapture, equal, numbers
from mysql_server import PASSWORD, READER, WRITER, RealMySQL, known
from xa_stories import ids, prepare


class Pair:
    """A server, one that replicates it, and a source that reads the first."""

    def __init__(self, primary: RealMySQL, replica: RealMySQL, shop: Database) -> None:
        self.primary, self.replica = primary, replica
        self.shop = shop
        self.capture = MyCapture(shop, chunk_rows=20)

    def follow(self, purged: str = "") -> None:
        """Begin to replicate; what is in `purged` came with a backup, which is empty here."""
        self.replica.execute(
            f"DROP USER {READER}@'%', {WRITER}@'%'",
            "RESET BINARY LOGS AND GTIDS",
            f"SET GLOBAL gtid_purged = '{purged}'",
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', "
            f"SOURCE_PORT = {self.primary.port}, SOURCE_USER = '{READER}', "
            f"SOURCE_PASSWORD = '{PASSWORD}', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1",
            "START REPLICA",
        )

    def catch_up(self) -> None:
        """Wait until the replica has applied what the primary has."""
        [(end,)] = self.primary.execute("SELECT @@GLOBAL.gtid_executed")
        [(late,)] = self.replica.execute(f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{end}', 60)")
        assert late == 0

    def publish(self) -> None:
        """Read all that is there, and end."""
        self.capture.until_read()
        self.capture.until_caught_up()
        self.capture.kill()

    def publish_more_than_replicated(self) -> None:
        """Publish two rows, the second of which the replica lacks."""
        self.follow()
        self.shop.execute(TABLE, "INSERT INTO t VALUES (1, 0)")
        self.catch_up()
        self.replica.execute("STOP REPLICA")
        self.shop.execute("INSERT INTO t VALUES (2, 0)")
        self.publish()

    @contextmanager
    def promoted(self) -> Iterator[Database]:
        """From here on the replica is written to itself, and read by the source."""
        self.replica.execute("STOP REPLICA")
        url = self.shop.url.replace(str(self.primary.port), str(self.replica.port))
        with closing(self.replica.connect("shop")) as connection:
            self.capture.options["url"] = url
            self.capture.database = Database(url, connection)
            yield self.capture.database
            self.capture.kill()


@pytest.fixture
def pair(own: RealMySQL) -> Iterator[Pair]:
    url = own.create_database("shop")
    with RealMySQL("--server-id=2") as replica, closing(own.connect("shop")) as connection:
        made = Pair(own, replica, Database(url, connection))
        yield made
        made.capture.kill()


def test_a_promoted_replica_is_followed_without_loss_or_repetition(pair: Pair) -> None:
    pair.follow()
    shop, capture = pair.shop, pair.capture
    shop.execute(TABLE, f"INSERT INTO t {numbers(200)}")
    capture.until(lambda: len(capture.events) >= 40, "the first rows")
    assert len(capture.events) < 200
    tagged = known((8, 3), "SET GTID_NEXT = 'AUTOMATIC:blue'")
    shop.execute(*tagged, "UPDATE t SET n = 1 WHERE id % 7 = 0")
    shop.execute("SET GTID_NEXT = 'AUTOMATIC'", "DELETE FROM t WHERE id % 5 = 0")
    capture.step()
    capture.kill()
    shop.execute("INSERT INTO t VALUES (1000, 0)", "UPDATE t SET id = id + 5000 WHERE id % 3 = 0")
    pair.catch_up()
    with pair.promoted() as there:
        shop.execute("INSERT INTO t VALUES (9999, 0)")  # the old primary, cut off
        there.execute("INSERT INTO t VALUES (1001, 0)", "UPDATE t SET n = 2 WHERE id % 2 = 0")
        capture.until_read()
        capture.until_caught_up()
        assert equal(capture)
        streamed = [event.stamp for event in capture.events if not event.snapshot]
        assert streamed == sorted(set(streamed))
        [(uuid,)] = there.execute("SELECT @@server_uuid")
        assert (capture.position or {})["server"] == uuid


def test_a_replica_that_lacks_what_was_published_is_refused_until_it_has_it(pair: Pair) -> None:
    pair.publish_more_than_replicated()
    with pair.promoted():
        with pytest.raises(GapError, match=r"our position is .* of server") as found:
            pair.capture.open()
        assert "let the replica catch up" in found.value.hint
        pair.capture.kill()
        pair.replica.execute("START REPLICA")
        pair.catch_up()
        pair.capture.until_caught_up()
        assert equal(pair.capture)


def test_a_replica_promoted_too_early_is_read_anew_when_needed(pair: Pair) -> None:
    pair.publish_more_than_replicated()
    with pair.promoted() as there:
        there.execute("INSERT INTO t VALUES (10, 0), (11, 0)")
        pair.capture.options["snapshot"] = "when_needed"
        pair.capture.until_caught_up()
        pair.capture.until_read()
        assert equal(pair.capture)


def test_a_replica_made_from_a_backup_is_followed_from_behind_it_only(pair: Pair) -> None:
    pair.shop.execute(TABLE, "INSERT INTO t VALUES (1, 0)")
    pair.publish()
    old = (pair.capture.position, dict(pair.capture.progress))
    pair.shop.execute("INSERT INTO t VALUES (2, 0)")
    pair.capture.until_caught_up()
    pair.capture.kill()
    [(backup,)] = pair.primary.execute("SELECT @@GLOBAL.gtid_executed")
    pair.replica.execute("CREATE DATABASE shop", "USE shop", TABLE)
    pair.replica.execute("INSERT INTO shop.t VALUES (1, 0), (2, 0)")
    pair.follow(backup)
    pair.shop.execute("INSERT INTO t VALUES (3, 0)")
    pair.catch_up()
    pair.replica.execute(f"CREATE USER {READER}@'%' IDENTIFIED BY '{PASSWORD}'")
    pair.replica.execute(
        f"GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO {READER}@'%'"
    )
    with pair.promoted():
        pair.capture.until_caught_up()
        assert equal(pair.capture)
        pair.capture.kill()
        pair.capture.position, pair.capture.progress = old
        with pytest.raises(GapError, match="the log was purged up to"):
            pair.capture.open()


def test_what_was_prepared_at_the_old_primary_leaves_when_the_new_one_commits_it(
    pair: Pair,
) -> None:
    pair.follow()
    pair.shop.execute(TABLE)
    pair.capture.until_read()
    for xid in ("a", "b"):
        prepare(pair.primary, pair.shop, xid, f"INSERT INTO t VALUES ({ord(xid)}, 0)")
    pair.capture.until_caught_up()
    pair.capture.kill()
    pair.catch_up()
    with pair.promoted() as there:
        there.execute("XA COMMIT 'b'", "INSERT INTO t VALUES (1, 0)", "XA COMMIT 'a'")
        pair.capture.until_caught_up()
        assert ids(pair.capture) == [ord("b"), 1, ord("a")]
        assert equal(pair.capture)


def test_a_position_inside_a_transaction_of_another_server_is_refused(pair: Pair) -> None:
    pair.follow()
    capture = pair.capture
    pair.shop.execute(TABLE)
    pair.publish()
    pair.catch_up()
    assert capture.position is not None
    capture.position = {
        **capture.position,
        "commit": capture.position["complete"] + 1,
        "ordinal": 7,
    }
    with (
        pair.promoted(),
        pytest.raises(GapError, match="inside a transaction of server"),
    ):
        capture.open()
