"""What cannot be read stops the source by name, with the remedy, and loses nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc.errors import CdcError, GapError, PreflightFailed, StateError, Stop, UnknownEvent
from cdc.local import LocalMariaDB
from fix_mariadb_capture import Database, MariaCapture

Make = Callable[..., MariaCapture]
TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int)"


def stopped(maria: MariaCapture, kind: type[CdcError] = Stop) -> CdcError:
    """Read until the source stops, and return why."""
    with pytest.raises(kind) as found:
        maria.until(lambda: False, "a stop")
    maria.kill()
    return found.value


def test_rows_changed_in_statement_format_stop_it(shop: Database, maria: MariaCapture) -> None:
    shop.execute(TABLE)
    maria.until_read()
    shop.execute("SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO t VALUES (1, 1)")
    error = stopped(maria, UnknownEvent)
    assert "INSERT INTO t VALUES (1, 1)" in str(error)
    assert "binlog_format = 'ROW'" in error.hint
    assert not maria.events


def test_statements_about_other_databases_do_not(
    shop: Database, maria: MariaCapture, mariadb: LocalMariaDB
) -> None:
    shop.execute(TABLE)
    maria.until_read()
    with maria.elsewhere(mariadb) as other:
        other.execute(
            "CREATE TABLE u (id int)",
            "SET SESSION binlog_format = 'STATEMENT'",
            "INSERT INTO u VALUES (1)",
        )
        maria.until_caught_up()
        other.execute(f"INSERT INTO {shop.name}.t VALUES (1, 1)")
        stopped(maria, UnknownEvent)


def test_a_server_that_logs_statements_is_refused(
    maria: MariaCapture, mariadb: LocalMariaDB
) -> None:
    mariadb.execute("SET GLOBAL binlog_format = 'MIXED'")
    try:
        with pytest.raises(PreflightFailed, match="binlog_format is MIXED") as found:
            maria.open()
    finally:
        mariadb.execute("SET GLOBAL binlog_format = 'ROW'")
    assert "SET GLOBAL binlog_format = 'ROW'" in found.value.hint


def purge(maria: MariaCapture, mariadb: LocalMariaDB) -> None:
    """Leave the newest file of the log alone."""
    mariadb.execute("FLUSH BINARY LOGS")
    maria.database.execute("INSERT INTO t VALUES (1000, 1)")
    [*_, (last, _)] = mariadb.execute("SHOW BINARY LOGS")

    def purged() -> bool:  # a file is kept while the server has not noticed who is gone
        mariadb.execute(f"PURGE BINARY LOGS TO '{last}'")
        return len(mariadb.execute("SHOW BINARY LOGS")) == 1

    maria.wait_for(purged)


def test_a_log_that_was_purged_is_a_gap(
    shop: Database, maria: MariaCapture, mariadb: LocalMariaDB
) -> None:
    shop.execute(TABLE)
    maria.until_read()
    maria.kill()
    shop.execute("INSERT INTO t VALUES (1, 1)")
    purge(maria, mariadb)
    error = stopped(maria, GapError)
    assert "cdc position reset" in error.hint


def test_when_needed_begins_anew_behind_a_log_that_was_purged(
    shop: Database, maria: MariaCapture, mariadb: LocalMariaDB
) -> None:
    shop.execute(TABLE, "CREATE TABLE u (id int)", "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    shop.execute("INSERT INTO u VALUES (1), (1), (2)")
    maria.options["snapshot"] = "when_needed"
    maria.until_read()
    maria.until_caught_up()
    maria.kill()
    first = maria.position
    assert first is not None
    shop.execute("DELETE FROM t WHERE id = 1", "UPDATE t SET n = 9 WHERE id = 2")
    shop.execute("DELETE FROM u LIMIT 1")
    purge(maria, mariadb)
    maria.until(lambda: maria.position != first, "a new beginning")
    maria.until_read()
    shop.execute("INSERT INTO t VALUES (4, 4)")
    maria.until_caught_up()
    assert maria.same("t", "id, n")
    assert sum(maria.rows_left("u").values()) == 2
    assert maria.position is not None
    assert maria.position["incarnation"] > first["incarnation"]


@pytest.mark.parametrize("further", [0, 40])
def test_a_log_that_was_reset_is_a_gap_also_when_its_ids_have_come_again(
    shop: Database, maria: MariaCapture, mariadb: LocalMariaDB, further: int
) -> None:
    mariadb.execute("RESET MASTER")
    shop.execute(TABLE, *[f"INSERT INTO t VALUES ({number}, 0)" for number in range(10)])
    maria.until_read()
    maria.until_caught_up()
    maria.kill()
    mariadb.execute("RESET MASTER")
    for number in range(further):
        shop.execute(f"INSERT INTO t VALUES ({100 + number}, 0)")
    error = stopped(maria, GapError)
    assert "reset" in str(error) or "the log ends at" in str(error)


def test_another_server_that_lacks_our_transactions_is_refused(
    shop: Database, maria: MariaCapture
) -> None:
    shop.execute(TABLE)
    maria.until_read()
    maria.kill()
    assert maria.position is not None
    maria.position = {**maria.position, "server": 99, "gtid": "0-99-999999"}
    assert "this is server 1, the position is of server 99" in str(stopped(maria, GapError))


def test_a_server_of_the_same_topology_is_followed_by_its_ids(
    shop: Database, maria: MariaCapture
) -> None:
    shop.execute(TABLE)
    maria.until_read()
    maria.until_caught_up()
    maria.kill()
    assert maria.position is not None
    maria.position = {**maria.position, "server": 99, "file": "other.000009", "offset": 77}
    shop.execute("INSERT INTO t VALUES (1, 1)")
    maria.until_caught_up()
    assert len(maria.events) == 1
    assert maria.position["server"] == 1


def test_two_sources_of_one_server_id_are_told_so(shop: Database, make_maria: Make) -> None:
    shop.execute(TABLE)
    first, second = make_maria(server_id=4711), make_maria(server_id=4711)
    first.until_read()
    second.until_read()
    error = stopped(first, CdcError)
    assert "server_id" in error.hint


def test_rows_that_outlive_a_rollback_stop_it(shop: Database, maria: MariaCapture) -> None:
    shop.execute(
        TABLE,
        "CREATE TABLE u (id int PRIMARY KEY) ENGINE = MyISAM",
        "SET SESSION binlog_direct_non_transactional_updates = OFF",
    )
    maria.until_read()
    shop.execute(
        "BEGIN",
        "INSERT INTO t VALUES (1, 1)",
        "INSERT INTO u SELECT id FROM t",
        "SAVEPOINT a",
        "INSERT INTO t VALUES (2, 2)",
        "INSERT INTO u VALUES (2)",
        "ROLLBACK TO a",
        "COMMIT",
    )
    assert "rolled back" in str(stopped(maria, UnknownEvent))


@pytest.mark.parametrize(
    ("definition", "told"),
    [
        ("id int PRIMARY KEY, v int) WITH SYSTEM VERSIONING", "system-versioned"),
        ("id int PRIMARY KEY, v varchar(9) CHARACTER SET big5)", "character set big5"),
        ("id int PRIMARY KEY, v text COMPRESSED)", "cannot be"),
    ],
)
def test_a_table_that_cannot_be_captured_is_named(
    shop: Database, maria: MariaCapture, definition: str, told: str
) -> None:
    shop.execute(f"CREATE TABLE t ({definition}")
    shop.execute("INSERT INTO t (id, v) VALUES (1, 1)")
    with pytest.raises(UnknownEvent, match=told) as found:
        maria.until_read()
    assert f"!{shop.name}.t" in found.value.hint
    maria.kill()
    maria.options["tables"] = [f"{shop.name}.*", f"!{shop.name}.t"]
    shop.execute("CREATE TABLE fine (id int PRIMARY KEY)", "INSERT INTO fine VALUES (1)")
    maria.until_read()


def test_the_position_of_another_kind_of_source_is_refused(maria: MariaCapture) -> None:
    maria.position = {"version": 1, "incarnation": 1, "slot": "a", "system": "1", "timeline": 1}
    with pytest.raises(StateError, match="not one of a MariaDB source"):
        maria.open()
