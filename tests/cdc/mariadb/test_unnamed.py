"""A log that does not name columns: the catalogue does, where the log says that it may."""

from __future__ import annotations

import pytest

from cdc.errors import GapError
from cdc.local import LocalMariaDB
from fix_mariadb_capture import Database, MariaCapture

pytestmark = pytest.mark.usefixtures("row_metadata")

TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int, e enum('a', 'b'), s varchar(9) CHARSET latin1)"
SIGNED = "INSERT INTO t VALUES (1, -1, 'a', 'é')"
CHANGED = "ALTER TABLE t MODIFY n int unsigned, MODIFY e enum('b', 'x', 'a'), RENAME COLUMN s TO z"
UNSIGNED = "INSERT INTO t VALUES (2, 4294967295, 'a', 'é'), (3, 0, 'x', '')"


def settled(maria: MariaCapture) -> None:
    """Read to the log's end, and all that was asked for on the way."""
    maria.until_caught_up()
    maria.until_read()


def begun(shop: Database, maria: MariaCapture) -> None:
    shop.execute(TABLE)
    maria.until_read()
    maria.until_caught_up()


def streamed(maria: MariaCapture) -> list[dict[str, bytes]]:
    return [event.row() for event in maria.events if not event.snapshot and event.after]


@pytest.mark.parametrize("row_metadata", ["NO_LOG", "MINIMAL"], indirect=True)
@pytest.mark.parametrize("away", [False, True])
def test_rows_before_a_change_of_their_table_are_read_as_they_were(
    shop: Database, maria: MariaCapture, *, away: bool
) -> None:
    begun(shop, maria)
    if away:  # the catalogue is then newer than the log's place
        maria.kill()
    shop.execute(SIGNED, "UPDATE t SET n = 0", "UPDATE t SET n = -1", "UPDATE t SET n = 5")
    shop.execute(CHANGED, UNSIGNED)
    settled(maria)
    first, *_ = streamed(maria)
    assert first == {"id": b"1", "n": b"-1", "e": b"a", "s": "é".encode()}
    [second] = [row for row in streamed(maria) if row["id"] == b"2"]
    assert second == {"id": b"2", "n": b"4294967295", "e": b"a", "z": "é".encode()}
    assert maria.same("t", "id, n, e, z")


def test_a_kill_between_a_change_and_the_rows_behind_it_does_no_harm(
    shop: Database, maria: MariaCapture
) -> None:
    begun(shop, maria)
    shop.execute(SIGNED, "UPDATE t SET n = 5")
    settled(maria)
    shop.execute(CHANGED)
    settled(maria)
    maria.kill()
    shop.execute(UNSIGNED, "ALTER TABLE t DROP COLUMN n, MODIFY e enum('c', 'd', 'a', 'x')")
    settled(maria)
    assert [row["n"] for row in streamed(maria)] == [b"-1", b"5", b"4294967295", b"0"]
    assert maria.same("t", "id, e, z")


def test_several_changes_with_no_row_between_do_no_harm(
    shop: Database, maria: MariaCapture
) -> None:
    begun(shop, maria)
    maria.kill()
    shop.execute(
        SIGNED, "UPDATE t SET n = 5", CHANGED, "ALTER TABLE t ADD more int DEFAULT 1 NOT NULL FIRST"
    )
    shop.execute("ALTER TABLE t DROP COLUMN z", "INSERT INTO t VALUES (7, 8, 4000000000, 'x')")
    settled(maria)
    assert streamed(maria)[-1] == {"more": b"7", "id": b"8", "n": b"4000000000", "e": b"x"}
    assert maria.same("t", "more, id, n, e")


def test_a_dump_restored_while_nobody_reads_is_read(shop: Database, maria: MariaCapture) -> None:
    begun(shop, maria)
    maria.kill()
    shop.execute(
        "DROP TABLE IF EXISTS t",
        "CREATE TABLE t (id int PRIMARY KEY, n int unsigned, e enum('x', 'a'))",
        "/*!40000 ALTER TABLE `t` DISABLE KEYS */",
        "INSERT INTO t VALUES (1, 4000000000, 'a')",
        "/*!40000 ALTER TABLE `t` ENABLE KEYS */",
        "ALTER TABLE t ADD KEY (n), ADD INDEX other (e), AUTO_INCREMENT = 9",
        "INSERT INTO t VALUES (2, 4000000000, 'x')",
    )
    settled(maria)
    assert maria.same("t", "id, n, e")


def between(shop: Database, maria: MariaCapture) -> None:
    """Rows between two changes, both of them made while nobody reads."""
    begun(shop, maria)
    maria.kill()
    shop.execute(SIGNED, "UPDATE t SET n = 5", CHANGED, UNSIGNED)
    shop.execute("ALTER TABLE t MODIFY n bigint", "INSERT INTO t VALUES (9, -9, 'x', '')")


def test_rows_between_two_changes_nobody_saw_are_a_gap(shop: Database, maria: MariaCapture) -> None:
    between(shop, maria)
    with pytest.raises(GapError, match="changed once more") as found:
        settled(maria)
    assert "binlog_row_metadata = 'FULL'" in found.value.hint
    assert all(row["n"] in (b"-1", b"5") for row in streamed(maria))


def test_when_needed_begins_anew_behind_such_a_gap(shop: Database, maria: MariaCapture) -> None:
    maria.options["snapshot"] = "when_needed"
    between(shop, maria)
    settled(maria)
    shop.execute("INSERT INTO t VALUES (10, -10, 'b', '')")
    settled(maria)
    assert maria.same("t", "id, n, e, z")


def test_a_change_the_log_does_not_tell_stops_at_the_next_row(
    shop: Database, maria: MariaCapture
) -> None:
    begun(shop, maria)
    shop.execute("SET SESSION sql_log_bin = 0", "ALTER TABLE t ADD COLUMN more int")
    shop.execute("SET SESSION sql_log_bin = 1", "INSERT INTO t VALUES (1, 1, 'a', '', 1)")
    with pytest.raises(GapError, match="5 columns, not 4"):
        settled(maria)


def test_tables_made_moved_and_filled_are_read(shop: Database, maria: MariaCapture) -> None:
    begun(shop, maria)
    shop.execute("SET SESSION binlog_alter_two_phase = 1")
    shop.execute("CREATE TABLE u (id int PRIMARY KEY, v int unsigned AS (id + 1) VIRTUAL)")
    shop.execute("CREATE TABLE w (id int, PRIMARY KEY (id))", "DROP TABLE w", "RENAME TABLE u TO v")
    shop.execute("INSERT INTO v (id) VALUES (1), (2)")
    shop.execute("CREATE OR REPLACE TABLE x (k int PRIMARY KEY) SELECT id AS k FROM v")
    settled(maria)
    shop.execute("ALTER TABLE x ADD COLUMN w int NOT NULL DEFAULT 3", "INSERT INTO x VALUES (9, 9)")
    settled(maria)
    assert maria.same("v", "id, v")
    assert maria.same("x", "k, w")


def test_columns_need_no_names_either_when_the_log_loses_them_on_the_way(
    shop: Database, maria: MariaCapture, mariadb: LocalMariaDB
) -> None:
    mariadb.execute("SET GLOBAL binlog_row_metadata = 'FULL'")
    begun(shop, maria)
    shop.execute(SIGNED)
    mariadb.execute("SET GLOBAL binlog_row_metadata = 'NO_LOG'")
    shop.execute("INSERT INTO t VALUES (2, -2, 'b', '')")
    settled(maria)
    assert maria.same("t", "id, n, e, s")
