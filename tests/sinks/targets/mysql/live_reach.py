"""Rights, `cdc check` and refusals on a real MySQL. Run by `make mysql`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from borrowed import borrowed
from cdc.connections.mariadb import fetch
from cdc.errors import ConfigError, PreflightFailed, SchemaIncompatible, TargetUnavailable
from fix_mariadb import CONTEXT, Place
from mysql_server import RealMySQL
from schemas.table import Column, TableId, TableSchema, Type
from sinks.target import Mapped
from sinks.targets import mariadb as mariadb_target
from sinks.testing import ITEMS, span, upsert

SHARED = (
    "test_every_finding_of_a_user_without_rights_is_repaired_by_what_it_says",
    "test_the_rights_on_the_page_are_enough",
    "test_a_check_names_what_would_go_wrong",
    "test_a_server_that_logs_statements_alone_is_refused",
)
tests = borrowed(Path(__file__).parents[1] / "test_mariadb_reach.py")
globals().update({name: tests[name] for name in SHARED})

ID = Column("id", Type("int64"))
KEYLESS = TableSchema(TableId("public", "notes"), (ID, Column("note", Type("string"))), ())


def levels(place: Place) -> dict[str, str]:
    return {one.subject: one.level for one in place.module.check(CONTEXT, place.config)}


def test_the_mariadb_target_refuses_mysql_by_name_and_says_which_is_its(maria_place: Place) -> None:
    given = {**maria_place.options, "type": "mariadb"}
    config = mariadb_target.Config.model_validate(given)
    with pytest.raises(PreflightFailed, match="is no MariaDB: 9") as caught:
        mariadb_target.create(CONTEXT, config).open()
    assert "type: mysql" in caught.value.hint
    last = list(mariadb_target.check(CONTEXT, config))[-1]
    assert (last.subject, last.level) == ("version", "fail")


def test_a_connection_is_encrypted_where_the_url_asks_for_it(maria_place: Place) -> None:
    options = {**maria_place.options, "url": f"{maria_place.url}?ssl-mode=REQUIRED"}
    maria_place.config = maria_place.module.Config.model_validate(options)
    found = fetch(maria_place.open(ITEMS)._live(), "SHOW STATUS LIKE 'Ssl_cipher'")
    assert found[0][1].startswith("TLS")


# Rights


@pytest.fixture
def narrow(make_place: Callable[..., Place], server: RealMySQL) -> Place:
    """Give a place whose user has no right of its own."""
    place = make_place(tables={"shop.public.items": {"to": "items"}})
    user = f"u_{place.database}"
    place.query(f"CREATE USER {user}@'%' IDENTIFIED BY 'secret'")
    url = server.url_of(place.database, user, "secret")
    place.options = {**place.options, "url": url}
    place.config = place.module.Config.model_validate(place.options)
    return place


ALL = "CREATE, ALTER, CREATE TEMPORARY TABLES, SELECT, INSERT, UPDATE, DELETE"
TABLE = TableSchema(TableId("public", "items"), ITEMS.columns, ITEMS.key)


def test_rights_may_come_with_a_role(narrow: Place) -> None:
    user, role = f"u_{narrow.database}@'%'", f"r_{narrow.database}"
    narrow.query(
        f"CREATE ROLE {role}",
        f"GRANT {ALL} ON {narrow.database}.* TO {role}",
        f"GRANT {role} TO {user}",
        f"SET DEFAULT ROLE {role} TO {user}",
    )
    assert set(levels(narrow).values()) == {"ok"}
    target = narrow.open(TABLE)
    target.apply(upsert((b"1", b"pen", None), schema=TABLE), [span(None, 1)])
    assert narrow.rows(TABLE.table) == [(b"1", b"pen", None)]
    target.close()
    narrow.query(f"GRANT USAGE ON {narrow.database}.* TO {user}", f"DROP ROLE {role}")
    with pytest.raises(ConfigError):
        narrow.open(TABLE)


def test_rights_that_were_revoked_in_part_are_not_there(narrow: Place) -> None:
    user = f"u_{narrow.database}@'%'"
    narrow.query("SET GLOBAL partial_revokes = ON")
    try:
        narrow.query(
            f"GRANT {ALL} ON *.* TO {user}", f"REVOKE UPDATE ON {narrow.database}.* FROM {user}"
        )
        found = levels(narrow)
        assert (found["staging"], found[f"{narrow.database}.items"]) == ("ok", "fail")
    finally:
        narrow.query(f"DROP USER {user}", "SET GLOBAL partial_revokes = OFF")


# Keys that the server demands of every table


def test_a_server_that_demands_keys_gets_them_of_all_but_tables_without_one(
    make_place: Callable[..., Place],
) -> None:
    place = make_place(workers=2)
    place.query("SET GLOBAL sql_require_primary_key = ON")
    try:
        target = place.open(TABLE)
        target.apply(upsert((b"1", b"pen", None), schema=TABLE), [span(None, 1)])
        target.apply([[Mapped(TABLE, [], [(b"1",)])]], [span(1, 2)])
        with pytest.raises(SchemaIncompatible, match="primary key") as caught:
            target.prepare(KEYLESS)
        assert "`key:`" in caught.value.hint
    finally:
        place.query("SET GLOBAL sql_require_primary_key = OFF")


def test_a_key_that_the_server_makes_itself_is_left_to_it(maria_place: Place) -> None:
    maria_place.query("SET GLOBAL sql_generate_invisible_primary_key = ON")
    try:
        target = maria_place.open(KEYLESS)
        rows = [(b"1", b"a"), (b"1", b"a"), (b"2", None)]
        target.apply([[Mapped(KEYLESS, rows, [])]], [span(None, 1)])
        target.apply([[Mapped(KEYLESS, [], [(b"1", b"a"), (b"2", None)])]], [span(1, 2)])
        assert maria_place.rows(KEYLESS.table) == [(b"1", b"a")]
    finally:
        maria_place.query("SET GLOBAL sql_generate_invisible_primary_key = OFF")


def test_a_server_that_is_read_only_is_waited_for(narrow: Place) -> None:
    narrow.query(f"GRANT {ALL} ON {narrow.database}.* TO u_{narrow.database}@'%'")
    target = narrow.open(TABLE)
    narrow.query("SET GLOBAL read_only = ON")
    try:
        with pytest.raises(TargetUnavailable, match=r"read.only"):
            target.apply(upsert((b"1", b"pen", None), schema=TABLE), [span(None, 1)])
    finally:
        narrow.query("SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF")
    target.apply(upsert((b"1", b"pen", None), schema=TABLE), [span(None, 1)])
    assert narrow.rows(TABLE.table) == [(b"1", b"pen", None)]
