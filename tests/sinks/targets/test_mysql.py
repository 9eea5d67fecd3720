"""What of the MySQL target needs no MySQL; the rest is run by `make mysql` (`mysql/live_*.py`)."""

from __future__ import annotations

import pytest

from cdc.errors import PreflightFailed
from fix_mariadb import CONTEXT, Place
from schemas.table import Type
from sinks.mariadb.dialect import Dialect
from sinks.mariadb.server import MariaDB
from sinks.mysql.rights import told
from sinks.mysql.server import MySQL
from sinks.targets import mysql as mysql_target


def asked(place: Place) -> mysql_target.Config:
    return mysql_target.Config.model_validate({"url": place.url, "tables": []})


def refused(place: Place) -> PreflightFailed:
    """Have a server refused by `open` and by `cdc check`."""
    with pytest.raises(PreflightFailed) as caught:
        mysql_target.create(CONTEXT, asked(place)).open()
    last = list(mysql_target.check(CONTEXT, asked(place)))[-1]
    assert (last.level, last.message) == ("fail", str(caught.value))
    return caught.value


def test_a_real_mariadb_is_refused_by_name_and_told_which_target_is_its(maria_place: Place) -> None:
    error = refused(maria_place)
    assert "is no MySQL: 11.4" in str(error)
    assert "type: mariadb" in error.hint


@pytest.mark.parametrize(
    ("version", "engine", "told_of"),
    [
        ("8.0.11-TiDB-v8.5.1, TiDB Server (Apache License 2.0)", "5.6.25", "is no MySQL: 8.0.11-T"),
        ("5.7.32, SingleStoreDB source distribution", "", "is no MySQL: 5.7.32, Single"),
        ("9.7.4, Like MySQL", "9.7", "is no MySQL: 9.7.4"),
        ("8.0.18, MySQL Community Server - GPL", "8.0.18", "is older than 8.0.19"),
        ("5.7.44-log, MySQL Community Server (GPL)", "5.7.44", "is older than 8.0.19"),
    ],
)
def test_a_server_that_is_none_or_too_old_is_refused_by_name(
    maria_place: Place,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    engine: str,
    told_of: str,
) -> None:
    monkeypatch.setattr(MySQL, "version", lambda *_: version)
    monkeypatch.setattr(MySQL, "engine", lambda *_: engine)
    assert told_of in str(refused(maria_place))


def test_a_server_without_innodb_has_no_version_of_it(
    maria_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB knows no such variable any more."""
    monkeypatch.setattr(MySQL, "version", lambda *_: "9.7.4, Like MySQL")
    assert "InnoDB is not there" in str(refused(maria_place))


# Rights

EVERY = {"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "CREATE TEMPORARY TABLES"}


@pytest.mark.parametrize(
    ("lines", "held"),
    [
        (["GRANT USAGE ON *.* TO `u`@`%`"], {"USAGE"}),
        (["GRANT ALL PRIVILEGES ON `my_shop`.* TO `u`@`%` WITH GRANT OPTION"], EVERY),
        (["GRANT SELECT, INSERT ON *.* TO `u`@`%`"], {"SELECT", "INSERT"}),
        (["GRANT SELECT ON `my\\_shop`.* TO `u`@`%`"], {"SELECT"}),
        (["GRANT SELECT ON `my%`.* TO `u`@`%`"], {"SELECT"}),
        (["GRANT SELECT ON `myxshop`.* TO `u`@`%`"], set()),
        (["GRANT SELECT ON `my_shop`.`it``s` TO `u`@`%`"], {"SELECT"}),
        (["GRANT SELECT ON `my_shop`.`its` TO `u`@`%`"], set()),
        (["GRANT SELECT (`a`, `b`), DELETE ON `my_shop`.`it``s` TO `u`@`%`"], {"DELETE"}),
        (["GRANT `r`@`%` TO `u`@`%`"], set()),
        (["GRANT SELECT ON *.* TO `u`@`%`", "GRANT UPDATE ON `my_shop`.* TO `r`@`%`"],
         {"SELECT", "UPDATE"}),
    ],
)  # fmt: skip
def test_what_a_user_may_do_is_read_from_its_grants(lines: list[str], held: set[str]) -> None:
    assert told(lines, "my_shop", "it`s", literal=False) == held


def test_rights_revoked_in_part_are_taken_off_and_names_are_no_patterns_then() -> None:
    lines = [
        "GRANT SELECT, INSERT ON *.* TO `u`@`%`",
        "REVOKE INSERT ON `my_shop`.* FROM `u`@`%`",
        "GRANT UPDATE ON `my%`.* TO `u`@`%`",
    ]
    assert told(lines, "my_shop", "t", literal=True) == {"SELECT"}
    assert told(lines, "other", "t", literal=True) == {"SELECT", "INSERT"}


def test_rights_to_one_table_are_none_to_its_database() -> None:
    lines = ["GRANT CREATE TEMPORARY TABLES ON `shop`.`t` TO `u`@`%`"]
    assert told(lines, "shop", "", literal=False) == set()


# Forms


@pytest.mark.parametrize("dialect", [MariaDB(), MySQL()], ids=["mariadb", "mysql"])
def test_a_key_of_several_types_fits_into_an_index(dialect: Dialect) -> None:
    bytes_of = {"CHAR(36)": 144, "UUID": 16, "BIGINT": 8, "DECIMAL(65,30)": 30}
    kinds = [
        Type("uuid"), Type("int64"), Type("decimal", "", 65, 30), Type("string"), Type("bytes"),
    ]  # fmt: skip
    made = [dialect.forms.key_storage(kind, kinds) for kind in kinds]
    total = sum(bytes_of.get(kind, 0) for kind in made)
    for kind in made[3:]:
        characters = int(kind.partition("(")[2].rstrip(")"))
        total += characters * (4 if kind.startswith("VARCHAR") else 1)
    assert 2500 < total <= 3072


@pytest.mark.parametrize("text", [b"none", b"", b"{0e37df36-f698-11e6-8dd4-cb9ced3df976}"])
def test_what_is_no_uuid_has_no_literal(text: bytes) -> None:
    with pytest.raises(ValueError, match="is no uuid"):
        MySQL.forms.literal(Type("uuid"), text)
