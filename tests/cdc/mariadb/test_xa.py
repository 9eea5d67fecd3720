"""XA transactions: rows leave at XA COMMIT and no sooner, whatever lies between it and PREPARE."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pymysql
import pytest

from cdc.errors import GapError, UnknownEvent
from cdc.local import LocalMariaDB
from cdc.mariadb import prepared
from fix_mariadb_capture import Database, MariaCapture

Make = Callable[..., MariaCapture]
TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 7)"
UNKNOWN = 1397
"""The server has no such XA transaction, or has not noticed yet that its session is gone."""


def prepare(server: LocalMariaDB, shop: Database, xid: str, *statements: str) -> None:
    """Prepare an XA transaction in a session that ends then."""
    with closing(server.connect(shop.name)) as session, session.cursor() as cursor:
        for statement in (f"XA START '{xid}'", *statements, f"XA END '{xid}'"):
            cursor.execute(statement)
        cursor.execute(f"XA PREPARE '{xid}'")


def end(maria: MariaCapture, statement: str) -> None:
    """Commit or roll back what another session has prepared."""

    def ended() -> bool:
        try:
            maria.database.execute(statement)
        except pymysql.OperationalError as error:
            if error.args[0] != UNKNOWN:
                raise
            return False
        return True

    maria.wait_for(ended)


def ids(maria: MariaCapture) -> list[int]:
    return [int(event.row()["id"]) for event in maria.events if not event.snapshot]


@pytest.fixture
def begun(shop: Database, maria: MariaCapture) -> MariaCapture:
    """A source that has read what was there of a table, nothing."""
    shop.execute(TABLE)
    maria.until_read()
    maria.until_caught_up()
    return maria


def test_rows_leave_at_the_commit_and_not_when_they_are_prepared(
    shop: Database, begun: MariaCapture
) -> None:
    shop.execute("XA START 'a'", "INSERT INTO t VALUES (1, 1), (2, 2)", "UPDATE t SET n = 3")
    shop.execute("XA END 'a'", "XA PREPARE 'a'")
    begun.until_caught_up()
    assert begun.position is not None
    assert [item["xid"] for item in begun.position["prepared"]] == ["X'61',X'',1"]
    assert not begun.events
    shop.execute("XA COMMIT 'a'")
    begun.until_caught_up()
    assert ids(begun) == [1, 2, 1, 2]
    assert begun.same("t", "id, n")
    assert begun.position["prepared"] == []
    [(gtid,)] = shop.execute("SELECT @@gtid_binlog_pos")
    assert {run.origin.txid for run in begun.runs} == {gtid}
    assert {event.stamp.commit for event in begun.events} == {begun.position["complete"]}


def test_what_is_rolled_back_never_leaves(
    shop: Database, begun: MariaCapture, mariadb: LocalMariaDB
) -> None:
    shop.execute("XA START 'a'", "INSERT INTO t VALUES (1, 1)", "XA END 'a'", "XA PREPARE 'a'")
    shop.execute("XA ROLLBACK 'a'")
    prepare(mariadb, shop, "b", "INSERT INTO t VALUES (2, 2)")
    begun.until_caught_up()
    begun.kill()
    end(begun, "XA ROLLBACK 'b'")
    shop.execute("INSERT INTO t VALUES (3, 3)")
    begun.until_caught_up()
    assert ids(begun) == [3]
    assert begun.position is not None
    assert begun.position["prepared"] == []


@pytest.mark.parametrize("memory", [32 << 20, 0])
def test_transactions_prepared_side_by_side_leave_in_the_order_of_their_commits(
    shop: Database, begun: MariaCapture, mariadb: LocalMariaDB, memory: int
) -> None:
    begun.kill()
    begun.options["memory"] = memory
    for number in (1, 2, 3, 4):
        prepare(mariadb, shop, f"x{number}", f"INSERT INTO t VALUES ({number}, 0)")
        shop.execute(f"INSERT INTO t VALUES ({number}0, 0)")
        begun.until_caught_up()
    for ending in ("COMMIT 'x3'", "COMMIT 'x1'", "ROLLBACK 'x4'", "COMMIT 'x2'"):
        end(begun, f"XA {ending}")
        begun.until_caught_up()
        begun.kill()
    assert ids(begun) == [10, 20, 30, 40, 3, 1, 2]
    stamps = [event.stamp for event in begun.events]
    assert stamps == sorted(set(stamps))
    assert begun.same("t", "id, n")


def test_one_name_may_be_used_again(
    shop: Database, begun: MariaCapture, mariadb: LocalMariaDB
) -> None:
    for number in (1, 2, 3):
        prepare(mariadb, shop, "again", f"INSERT INTO t VALUES ({number}, 0)")
        begun.until_caught_up()
        begun.kill()
        end(begun, f"XA {'ROLLBACK' if number == 2 else 'COMMIT'} 'again'")
    begun.until_caught_up()
    assert ids(begun) == [1, 3]


def test_a_name_of_any_bytes_is_told_from_others(
    shop: Database, begun: MariaCapture, mariadb: LocalMariaDB
) -> None:
    names = ["X'00ff27'", "'a','bc'", "'b','c',7", "'d'"]
    for number, name in enumerate(names):
        with closing(mariadb.connect(shop.name)) as session, session.cursor() as cursor:
            for words in ("START {}", "END {}", "PREPARE {}"):
                cursor.execute("XA " + words.format(name))
                if words.startswith("START"):
                    cursor.execute(f"INSERT INTO t VALUES ({number}, 0)")
    begun.until_caught_up()
    begun.kill()
    for number in (2, 0, 3, 1):
        end(begun, f"XA COMMIT {names[number]}")
    begun.until_caught_up()
    assert ids(begun) == [2, 0, 3, 1]


def test_a_large_one_resumes_inside_after_it_was_let_go(
    shop: Database, begun: MariaCapture, mariadb: LocalMariaDB
) -> None:
    begun.kill()
    begun.options["memory"] = 64 << 10
    rows = f"INSERT INTO t SELECT seq, 0 FROM {shop.name}.seq_1_to_30000"
    prepare(mariadb, shop, "large", rows)
    begun.until_caught_up()
    begun.kill()
    end(begun, "XA COMMIT 'large'")
    begun.until(lambda: bool(begun.events), "the first rows")
    assert begun.position is not None
    assert begun.position["commit"] > begun.position["complete"]
    begun.kill()
    begun.until_caught_up()
    assert ids(begun) == list(range(1, 30_001))


def test_rows_that_are_kept_take_no_more_than_their_room(
    shop: Database,
    begun: MariaCapture,
    mariadb: LocalMariaDB,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepared, "_KEPT", 2)
    for number in range(5):
        prepare(mariadb, shop, f"x{number}", f"INSERT INTO t VALUES ({number}, 0)")
    begun.until_caught_up()
    for number in range(5):
        end(begun, f"XA COMMIT 'x{number}'")
    begun.until_caught_up()
    assert ids(begun) == [0, 1, 2, 3, 4]


def test_more_than_a_position_holds_stop_it_by_name(
    shop: Database,
    begun: MariaCapture,
    mariadb: LocalMariaDB,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepared, "_MOST", 1)
    for xid in ("a", "b"):
        prepare(mariadb, shop, xid, f"INSERT INTO t VALUES ({ord(xid)}, 0)")
    with pytest.raises(UnknownEvent, match="1 XA transactions are prepared"):
        begun.until_caught_up()
    for xid in ("a", "b"):
        end(begun, f"XA ROLLBACK '{xid}'")


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_where_the_log_was_purged_in_between_a_commit_is_a_gap_and_a_rollback_none(
    shop: Database, begun: MariaCapture, mariadb: LocalMariaDB, ending: str
) -> None:
    prepare(mariadb, shop, "a", "INSERT INTO t VALUES (1, 1)")
    mariadb.execute("FLUSH BINARY LOGS")
    shop.execute("INSERT INTO t VALUES (2, 2)")
    begun.until_caught_up()
    begun.kill()
    last = mariadb.execute("SHOW BINARY LOGS")[-1][0]

    def purged() -> bool:  # a file is kept while the server has not noticed who is gone
        mariadb.execute(f"PURGE BINARY LOGS TO '{last}'")
        return mariadb.execute("SHOW BINARY LOGS")[0][0] == last

    begun.wait_for(purged)
    end(begun, f"XA {ending} 'a'")
    if ending == "ROLLBACK":
        begun.until_caught_up()
    else:
        with pytest.raises(GapError, match=r"X'61',X'',1 has committed.*not in the log") as found:
            begun.until_caught_up()
        assert "cdc position reset" in found.value.hint
    assert ids(begun) == [2]


def test_a_snapshot_waits_for_what_was_prepared_before_the_source_began(
    shop: Database, maria: MariaCapture, mariadb: LocalMariaDB
) -> None:
    shop.execute(TABLE, "INSERT INTO t VALUES (1, 1)")
    prepare(mariadb, shop, "early", "UPDATE t SET n = 2", "INSERT INTO t VALUES (2, 2)")
    maria.until(lambda: maria.position is not None, "a position")
    maria.until(lambda: "X'6561726c79',X'',1" in maria.said(), "the reason")
    assert not maria.events
    end(maria, "XA COMMIT 'early'")
    maria.until_read()
    maria.until_caught_up()
    assert maria.same("t", "id, n")


def test_a_stream_alone_has_what_was_prepared_before_it_began(
    shop: Database, make_maria: Make, mariadb: LocalMariaDB
) -> None:
    shop.execute(TABLE)
    for xid in ("one", "two", "gone"):
        prepare(mariadb, shop, xid, f"INSERT INTO t VALUES ({len(xid)}{ord(xid[0])}, 0)")
        mariadb.execute("FLUSH BINARY LOGS")
    maria = make_maria(snapshot="never")
    maria.until(lambda: maria.position is not None, "a position")
    for ending in ("COMMIT 'two'", "ROLLBACK 'gone'", "COMMIT 'one'"):
        end(maria, f"XA {ending}")
    maria.until_caught_up()
    assert ids(maria) == [3116, 3111]


def test_rows_of_which_the_log_has_a_part_are_whole(
    shop: Database, begun: MariaCapture, mariadb: LocalMariaDB
) -> None:
    partly = "SET SESSION binlog_row_image = 'MINIMAL'"
    prepare(mariadb, shop, "a", partly, "INSERT INTO t (id) VALUES (1)")
    begun.until_caught_up()
    end(begun, "XA COMMIT 'a'")
    begun.until_caught_up()
    assert begun.same("t", "id, n")
