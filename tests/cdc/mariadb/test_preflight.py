"""`cdc check` names what is missing and the SQL that repairs it; the least rights are enough."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from cdc.connector import Context
from cdc.local import LocalMariaDB
from cdc.sources.mariadb import Config, check, discover
from fix_mariadb_capture import Database, MariaCapture

PASSWORD = "least"


@pytest.fixture
def reader(shop: Database, mariadb: LocalMariaDB) -> Iterator[str]:
    """A user that may do nothing yet."""
    name = f"reader_{secrets.token_hex(3)}"
    mariadb.execute(f"CREATE USER {name}@'%' IDENTIFIED BY '{PASSWORD}'")
    yield name
    mariadb.execute(f"DROP USER {name}@'%'")


def found(url: str, *tables: str) -> dict[str, tuple[str, str, str]]:
    config = Config.model_validate({"url": url, "tables": list(tables), "heartbeat": 1})
    seen = check(Context("test", "shop"), config)
    return {item.subject: (item.level, item.message, item.repair) for item in seen}


def test_a_user_with_the_grants_of_the_page_can_do_everything(
    shop: Database, mariadb: LocalMariaDB, reader: str
) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    mariadb.execute(
        f"GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO {reader}@'%'",
        f"GRANT SELECT ON {shop.name}.* TO {reader}@'%'",
    )
    url = mariadb.url_of(shop.name, reader, PASSWORD)
    told = found(url, f"{shop.name}.*")
    assert {level for level, _, _ in told.values()} == {"ok"}, told
    with MariaCapture(shop, url=url) as maria:
        maria.until_read()
        shop.execute("INSERT INTO t VALUES (2)")
        maria.until_caught_up()
        assert maria.same("t", "id")


def test_a_user_without_them_is_told_which(
    shop: Database, mariadb: LocalMariaDB, reader: str
) -> None:
    url = mariadb.url_of("", reader, PASSWORD)
    told = found(url, f"{shop.name}.*")
    assert told["log"][0] == "fail"
    assert f"GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `{reader}`@'%'" in told["log"][2]
    assert told["tables"][0] == "warn"
    mariadb.execute(told["log"][2])
    assert found(url, f"{shop.name}.*")["log"][0] == "ok"


def test_what_a_table_lacks_is_named(shop: Database) -> None:
    shop.execute(
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE child (id int PRIMARY KEY, p int, CONSTRAINT c FOREIGN KEY (p) "
        "REFERENCES parent (id) ON DELETE CASCADE)",
        "CREATE TABLE keyless (id int)",
        "CREATE TABLE old (id int PRIMARY KEY) ENGINE = Aria",
        "CREATE TABLE past (id int PRIMARY KEY) WITH SYSTEM VERSIONING",
        "CREATE TABLE named (k enum('a') PRIMARY KEY)",
    )
    config = Config.model_validate({"url": shop.url, "tables": [f"{shop.name}.*"]})
    told = [
        (item.level, item.subject.partition(".")[2], item.message)
        for item in check(Context("test", "shop"), config)
        if item.subject.startswith(shop.name) and item.level != "ok"
    ]
    assert [(level, table) for level, table, _ in told] == [
        ("warn", "child"),
        ("warn", "keyless"),
        ("warn", "named"),
        ("warn", "old"),
        ("fail", "past"),
    ]
    assert "changes rows unlogged" in told[0][2]


@pytest.mark.usefixtures("row_metadata")
def test_a_log_without_names_is_warned_of(shop: Database) -> None:
    level, told, _ = found(shop.url, f"{shop.name}.*")["binlog_row_metadata"]
    assert level == "warn"
    assert "NO_LOG" in told


def test_a_wrong_password_is_a_finding(mariadb: LocalMariaDB) -> None:
    told = found(mariadb.url_of("", "nobody", "wrong"), "*.*")
    assert told["connection"][0] == "fail"
    assert "wrong" not in str(told)


def test_tables_are_discovered_with_keys_and_types(shop: Database) -> None:
    shop.execute("CREATE TABLE t (b int, a int unsigned, PRIMARY KEY (a, b))")
    [schema] = discover(Config.model_validate({"url": shop.url, "tables": [f"{shop.name}.*"]}))
    assert schema.key == ("b", "a")
    assert [column.type.logical for column in schema.columns] == ["int32", "int64"]
