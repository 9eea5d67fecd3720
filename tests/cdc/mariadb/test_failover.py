"""The source goes on at a promoted replica, or says what that server lacks."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from cdc.errors import GapError
from cdc.local import LocalMariaDB
from fix_mariadb_capture import Database, MariaCapture

TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int)"


class Replica:
    """A real server that replicates `primary` and logs what it replicates."""

    def __init__(self, server: LocalMariaDB, primary: LocalMariaDB) -> None:
        self.server = server
        self._primary = primary

    def follow(self) -> None:
        """Begin anew at the primary's present, as one restored from a backup would."""
        self.server.execute("STOP SLAVE", "RESET SLAVE ALL", "RESET MASTER")
        for (name,) in self.server.execute("SHOW DATABASES LIKE 'test%'"):
            self.server.drop_database(name)
        self.server.execute(
            "RESET MASTER",
            f"SET GLOBAL gtid_slave_pos = '{self._end()}'",
            f"CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {self._primary.port}, "
            f"MASTER_USER = 'root', MASTER_PASSWORD = '{urlsplit(self._primary.url).password}', "
            "MASTER_SSL = 0, MASTER_USE_GTID = slave_pos",
            "START SLAVE",
        )

    def _end(self) -> str:
        return str(self._primary.execute("SELECT @@gtid_binlog_pos")[0][0])

    def catch_up(self) -> None:
        """Wait until it has applied what the primary has logged."""
        [(left,)] = self.server.execute(f"SELECT MASTER_GTID_WAIT('{self._end()}', 30)")
        assert left == 0

    def promote(self) -> None:
        """Replicate no more: from here on it is written to itself."""
        self.server.execute("STOP SLAVE")


@pytest.fixture(scope="module")
def standby() -> Iterator[LocalMariaDB]:
    with LocalMariaDB(settings={"server_id": 2, "log_slave_updates": True}) as server:
        yield server


@pytest.fixture
def replica(standby: LocalMariaDB, mariadb: LocalMariaDB, shop: Database) -> Iterator[Replica]:
    """Replicate from before `shop` has any table; ids from before that are in no log of its own."""
    shop.execute("DROP DATABASE " + shop.name)
    mariadb.execute("RESET MASTER")
    made = Replica(standby, mariadb)
    made.follow()
    shop.execute("CREATE DATABASE " + shop.name, "USE " + shop.name)
    yield made
    made.promote()


def write(server: LocalMariaDB, shop: Database, *statements: str) -> None:
    server.execute(f"USE {shop.name}", *statements)


def rows(server: LocalMariaDB, shop: Database) -> list[tuple[bytes, bytes]]:
    found = server.execute(f"SELECT id, n FROM {shop.name}.t")
    return sorted((b"%d" % id_, b"%d" % n) for id_, n in found)


def until_end(maria: MariaCapture, server: LocalMariaDB) -> None:
    [(end,)] = server.execute("SELECT @@gtid_binlog_pos")
    maria.until(lambda: (maria.position or {}).get("gtid") == end, f"the log's end, {end}")


def test_a_promoted_replica_is_followed_without_loss_or_repetition(
    shop: Database, maria: MariaCapture, mariadb: LocalMariaDB, replica: Replica
) -> None:
    shop.execute(TABLE, "INSERT INTO t VALUES (1, 0), (2, 0), (3, 0), (4, 0)")
    maria.options["chunk_rows"] = 2
    maria.until(lambda: any(key.startswith("chunk/") for key in maria.progress), "a chunk")
    maria.until(lambda: len(maria.events) >= 2, "the first rows")
    maria.kill()
    shop.execute("UPDATE t SET n = 1 WHERE id = 4", "INSERT INTO t VALUES (5, 0)")
    replica.catch_up()
    replica.promote()
    write(replica.server, shop, "INSERT INTO t VALUES (6, 0)", "DELETE FROM t WHERE id = 1")
    write(mariadb, shop, "INSERT INTO t VALUES (99, 0)")  # the old primary, cut off
    maria.options["url"] = replica.server.url_of(shop.name)
    maria.until_read()
    until_end(maria, replica.server)
    assert maria.model.rows(f"{shop.name}.t") == rows(replica.server, shop)
    streamed = [event.stamp for event in maria.events if not event.snapshot]
    assert len(set(streamed)) == len(streamed)
    assert maria.position is not None
    assert maria.position["server"] == 2


def test_what_was_prepared_at_the_old_primary_leaves_when_the_new_one_commits_it(
    shop: Database, maria: MariaCapture, replica: Replica
) -> None:
    shop.execute(TABLE)
    maria.until_read()
    shop.execute("XA START 'a'", "INSERT INTO t VALUES (1, 0)", "XA END 'a'", "XA PREPARE 'a'")
    maria.until_caught_up()
    maria.kill()
    replica.catch_up()
    replica.promote()
    replica.server.execute("XA COMMIT 'a'")
    maria.options["url"] = replica.server.url_of(shop.name)
    until_end(maria, replica.server)
    assert maria.model.rows(f"{shop.name}.t") == rows(replica.server, shop) == [(b"1", b"0")]
    shop.execute("XA ROLLBACK 'a'")


@pytest.mark.usefixtures("row_metadata")
def test_columns_are_known_at_a_replica_whose_log_does_not_name_them(
    shop: Database, maria: MariaCapture, replica: Replica
) -> None:
    replica.server.execute("SET GLOBAL binlog_row_metadata = 'NO_LOG'")
    shop.execute(TABLE, "INSERT INTO t VALUES (1, 0)")
    maria.until_read()
    maria.until_caught_up()
    maria.kill()
    shop.execute("CREATE TABLE later (id int PRIMARY KEY)", "INSERT INTO t VALUES (2, 5)")
    shop.execute("ALTER TABLE t MODIFY n int unsigned FIRST", "UPDATE t SET n = 4000000000")
    replica.catch_up()
    replica.promote()
    write(replica.server, shop, "INSERT INTO t VALUES (4000000001, 3)")
    maria.options["url"] = replica.server.url_of(shop.name)
    until_end(maria, replica.server)
    maria.until_read()
    replica.server.execute("SET GLOBAL binlog_row_metadata = 'FULL'")
    found = replica.server.execute(f"SELECT n, id FROM {shop.name}.t")
    assert maria.model.rows(f"{shop.name}.t") == sorted((b"%d" % n, b"%d" % i) for n, i in found)


def test_a_replica_that_lacks_what_was_published_is_refused_until_it_has_it(
    shop: Database, maria: MariaCapture, replica: Replica
) -> None:
    shop.execute(TABLE, "INSERT INTO t VALUES (1, 0)")
    replica.catch_up()
    replica.promote()
    shop.execute("INSERT INTO t VALUES (2, 0)")
    maria.until_read()
    maria.until_caught_up()
    maria.kill()
    maria.options["url"] = replica.server.url_of(shop.name)
    with pytest.raises(GapError, match=r"lacks .* which was published") as found:
        maria.open()
    assert "catch up" in found.value.hint
    maria.kill()
    replica.server.execute("START SLAVE")
    replica.catch_up()
    until_end(maria, replica.server)
    assert maria.model.rows(f"{shop.name}.t") == rows(replica.server, shop)


def test_a_replica_promoted_too_early_is_refused_and_read_anew_when_needed(
    shop: Database, maria: MariaCapture, replica: Replica
) -> None:
    shop.execute(TABLE, "INSERT INTO t VALUES (1, 0)")
    replica.catch_up()
    replica.promote()
    shop.execute("INSERT INTO t VALUES (2, 0)")
    maria.until_read()
    maria.until_caught_up()
    maria.kill()
    for number in range(10, 15):  # its own transactions take the numbers of those it lacks
        write(replica.server, shop, f"INSERT INTO t VALUES ({number}, 0)")
    maria.options["url"] = replica.server.url_of(shop.name)
    with pytest.raises(GapError, match="behind when it was promoted") as found:
        maria.open()
    assert "snapshot: when_needed" in found.value.hint
    maria.kill()
    maria.options["snapshot"] = "when_needed"
    until_end(maria, replica.server)
    maria.until_read()
    assert maria.model.rows(f"{shop.name}.t") == rows(replica.server, shop)


def test_a_replica_that_logs_nothing_it_replicates_is_named(
    shop: Database, maria: MariaCapture, replica: Replica
) -> None:
    shop.execute(TABLE)
    maria.until_read()
    maria.until_caught_up()
    maria.kill()
    replica.catch_up()
    replica.promote()
    replica.server.execute("RESET MASTER")
    maria.options["url"] = replica.server.url_of(shop.name)
    with pytest.raises(GapError, match="replicated it, not logged it") as found:
        maria.open()
    assert "log_slave_updates" in found.value.hint


def test_a_position_inside_a_transaction_of_another_server_is_refused(
    shop: Database, maria: MariaCapture, replica: Replica
) -> None:
    shop.execute(TABLE)
    maria.until_read()
    maria.until_caught_up()
    maria.kill()
    replica.catch_up()
    assert maria.position is not None
    maria.position = {**maria.position, "commit": maria.position["complete"] + 1, "ordinal": 7}
    maria.options["url"] = replica.server.url_of(shop.name)
    with pytest.raises(GapError, match="inside a transaction of server 1"):
        maria.open()
