"""Snapshots while the tables are written: nothing lost, nothing stale, resumed at the chunk."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from cdc.local import LocalMariaDB
from fix_mariadb_capture import Database, MariaCapture
from mariadb_writers import Writers

Make = Callable[..., MariaCapture]


def change(dice: random.Random) -> str:
    """Insert, update, delete or move rows."""
    one, other = dice.randrange(3_000), dice.randrange(3_000)
    return dice.choice(
        [
            f"INSERT INTO t VALUES ({one}, 'b', 0) ON DUPLICATE KEY UPDATE n = n + 1",
            f"UPDATE t SET n = n + 1 WHERE id = {one}",
            f"DELETE FROM t WHERE id = {one} AND id % 3 = 0",
            f"UPDATE IGNORE t SET id = {other} WHERE id = {one}",
        ]
    )


TABLE = "CREATE TABLE t (id int, part varchar(3), n int NOT NULL, PRIMARY KEY (part, id))"


@pytest.mark.parametrize("table", [TABLE, "CREATE TABLE t (id int, part varchar(3), n int)"])
def test_a_snapshot_under_writes_ends_equal(
    shop: Database, make_maria: Make, mariadb: LocalMariaDB, table: str
) -> None:
    shop.execute(table, "INSERT INTO t SELECT seq, 'a', 0 FROM seq_1_to_3000")
    maria = make_maria(chunk_rows=200)
    has_key = "KEY" in table
    with Writers(mariadb, shop.name, change) if has_key else nullcontext():
        for _ in range(12):
            maria.step()
        if not has_key:
            shop.execute("INSERT INTO t VALUES (9, 'c', 1)", "DELETE FROM t WHERE id = 7")
        maria.kill()
        maria.until_read()
    maria.until_caught_up()
    if has_key:
        assert maria.same("t", "id, part, n")
    else:
        assert maria.rows_left("t").total() == len(shop.execute("SELECT * FROM t"))


def test_a_killed_snapshot_goes_on_at_its_chunk(shop: Database, make_maria: Make) -> None:
    shop.execute(TABLE, "INSERT INTO t SELECT seq, CHAR(97 + seq % 3), seq FROM seq_1_to_1000")
    maria = make_maria(chunk_rows=100)
    maria.until(lambda: len(maria.events) >= 300, "three chunks")
    maria.kill()
    maria.until_read()
    assert len(maria.events) == 1_000
    assert maria.same("t", "id, part, n")


def test_a_chunk_is_bounded_in_bytes(shop: Database, make_maria: Make) -> None:
    shop.execute(
        "CREATE TABLE t (id int PRIMARY KEY, note text)",
        "INSERT INTO t SELECT seq, REPEAT('x', 1000) FROM seq_1_to_300",
    )
    maria = make_maria(chunk_bytes=50_000)
    sizes = []

    def read() -> bool:
        before = len(maria.events)
        maria.step()
        sizes.append(len(maria.events) - before)
        return len(maria.events) == 300

    maria.until(read, "the table")
    assert max(sizes) < 60


@pytest.mark.parametrize(
    "kind",
    [
        "int unsigned", "int zerofill", "bigint", "decimal(20,5)", "decimal(20,5) zerofill",
        "date", "datetime(6)", "timestamp(3)", "uuid", "char(20)", "varchar(20) charset latin1",
        "varchar(20) collate utf8mb4_bin", "binary(5)",
        "varbinary(20)", "enum('c','b','a','d','e','f','g')", "float", "year",
    ],
)  # fmt: skip
def test_chunks_follow_a_key_of_any_type(shop: Database, make_maria: Make, kind: str) -> None:
    value = {
        "date": "'2024-01-01' + INTERVAL seq DAY",
        "datetime(6)": "'2024-01-01' + INTERVAL seq MICROSECOND",
        "timestamp(3)": "'2024-03-31 01:59:50' + INTERVAL seq SECOND",
        "uuid": "CONCAT('123e4567-e89b-12d3-a456-4266554400', 10 + seq)",
        "year": "2000 + seq",
        "float": "seq / 3",
    }.get(kind, "seq")
    if kind.startswith(("char", "varchar")):
        value = "ELT(seq, 'a', 'B', 'c', '\u00e9', 'Z', 'z z', '_')"
    shop.execute(f"CREATE TABLE t (k {kind} PRIMARY KEY, n int)")
    shop.execute(f"INSERT INTO t SELECT {value}, seq FROM seq_1_to_7")
    maria = make_maria(chunk_rows=2)
    maria.until_read()
    assert sorted(event.row()["n"] for event in maria.events) == [b"%d" % n for n in range(1, 8)]


def test_a_backfill_reads_a_table_or_a_part_of_it_again(
    shop: Database, maria: MariaCapture
) -> None:
    shop.execute(TABLE, "INSERT INTO t SELECT seq, 'a', 0 FROM seq_1_to_10")
    maria.until_read()
    assert maria.source is not None
    maria.source.command("backfill", {"table": f"{shop.name}.t", "where": "id > 7"})
    maria.until(lambda: len(maria.events) == 13, "three rows")
    maria.source.command("backfill", {"table": f"{shop.name}.t", "where": "no such column"})
    maria.until(lambda: "refused" in maria.said(), "a refusal")
    maria.source.command("backfill", {"table": "no.such"})
    assert "no table of this source" in maria.said()


def test_a_source_that_never_snapshots_begins_with_the_log(
    shop: Database, make_maria: Make
) -> None:
    shop.execute(TABLE, "INSERT INTO t VALUES (1, 'a', 0)")
    maria = make_maria(snapshot="never")
    maria.until_read()
    shop.execute("INSERT INTO t VALUES (2, 'a', 0)")
    maria.until_caught_up()
    assert [event.row()["id"] for event in maria.events] == [b"2"]


def test_a_table_without_key_and_transactions_is_refused(
    shop: Database, maria: MariaCapture
) -> None:
    shop.execute("CREATE TABLE t (id int) ENGINE = MyISAM")
    with pytest.raises(Exception, match="MyISAM has no transactions"):
        maria.until_read()


def test_only_reads_what_is_there_and_is_done(shop: Database, make_maria: Make) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY)")
    shop.execute("INSERT INTO t SELECT seq FROM seq_1_to_500")
    maria = make_maria(snapshot="only", chunk_rows=200)
    maria.ends_behind_the_snapshot(500, "INSERT INTO t VALUES (1000)")
