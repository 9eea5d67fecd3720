"""Tables that are changed, emptied, moved and made anew while the source reads or does not."""

from __future__ import annotations

import pytest

from fix_mariadb_capture import Database, MariaCapture


def settled(maria: MariaCapture) -> None:
    """Read to the log's end, and all that was asked for on the way."""
    maria.until_caught_up()
    maria.until_read()


@pytest.mark.parametrize("away", [False, True])
def test_a_column_added_or_retyped_brings_the_rows_again(
    shop: Database, maria: MariaCapture, *, away: bool
) -> None:
    shop.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int)", "INSERT INTO t VALUES (1, 1), (2, 2)"
    )
    maria.until_read()
    maria.until_caught_up()
    if away:
        maria.kill()
    shop.execute(
        "INSERT INTO t VALUES (3, 3)",
        "ALTER TABLE t ADD COLUMN extra varchar(5) NOT NULL DEFAULT 'new' AFTER id",
        "ALTER TABLE t MODIFY n bigint unsigned",
        "ALTER TABLE t RENAME COLUMN n TO number",
        "UPDATE t SET number = 18446744073709551615 WHERE id = 2",
    )
    settled(maria)
    assert maria.same("t", "id, extra, number")


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE t CHANGE a b int, CHANGE b a int",
        "ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN b TO a",
        "ALTER TABLE t DROP COLUMN a, ADD COLUMN a int DEFAULT 5 AFTER id",
        "ALTER /* so */ TABLE t MODIFY g int AS (id * 3) STORED",
    ],
)
def test_values_that_change_unlogged_are_read_again(
    shop: Database, maria: MariaCapture, statement: str
) -> None:
    shop.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int, g int AS (id * 2) STORED)",
        "INSERT INTO t (id, a, b) VALUES (1, 2, 3)",
    )
    maria.until_read()
    maria.until_caught_up()
    shop.execute(statement)
    settled(maria)
    names = [name for name, *_ in shop.execute("SHOW COLUMNS FROM t")]
    assert maria.same("t", ", ".join(names))


def test_a_table_made_and_filled_in_statement_format_is_read(
    shop: Database, maria: MariaCapture
) -> None:
    maria.until_read()
    maria.until_caught_up()
    shop.execute(
        "SET SESSION binlog_format = 'STATEMENT'",
        "CREATE TABLE t (id int PRIMARY KEY) SELECT seq AS id FROM seq_1_to_9",
    )
    settled(maria)
    assert maria.same("t", "id")


def test_an_index_brings_no_row_again(shop: Database, maria: MariaCapture) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY, n int)", "INSERT INTO t VALUES (1, 1)")
    maria.until_read()
    shop.execute("CREATE INDEX i ON t (n)", "ALTER TABLE t ADD INDEX j (n, id)", "ANALYZE TABLE t")
    settled(maria)
    assert len(maria.events) == 1


def test_truncate_empties_the_table(shop: Database, maria: MariaCapture) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    maria.until_read()
    shop.execute("TRUNCATE t", "INSERT INTO t VALUES (2)", f"TRUNCATE TABLE `{shop.name}` . `t`")
    shop.execute("INSERT INTO t VALUES (3)")
    settled(maria)
    assert maria.same("t", "id")
    assert [event.op.value for event in maria.events] == ["r", "t", "c", "t", "c"]


@pytest.mark.parametrize(
    "statements",
    [
        ["DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (7)"],
        ["CREATE OR REPLACE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (7)"],
        ["CREATE OR REPLACE TABLE t (id int PRIMARY KEY) SELECT 7 AS id"],
        ["CREATE TABLE u (id int PRIMARY KEY) SELECT 7 AS id", "RENAME TABLE t TO old, u TO t"],
        [
            "CREATE TABLE u (id int PRIMARY KEY) SELECT 7 AS id",
            "DROP TABLE t",
            "ALTER TABLE u RENAME t",
        ],
        ["ALTER TABLE t RENAME old", "CREATE TABLE t (id int PRIMARY KEY)"],
    ],
)
@pytest.mark.parametrize("slow", [False, True])
def test_a_table_made_anew_keeps_no_row_of_the_one_before(
    shop: Database, maria: MariaCapture, statements: list[str], *, slow: bool
) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    maria.until_read()
    maria.until_caught_up()
    for statement in statements:
        shop.execute(statement)
        if slow:
            settled(maria)
    settled(maria)
    assert maria.same("t", "id")


def test_a_database_made_anew_keeps_no_row_of_the_one_before(
    shop: Database, maria: MariaCapture
) -> None:
    maria.options["tables"] = [f"{shop.name}*.t"]
    other = f"{shop.name}_other"
    shop.execute(
        f"CREATE DATABASE {other}",
        f"CREATE TABLE {other}.t (id int PRIMARY KEY)",
        f"INSERT INTO {other}.t VALUES (1)",
    )
    maria.until_read()
    maria.until_caught_up()
    shop.execute(
        f"DROP DATABASE {other}",
        f"CREATE DATABASE {other}",
        f"CREATE TABLE {other}.t (id int PRIMARY KEY)",
        f"INSERT INTO {other}.t VALUES (2)",
    )
    settled(maria)
    assert maria.model.rows(f"{other}.t") == [(b"2",)]
    shop.execute(f"DROP DATABASE {other}")


def test_a_table_that_is_made_if_it_does_not_exist_stays_as_it_is(
    shop: Database, maria: MariaCapture
) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    maria.until_read()
    shop.execute("CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY)", "INSERT INTO t VALUES (2)")
    settled(maria)
    assert [event.op.value for event in maria.events] == ["r", "c"]


@pytest.mark.parametrize("how", ["DROP", "TRUNCATE"])
def test_rows_of_a_partition_that_is_emptied_are_gone(
    shop: Database, maria: MariaCapture, how: str
) -> None:
    shop.execute(
        "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id) "
        "(PARTITION a VALUES LESS THAN (10), PARTITION b VALUES LESS THAN (100))",
        "INSERT INTO t VALUES (1), (50)",
    )
    maria.until_read()
    shop.execute(f"ALTER TABLE t {how} PARTITION a", "INSERT INTO t VALUES (60)")
    settled(maria)
    assert maria.same("t", "id")


def test_a_table_renamed_into_the_selection_is_read(shop: Database, maria: MariaCapture) -> None:
    maria.options["tables"] = [f"{shop.name}.new_*"]
    shop.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    maria.until_read()
    shop.execute("RENAME TABLE t TO new_t", "INSERT INTO new_t VALUES (2)")
    settled(maria)
    assert maria.same("new_t", "id")


def test_a_change_of_key_is_a_schema_with_another_key(shop: Database, maria: MariaCapture) -> None:
    shop.execute(
        "CREATE TABLE t (a int PRIMARY KEY, b int NOT NULL)", "INSERT INTO t VALUES (1, 2)"
    )
    maria.until_read()
    shop.execute(
        "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (b)", "INSERT INTO t VALUES (3, 4)"
    )
    settled(maria)
    assert maria.events[-1].schema.key == ("b",)
