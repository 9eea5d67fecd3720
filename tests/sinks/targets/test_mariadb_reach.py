"""How the MariaDB target is reached, what it asks for, and what `cdc check` says where it lacks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from cdc.connections.mariadb import Login, address, connect, fetch
from cdc.connector import Finding
from cdc.errors import CdcError, ConfigError, PreflightFailed, TargetUnavailable
from cdc.local import LocalMariaDB
from cdc.local.process import free_port
from fix_mariadb import CONTEXT, Place
from fix_tls import Authority
from schemas.table import TableId, TableSchema
from sinks.mariadb.server import MariaDB
from sinks.targets import mariadb as target_module
from sinks.testing import ITEMS, span, upsert


def login(url: str) -> Login:
    return Login(url, "test", TargetUnavailable)


# The URL


def test_a_server_elsewhere_is_verified_unless_the_url_says_otherwise() -> None:
    modes = {
        "mariadb://u@db.example.com/shop": "VERIFY_IDENTITY",
        "mysql://u@127.0.0.1/shop": "PREFERRED",
        "mariadb://u@localhost/shop?ssl-mode=verify_ca": "VERIFY_CA",
        "mariadb://u@db.example.com/shop?ssl_mode=REQUIRED": "REQUIRED",
    }
    assert {url: address(login(url)).ssl_mode for url in modes} == modes


def test_what_a_url_cannot_hold_is_written_with_percent_signs() -> None:
    found = address(login("mariadb://a%40b:p%2F%C3%BC%3A@[::1]:3307/it%27s?ssl-ca=/etc/ca.pem"))
    assert (found.user, found.password, found.database) == ("a@b", "p/ü:", "it's")
    assert (found.host, found.port, found.files) == ("::1", 3307, {"ssl-ca": "/etc/ca.pem"})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hidden@h/d",
        "mariadb://u:hidden@h:port/d",
        "mariadb:///d",
        "mariadb://u:hidden@h/d?sslmode=require",
        "mariadb://u:hidden@h/d?ssl-mode=perhaps",
        "mariadb://u:hidden@h",
        "mariadb://u:hidden@127.0.0.1/d?ssl-mode=REQUIRED&ssl-ca=/not/there.pem",
    ],
)
def test_a_url_that_cannot_be_used_is_told_without_its_password(url: str) -> None:
    config = target_module.Config.model_validate({"url": url, "tables": ["shop.*"]})
    with pytest.raises(ConfigError) as caught:
        target_module.create(CONTEXT, config).open()
    assert "hidden" not in f"{caught.value} {caught.value.hint} {config}"
    [finding] = target_module.check(CONTEXT, config)
    assert finding.level == "fail"


def test_a_wrong_login_is_told_with_its_remedy_and_an_absent_server_is_waited_for(
    mariadb: LocalMariaDB, fresh: str
) -> None:
    wrong: dict[str, type[CdcError]] = {
        fresh.replace("root:", "root:x"): ConfigError,
        f"{fresh}_not": ConfigError,
        fresh.replace(f":{mariadb.port}/", f":{free_port()}/"): TargetUnavailable,
        f"{fresh}?ssl-mode=REQUIRED": ConfigError,
    }
    for url, kind in wrong.items():
        with pytest.raises(kind) as caught:
            connect(login(url))
        assert caught.value.hint


# TLS


@pytest.fixture(scope="module")
def guarded(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a server that lets `tailrace` in through TLS alone."""
    folder = tmp_path_factory.mktemp("maria")
    identity = authority.identity("mariadb", ("127.0.0.1",))
    with LocalMariaDB(data=folder / "home", settings={"log_bin": False}) as server:
        for path in (identity.cert, identity.key):
            kept = server.data / path.name
            shutil.copy(path, kept)
            shutil.chown(kept, server.data.stat().st_uid, server.data.stat().st_gid)
        server.create_database("shop")
        server.execute(
            "CREATE USER tailrace@'%' IDENTIFIED BY 'päss' REQUIRE SSL",
            "GRANT ALL ON shop.* TO tailrace@'%'",
        )
    settings = {"ssl": True, "ssl_cert": identity.cert.name, "ssl_key": identity.key.name}
    with LocalMariaDB(data=folder / "home", settings=settings) as server:
        yield server.url_of("shop", "tailrace", quote("päss"))


def test_the_certificate_of_the_server_is_verified(
    guarded: str, authority: Authority, stranger: Authority
) -> None:
    for mode in ("VERIFY_IDENTITY", "VERIFY_CA", "REQUIRED", "PREFERRED"):
        connection = connect(login(f"{guarded}?ssl-mode={mode}&ssl-ca={authority.ca}"))
        [(_, cipher)] = fetch(connection, "SHOW STATUS LIKE 'Ssl_cipher'")
        connection.close()
        assert cipher.startswith("TLS")
    for mode in ("VERIFY_IDENTITY", "VERIFY_CA"):
        for ca in (f"&ssl-ca={stranger.ca}", ""):
            with pytest.raises(ConfigError, match="certificate verify failed") as caught:
                connect(login(f"{guarded}?ssl-mode={mode}{ca}"))
            assert "ssl-ca=FILE" in caught.value.hint


def test_a_certificate_of_another_name_is_refused(guarded: str, authority: Authority) -> None:
    other = guarded.replace("127.0.0.1", "localhost")
    connect(login(f"{other}?ssl-mode=VERIFY_CA&ssl-ca={authority.ca}")).close()
    with pytest.raises(ConfigError, match="certificate verify failed"):
        connect(login(f"{other}?ssl-mode=VERIFY_IDENTITY&ssl-ca={authority.ca}"))
    with pytest.raises(ConfigError, match="Access denied"):
        connect(login(f"{guarded}?ssl-mode=DISABLED"))


# Rights, and `cdc check`


def found(place: Place) -> dict[str, Finding]:
    return {finding.subject: finding for finding in place.module.check(CONTEXT, place.config)}


def as_user(place: Place, *grants: str) -> None:
    """Let the place be reached as a user with some rights alone."""
    name = f"u_{place.database}"
    place.query(f"CREATE USER {name}@'%' IDENTIFIED BY 'secret'")
    place.query(f"GRANT USAGE ON {place.database}.* TO {name}@'%'")
    for grant in grants:
        place.query(f"GRANT {grant} ON {place.database}.* TO {name}@'%'")
    url = place.server.url_of(place.database, name, "secret")
    values = {"url": url, "tables": {"shop.public.items": {"to": "items"}}}
    place.config = place.config.model_validate({**place.config.model_dump(), **values})


PUBLIC = TableSchema(TableId("public", "items"), ITEMS.columns, ITEMS.key)


def test_every_finding_of_a_user_without_rights_is_repaired_by_what_it_says(
    maria_place: Place,
) -> None:
    as_user(maria_place, "SELECT")
    findings = found(maria_place)
    repairs = [finding.repair for finding in findings.values() if finding.level == "fail"]
    assert len(repairs) == 3
    with pytest.raises(PreflightFailed, match=r"may not|lacks a right"):
        maria_place.open()
    maria_place.query(*(repair.rstrip(";") for repair in repairs))
    assert {finding.level for finding in found(maria_place).values()} == {"ok"}
    target = maria_place.open(PUBLIC)
    target.apply(upsert((b"1", b"pen", None), schema=PUBLIC), [span(None, 1)])
    assert maria_place.rows(PUBLIC.table) == [(b"1", b"pen", None)]


def test_the_rights_on_the_page_are_enough(maria_place: Place) -> None:
    page = Path(f"sinks/targets/{maria_place.dialect.word}.md").read_text("utf-8")
    grants = [line for line in page.splitlines() if line.startswith("GRANT ")]
    wide, narrow = [grant.removeprefix("GRANT ").partition(" ON ")[0] for grant in grants]
    as_user(maria_place, wide)
    assert {finding.level for finding in found(maria_place).values()} == {"ok"}
    maria_place.open(PUBLIC)
    user = f"u_{maria_place.database}@'%'"
    maria_place.query(f"REVOKE ALL ON {maria_place.database}.* FROM {user}")
    maria_place.query(f"GRANT {narrow} ON {maria_place.database}.* TO {user}")
    target = maria_place.open(PUBLIC)
    target.apply(upsert((b"1", b"pen", None), schema=PUBLIC), [span(None, 1)])
    assert {finding.level for finding in found(maria_place).values()} == {"ok"}


def test_a_check_names_what_would_go_wrong(make_place: Callable[..., Place]) -> None:
    tables = {"shop.a": {"to": "a"}, "shop.b": {"to": "b"}, "shop.c": {"to": "c"}}
    place = make_place(tables=tables, workers=2, schema_changes="frozen")
    place.query(
        "CREATE TABLE a (id int PRIMARY KEY, name varchar(9) UNIQUE)",
        "CREATE TABLE b (id int PRIMARY KEY) ENGINE=MyISAM",
    )
    findings = {f.message: f for f in place.module.check(CONTEXT, place.config)}
    levels = [(f.subject.rpartition(".")[2], f.level) for f in findings.values()]
    assert ("a", "warn") in levels
    assert ("b", "fail") in levels
    assert ("c", "fail") in levels
    assert [f.repair for f in findings.values() if "MyISAM" in f.message] == [
        f"ALTER TABLE `{place.database}`.`b` ENGINE=InnoDB;"
    ]


@pytest.mark.parametrize(
    ("version", "told"), [("8.0.36", "is no MariaDB"), ("10.6.18-MariaDB-log", "older than 10.11")]
)
def test_a_server_that_was_not_tested_is_refused_by_name(
    maria_place: Place, monkeypatch: pytest.MonkeyPatch, version: str, told: str
) -> None:
    monkeypatch.setattr(MariaDB, "version", lambda *_: version)
    with pytest.raises(PreflightFailed, match=told):
        maria_place.open()
    assert found(maria_place)["version"].level == "fail"


def test_a_server_that_logs_statements_alone_is_refused(maria_place: Place) -> None:
    maria_place.query("SET GLOBAL binlog_format = 'STATEMENT'")
    try:
        with pytest.raises(PreflightFailed, match="logs statements") as caught:
            maria_place.open()
        maria_place.query(caught.value.hint.rstrip(";"))
        maria_place.open()
    finally:
        maria_place.query("SET GLOBAL binlog_format = 'ROW'")
