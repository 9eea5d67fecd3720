"""What holds of XA transactions on every server of this protocol, and sessions that make them."""

from __future__ import annotations

import itertools
import random
from contextlib import closing
from typing import Any, Protocol

import pymysql
import pytest

from cdc.errors import GapError, UnknownEvent
from cdc.mariadb import prepared
from fix_mariadb_capture import Database, MariaCapture
from mariadb_writers import MET, Writers

TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 7)"
UNKNOWN = 1397
"""The server has no such XA transaction, or has not noticed yet that its session is gone."""
NOTHING = 1402
"""It changed nothing, and so went with its session."""


class Server(Protocol):
    """A server that a test starts."""

    def connect(self, database: str) -> pymysql.connections.Connection[Any]: ...

    def execute(self, *statements: str) -> tuple[tuple[Any, ...], ...]: ...


def prepare(server: Server, shop: Database, xid: str, *statements: str) -> None:
    """Prepare an XA transaction in a session that ends then."""
    with closing(server.connect(shop.name)) as session, session.cursor() as cursor:
        for statement in (f"XA START '{xid}'", *statements, f"XA END '{xid}'"):
            cursor.execute(statement)
        cursor.execute(f"XA PREPARE '{xid}'")


def end(capture: MariaCapture, statement: str) -> None:
    """Commit or roll back what another session has prepared."""

    def ended() -> bool:
        try:
            capture.database.execute(statement)
        except pymysql.OperationalError as error:
            if error.args[0] != UNKNOWN:
                raise
            return False
        return True

    capture.wait_for(ended)


def ids(capture: MariaCapture) -> list[int]:
    return [int(event.row()["id"]) for event in capture.events if not event.snapshot]


class XaStories:
    """Tests of what leaves, and when; a test file derives from it.

    It has the fixtures `server`, `shop` on it, and `begun`: a source that has read what was there
    of `TABLE`, nothing.
    """

    def test_rows_leave_at_the_commit_and_not_when_they_are_prepared(
        self, shop: Database, begun: MariaCapture
    ) -> None:
        shop.execute("XA START 'a'", "INSERT INTO t VALUES (1, 1), (2, 2)", "UPDATE t SET n = 3")
        shop.execute("XA END 'a'", "XA PREPARE 'a'")
        begun.until_caught_up()
        assert begun.position is not None
        [open_] = begun.position["prepared"]
        assert open_["xid"] == "X'61',X'',1"
        assert not begun.events
        shop.execute("XA COMMIT 'a'")
        begun.until_caught_up()
        assert ids(begun) == [1, 2, 1, 2]
        assert begun.same("t", "id, n")
        assert begun.position["prepared"] == []
        [txid] = {run.origin.txid for run in begun.runs}
        assert txid != open_["gtid"]
        assert begun.stored().gtids().names(txid)
        assert {event.stamp.commit for event in begun.events} == {begun.position["complete"]}

    def test_what_is_rolled_back_never_leaves(
        self, shop: Database, begun: MariaCapture, server: Server
    ) -> None:
        shop.execute("XA START 'a'", "INSERT INTO t VALUES (1, 1)", "XA END 'a'", "XA PREPARE 'a'")
        shop.execute("XA ROLLBACK 'a'")
        prepare(server, shop, "b", "INSERT INTO t VALUES (2, 2)")
        begun.until_caught_up()
        begun.kill()
        end(begun, "XA ROLLBACK 'b'")
        shop.execute("INSERT INTO t VALUES (3, 3)")
        begun.until_caught_up()
        assert ids(begun) == [3]
        assert begun.position is not None
        assert begun.position["prepared"] == []

    def test_one_of_one_phase_is_like_any_other(self, shop: Database, begun: MariaCapture) -> None:
        shop.execute("XA START 'b'", "INSERT INTO t VALUES (1, 1), (2, 2)", "XA END 'b'")
        shop.execute("XA COMMIT 'b' ONE PHASE")
        shop.execute("XA START 'c'", "INSERT INTO t VALUES (3, 1)", "XA END 'c'", "XA ROLLBACK 'c'")
        begun.until_caught_up()
        assert ids(begun) == [1, 2]
        assert begun.same("t", "id, n")

    def test_one_that_changes_nothing_is_passed(
        self, shop: Database, begun: MariaCapture, server: Server
    ) -> None:
        for ending in ("COMMIT", "ROLLBACK"):
            shop.execute("XA START 'a'", "SELECT 1", "XA END 'a'", "XA PREPARE 'a'")
            shop.execute(f"XA {ending} 'a'")
        shop.execute("XA START 'b'", "XA END 'b'", "XA COMMIT 'b' ONE PHASE")
        prepare(server, shop, "c", "SELECT n FROM t", "UPDATE t SET n = 1 WHERE id = 999")
        begun.until_caught_up()
        begun.kill()
        try:
            shop.execute("XA COMMIT 'c'")
        except pymysql.OperationalError as error:
            if error.args[0] not in (UNKNOWN, NOTHING):
                raise
        shop.execute("INSERT INTO t VALUES (1, 1)")
        begun.until_caught_up()
        assert ids(begun) == [1]

    @pytest.mark.parametrize("memory", [32 << 20, 0])
    def test_transactions_prepared_side_by_side_leave_in_the_order_of_their_commits(
        self, shop: Database, begun: MariaCapture, server: Server, memory: int
    ) -> None:
        begun.kill()
        begun.options["memory"] = memory
        for number in (1, 2, 3, 4):
            prepare(server, shop, f"x{number}", f"INSERT INTO t VALUES ({number}, 0)")
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
        self, shop: Database, begun: MariaCapture, server: Server
    ) -> None:
        for number in (1, 2, 3):
            prepare(server, shop, "again", f"INSERT INTO t VALUES ({number}, 0)")
            begun.until_caught_up()
            begun.kill()
            end(begun, f"XA {'ROLLBACK' if number == 2 else 'COMMIT'} 'again'")
        begun.until_caught_up()
        assert ids(begun) == [1, 3]

    def test_a_name_of_any_bytes_is_told_from_others(
        self, shop: Database, begun: MariaCapture, server: Server
    ) -> None:
        names = ["X'00ff27'", "'a','bc'", "'b','c',7", "'d'"]
        for number, name in enumerate(names):
            with closing(server.connect(shop.name)) as session, session.cursor() as cursor:
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
        self, shop: Database, begun: MariaCapture, server: Server
    ) -> None:
        begun.kill()
        begun.options["memory"] = 64 << 10
        doubled = [f"INSERT INTO t SELECT id + {1 << bit}, 0 FROM t" for bit in range(15)]
        prepare(server, shop, "large", "INSERT INTO t VALUES (1, 0)", *doubled)
        begun.until_caught_up()
        begun.kill()
        end(begun, "XA COMMIT 'large'")
        begun.until(lambda: bool(begun.events), "the first rows")
        assert begun.position is not None
        assert begun.position["commit"] > begun.position["complete"]
        begun.kill()
        begun.until_caught_up()
        assert ids(begun) == list(range(1, 32_769))

    def test_rows_that_are_kept_take_no_more_than_their_room(
        self,
        shop: Database,
        begun: MariaCapture,
        server: Server,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(prepared, "_KEPT", 2)
        for number in range(5):
            prepare(server, shop, f"x{number}", f"INSERT INTO t VALUES ({number}, 0)")
        begun.until_caught_up()
        for number in range(5):
            end(begun, f"XA COMMIT 'x{number}'")
        begun.until_caught_up()
        assert ids(begun) == [0, 1, 2, 3, 4]

    def test_more_than_a_position_holds_stop_it_by_name(
        self,
        shop: Database,
        begun: MariaCapture,
        server: Server,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(prepared, "_MOST", 1)
        for xid in ("a", "b"):
            prepare(server, shop, xid, f"INSERT INTO t VALUES ({ord(xid)}, 0)")
        with pytest.raises(UnknownEvent, match="1 XA transactions are prepared"):
            begun.until_caught_up()
        for xid in ("a", "b"):
            end(begun, f"XA ROLLBACK '{xid}'")

    @pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
    def test_where_the_log_was_purged_in_between_a_commit_is_a_gap_and_a_rollback_none(
        self, shop: Database, begun: MariaCapture, server: Server, ending: str
    ) -> None:
        prepare(server, shop, "a", "INSERT INTO t VALUES (1, 1)")
        server.execute("FLUSH BINARY LOGS")
        shop.execute("INSERT INTO t VALUES (2, 2)")
        begun.until_caught_up()
        begun.kill()
        last = server.execute("SHOW BINARY LOGS")[-1][0]

        def purged() -> bool:  # a file is kept while the server has not noticed who is gone
            server.execute(f"PURGE BINARY LOGS TO '{last}'")
            return bool(server.execute("SHOW BINARY LOGS")[0][0] == last)

        begun.wait_for(purged)
        end(begun, f"XA {ending} 'a'")
        if ending == "ROLLBACK":
            begun.until_caught_up()
        else:
            with pytest.raises(GapError, match=r"X'61',X'',1 has committed.*not in the") as told:
                begun.until_caught_up()
            assert "cdc position reset" in told.value.hint
        assert ids(begun) == [2]

    def test_rows_of_which_the_log_has_a_part_are_whole(
        self, shop: Database, begun: MariaCapture, server: Server
    ) -> None:
        partly = "SET SESSION binlog_row_image = 'MINIMAL'"
        prepare(server, shop, "a", partly, "INSERT INTO t (id) VALUES (1)")
        begun.until_caught_up()
        end(begun, "XA COMMIT 'a'")
        begun.until_caught_up()
        assert begun.same("t", "id, n")


def streams_what_was_prepared_before(capture: MariaCapture, server: Server, shop: Database) -> None:
    """A source that begins with the log has what was prepared before, in files of their own."""
    shop.execute(TABLE)
    for xid in ("one", "two", "gone"):
        prepare(server, shop, xid, f"INSERT INTO t VALUES ({len(xid)}{ord(xid[0])}, 0)")
        server.execute("FLUSH BINARY LOGS")
    capture.until(lambda: capture.position is not None, "a position")
    for ending in ("COMMIT 'two'", "ROLLBACK 'gone'", "COMMIT 'one'"):
        end(capture, f"XA {ending}")
    capture.until_caught_up()
    assert ids(capture) == [3116, 3111]


def change(dice: random.Random) -> str:
    """Insert, update or delete a row."""
    key = dice.randrange(1_000)
    return dice.choice(
        [
            f"INSERT INTO t VALUES ({key}, 0) ON DUPLICATE KEY UPDATE n = n + 1",
            f"UPDATE t SET n = n + 1 WHERE id = {key}",
            f"DELETE FROM t WHERE id = {key} AND id % 3 = 0",
        ]
    )


class XaWriters(Writers):
    """Sessions whose every transaction is an XA transaction; some end in another session."""

    _numbers = itertools.count()

    def __init__(self, server: Server, database: str, count: int = 3) -> None:
        super().__init__(server, database, change, count)

    def _write(self, dice: random.Random, seed: int) -> None:
        with closing(self._connect()) as session:
            while not self._over.is_set() and dice.random() < 0.9:
                self._one(session.cursor(), dice, f"'{seed}-{next(self._numbers)}'")
            left = self._prepared(session.cursor(), dice, f"'{seed}-left'")
        if left:
            self._commit_elsewhere(f"'{seed}-left'")

    def _one(self, cursor: Any, dice: random.Random, xid: str) -> None:
        if self._prepared(cursor, dice, xid):
            cursor.execute(f"XA {dice.choice(['COMMIT', 'COMMIT', 'ROLLBACK'])} {xid}")
            self.done += 1

    def _prepared(self, cursor: Any, dice: random.Random, xid: str) -> bool:
        cursor.execute(f"XA START {xid}")
        try:
            for _ in range(dice.randint(1, 3)):
                cursor.execute(self._change(dice))
        except pymysql.Error as error:
            if error.args[0] not in MET:
                raise
            cursor.execute(f"XA END {xid}")
            cursor.execute(f"XA ROLLBACK {xid}")
            return False
        cursor.execute(f"XA END {xid}")
        cursor.execute(f"XA PREPARE {xid}")
        return True

    def _commit_elsewhere(self, xid: str) -> None:
        with closing(self._connect()) as session:
            while True:
                try:
                    session.cursor().execute(f"XA COMMIT {xid}")
                except pymysql.OperationalError as error:
                    if error.args[0] == NOTHING:
                        return
                    if error.args[0] != UNKNOWN:
                        raise
                else:
                    return
