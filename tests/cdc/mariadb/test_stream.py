"""What is written while the source reads, or was written while it did not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cdc.local import LocalMariaDB
from fix_mariadb_capture import Database, MariaCapture
from schemas.change import Op

Make = Callable[..., MariaCapture]


def ops(maria: MariaCapture, table: str) -> list[str]:
    """The streamed events of a table: letter, old and new key."""
    found = [event for event in maria.events_of(table) if not event.snapshot]
    return [
        " ".join(
            [event.op.value, *(side[0].decode() for side in (event.before, event.after) if side)]
        )
        for event in found
    ]


@contextmanager
def setting(server: LocalMariaDB, name: str, value: str) -> Iterator[None]:
    [(before,)] = server.execute(f"SELECT @@GLOBAL.{name}")
    server.execute(f"SET GLOBAL {name} = {value}")
    yield
    server.execute(f"SET GLOBAL {name} = {before!r}")


def test_every_statement_that_changes_rows_becomes_events(
    shop: Database, maria: MariaCapture
) -> None:
    shop.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a int UNIQUE, total int AS (a * 2) STORED, "
        "twice int AS (a + 1) VIRTUAL, hidden int INVISIBLE DEFAULT 5)"
    )
    maria.until_read()
    shop.execute(
        "INSERT INTO t (id, a) VALUES (1, 1), (2, 2), (3, 3)",
        "UPDATE t SET a = 10 WHERE id = 1",
        "UPDATE t SET id = 20 WHERE id = 2",
        "REPLACE INTO t (id, a) VALUES (3, 30)",
        "REPLACE INTO t (id, a) VALUES (4, 10)",
        "INSERT INTO t (id, a) VALUES (4, 11) ON DUPLICATE KEY UPDATE a = 12",
        "DELETE FROM t WHERE id = 20",
    )
    maria.until_caught_up()
    assert maria.same("t", "id, a, total, twice, hidden")
    assert ops(maria, "t")[:5] == ["c 1", "c 2", "c 3", "u 1 1", "u 2 20"]
    assert all(event.before or event.op is Op.CREATE for event in maria.events_of("t"))


def test_rows_of_create_select_and_of_a_table_made_later_arrive(
    shop: Database, maria: MariaCapture
) -> None:
    maria.until_read()
    shop.execute(
        "CREATE TABLE made (id int PRIMARY KEY) SELECT seq AS id FROM seq_1_to_50",
        "CREATE TEMPORARY TABLE apart (id int)",
        "INSERT INTO apart VALUES (1)",
        "DROP TABLE apart",
        "CREATE SEQUENCE numbers",
        "SELECT NEXTVAL(numbers)",
        "CREATE TABLE empty (id int PRIMARY KEY)",
    )
    maria.until_caught_up()
    assert len(maria.events_of("made")) == 50
    assert {event.table for event in maria.events} == {f"{shop.name}.made"}


def test_nothing_of_a_transaction_that_was_rolled_back_arrives(
    shop: Database, maria: MariaCapture
) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY)")
    maria.until_read()
    shop.execute(
        "BEGIN",
        "INSERT INTO t VALUES (1)",
        "ROLLBACK",
        "BEGIN",
        "INSERT INTO t VALUES (2)",
        "SAVEPOINT a",
        "INSERT INTO t VALUES (3)",
        "ROLLBACK TO a",
        "INSERT INTO t VALUES (4)",
        "COMMIT",
    )
    maria.until_caught_up()
    assert ops(maria, "t") == ["c 2", "c 4"]
    assert len({event.stamp.commit for event in maria.events_of("t")}) == 1


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_a_large_transaction_passes_and_resumes_inside(
    shop: Database, make_maria: Make, memory: int
) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY, note varchar(100))")
    maria = make_maria(memory=memory)
    maria.until_read()
    shop.execute("INSERT INTO t SELECT seq, REPEAT('x', 50) FROM seq_1_to_30000")
    maria.until(lambda: len(maria.events) >= 10_000, "a part of it")
    assert len(maria.events) < 30_000
    maria.kill()
    maria.until_caught_up()
    stamps = [event.stamp for event in maria.events]
    assert len(stamps) == 30_000
    assert stamps == sorted(set(stamps))
    assert maria.position is not None
    assert maria.position["commit"] == maria.position["complete"]


def test_compressed_events_are_read(
    shop: Database, maria: MariaCapture, mariadb: LocalMariaDB
) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY, note text)")
    maria.until_read()
    with setting(mariadb, "log_bin_compress", "ON"):
        shop.execute(
            "INSERT INTO t VALUES (1, REPEAT('x', 5000)), (2, 'short')",
            "UPDATE t SET note = REPEAT('y', 5000) WHERE id = 1",
            f"CREATE TABLE wide (id int PRIMARY KEY COMMENT '{'long ' * 60}')",
            "DELETE FROM t WHERE id = 2",
        )
    maria.until_caught_up()
    assert maria.same("t", "id, note")
    assert len(maria.events) == 4


def test_a_log_without_checksums_is_read(
    shop: Database, maria: MariaCapture, mariadb: LocalMariaDB
) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY)")
    maria.until_read()
    with setting(mariadb, "binlog_checksum", "NONE"):
        shop.execute("INSERT INTO t VALUES (1)")
        maria.until_caught_up()
        maria.kill()
        shop.execute("INSERT INTO t VALUES (2)")
        maria.until_caught_up()
    shop.execute("INSERT INTO t VALUES (3)")
    maria.until_caught_up()
    assert ops(maria, "t") == ["c 1", "c 2", "c 3"]


def test_the_log_goes_on_in_the_next_file(
    shop: Database, maria: MariaCapture, mariadb: LocalMariaDB
) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY)")
    maria.until_read()
    for number in range(4):
        shop.execute(f"INSERT INTO t VALUES ({number})")
        mariadb.execute("FLUSH BINARY LOGS")
        if number == 1:
            maria.until_caught_up()
            maria.kill()
    maria.until_caught_up()
    maria.kill()
    maria.until_caught_up()
    assert ops(maria, "t") == ["c 0", "c 1", "c 2", "c 3"]


def test_transactions_of_several_domains_arrive_once(shop: Database, maria: MariaCapture) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY)")
    maria.until_read()
    for number in range(6):
        shop.execute(
            f"SET SESSION gtid_domain_id = {number % 3}", f"INSERT INTO t VALUES ({number})"
        )
        if number % 2:
            maria.until(lambda n=number: len(ops(maria, "t")) > n, "it")
            maria.kill()
    shop.execute("SET SESSION gtid_domain_id = 0")
    maria.until_caught_up()
    assert ops(maria, "t") == [f"c {number}" for number in range(6)]


def test_an_idle_source_moves_its_position_with_the_log(
    shop: Database, maria: MariaCapture
) -> None:
    maria.until_read()
    shop.execute("CREATE DATABASE IF NOT EXISTS elsewhere", "DROP DATABASE elsewhere")
    maria.until_caught_up()
    assert not maria.events


def test_status_tells_how_much_of_the_log_is_left(shop: Database, maria: MariaCapture) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY, n mediumblob)")
    maria.until_read()
    maria.kill()
    big = f"INSERT INTO t VALUES (%s, repeat('x', {8 << 20}))"
    shop.execute(*[big % number for number in range(4)], "FLUSH BINARY LOGS", big % 4)
    source = maria.open()
    source.read(0.0)
    left = source.status().lag_bytes
    assert left is not None
    assert left > 8 << 20
    maria.until(lambda: source.status().lag_bytes == 0, "all of the log to be read")
