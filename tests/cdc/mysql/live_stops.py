"""What a MySQL source refuses at the start or on the way. Run by `make mysql`."""

from __future__ import annotations

import secrets
from contextlib import closing

import pytest

from cdc.errors import GapError, PreflightFailed, Stop
from cdc.sources import mysql
from fix_mariadb_capture import Database
from mysql_capture import TABLE, MyCapture, equal
from mysql_server import READER, RealMySQL


def test_rows_logged_as_statements_stop_it_by_name(shop: Database, capture: MyCapture) -> None:
    shop.execute(TABLE)
    capture.until_read()
    shop.execute("SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO t VALUES (1, 1)")
    with pytest.raises(Stop, match="statement format"):
        capture.until_caught_up()


def captured(own: RealMySQL) -> MyCapture:
    """A source that has read a table of one row."""
    url = own.create_database("shop")
    database = Database(url, own.connect("shop"))
    database.execute(TABLE, "INSERT INTO t VALUES (1, 0)")
    capture = MyCapture(database)
    capture.until_read()
    capture.until_caught_up()
    capture.kill()
    return capture


def purge(own: RealMySQL) -> None:
    """Leave the newest file of the log alone."""
    own.execute("FLUSH BINARY LOGS")
    [(last, *_)] = own.execute("SHOW BINARY LOG STATUS")
    own.execute(f"PURGE BINARY LOGS TO '{last}'")


def test_a_log_that_was_purged_is_a_gap(own: RealMySQL) -> None:
    capture = captured(own)
    with closing(capture.database.connection):
        capture.database.execute("INSERT INTO t VALUES (2, 0)")
        purge(own)
        with pytest.raises(GapError, match="the log was purged up to") as found:
            capture.open()
        assert "binlog_expire_logs_seconds" in found.value.hint
        capture.kill()


@pytest.mark.parametrize("lost", ["purged", "reset"])
def test_when_needed_begins_anew_behind_a_log_that_was(own: RealMySQL, lost: str) -> None:
    capture = captured(own)
    capture.options["snapshot"] = "when_needed"
    database = capture.database
    first = capture.position
    assert first is not None
    with closing(database.connection):
        database.execute("UPDATE t SET n = 7", "INSERT INTO t VALUES (2, 0), (3, 0)")
        database.execute("DELETE FROM t WHERE id = 3")
        if lost == "purged":
            purge(own)
        else:
            own.execute("RESET BINARY LOGS AND GTIDS")
        capture.until(lambda: capture.position != first, "a new beginning")
        capture.until_read()
        database.execute("INSERT INTO t VALUES (4, 4)")
        capture.until_caught_up()
        assert equal(capture)
        assert (capture.position or {})["incarnation"] > first["incarnation"]
        capture.kill()


def test_when_needed_begins_anew_when_the_log_is_lost_while_it_reads(own: RealMySQL) -> None:
    capture = captured(own)
    capture.options["snapshot"] = "when_needed"
    database = capture.database
    with closing(database.connection):
        capture.until_caught_up()
        first = (capture.position or {})["incarnation"]
        own.execute("RESET BINARY LOGS AND GTIDS")
        database.execute("INSERT INTO t VALUES (2, 0)")
        capture.until(lambda: (capture.position or {})["incarnation"] > first, "a new beginning")
        capture.until_read()
        capture.until_caught_up()
        assert equal(capture)
        capture.kill()


def test_a_log_that_was_reset_is_a_gap_also_when_its_ids_have_come_again(own: RealMySQL) -> None:
    capture = captured(own)
    with closing(capture.database.connection):
        own.execute("RESET BINARY LOGS AND GTIDS")
        with pytest.raises(GapError, match="has executed"):
            capture.open()
        capture.kill()
        for number in range(20):
            capture.database.execute(f"INSERT INTO t VALUES ({100 + number}, 0)")
        with pytest.raises(GapError, match="it was reset, or the server restored"):
            capture.open()
        capture.kill()


def test_another_server_that_lacks_our_transactions_is_refused(
    own: RealMySQL, server: RealMySQL
) -> None:
    capture = captured(own)
    with closing(capture.database.connection):
        capture.options["url"] = server.create_database(f"shop_{secrets.token_hex(4)}")
        with pytest.raises(GapError, match="of server"):
            capture.open()
        capture.kill()


def test_a_server_that_was_killed_is_gone_on_from(own: RealMySQL) -> None:
    capture = captured(own)
    capture.database.execute("INSERT INTO t VALUES (2, 0)")
    capture.database.connection.close()
    own.kill()
    own.start()
    with closing(own.connect("shop")) as connection:
        capture.database.connection = connection
        capture.database.execute("INSERT INTO t VALUES (3, 0)")
        capture.until_caught_up()
        assert equal(capture)
        assert len(capture.events) == 3
        capture.kill()


def test_a_server_that_logs_too_little_is_refused(server: RealMySQL, capture: MyCapture) -> None:
    server.execute("SET GLOBAL binlog_row_metadata = 'MINIMAL'")
    try:
        with pytest.raises(PreflightFailed, match="binlog_row_metadata is MINIMAL"):
            capture.open()
        finding = capture.findings()["binlog_row_metadata"]
        assert finding.level == "fail"
        assert "SET GLOBAL binlog_row_metadata" in finding.repair
    finally:
        server.execute("SET GLOBAL binlog_row_metadata = 'FULL'")


def test_check_says_what_the_rows_of_the_log_lack(server: RealMySQL, capture: MyCapture) -> None:
    server.execute("SET GLOBAL binlog_row_image = 'MINIMAL'")
    try:
        finding = capture.findings()["binlog_row_image"]
        assert (finding.level, finding.message[:8]) == ("ok", "MINIMAL:")
    finally:
        server.execute("SET GLOBAL binlog_row_image = 'FULL'")


def test_check_finds_nothing_wrong_with_the_grants_of_the_page(
    shop: Database, capture: MyCapture
) -> None:
    shop.execute(TABLE)
    findings = capture.findings()
    assert {found.level for found in findings.values()} == {"ok"}
    [table] = mysql.discover(capture.config())
    assert str(table.table) == f"{shop.name}.t"


def test_check_names_the_grant_that_is_missing(server: RealMySQL, capture: MyCapture) -> None:
    server.execute(f"REVOKE REPLICATION CLIENT ON *.* FROM {READER}@'%'")
    try:
        assert "REPLICATION CLIENT" in capture.findings()["log end"].repair
    finally:
        server.execute(f"GRANT REPLICATION CLIENT ON *.* TO {READER}@'%'")
