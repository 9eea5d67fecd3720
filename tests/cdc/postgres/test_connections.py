"""Reaching Postgres: verified unless local, text that never varies, refusals with a remedy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo

from cdc.connections.postgres import Login, connect, connect_replication, parameters
from cdc.errors import ConfigError, SourceUnavailable, TargetUnavailable
from cdc.local import LocalPostgres
from fix_tls import Authority

HOST = "127.0.0.1"


def login(url: str) -> Login:
    return Login(url, "cdc test")


def given(url: str) -> dict[str, str]:
    return parameters(login(url))


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PGHOST", "PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.9.9.9", "%5B::1%5D", "%2Fvar%2Frun", ""]
)
def test_this_machine_is_reached_without_a_certificate(host: str) -> None:
    assert given(f"postgresql://u@{host.replace('%5B', '[').replace('%5D', ']')}/d")["sslmode"] == (
        "prefer"
    )


@pytest.mark.parametrize("host", ["db.example.com", "10.0.0.1", "localhost,db.example.com"])
def test_every_other_machine_must_prove_who_it_is(host: str) -> None:
    parts = given(f"postgresql://u@{host}/d")
    assert parts["sslmode"] == "verify-full"
    assert parts["sslrootcert"] == "system"


def test_the_url_and_the_environment_have_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given("postgresql://u@db.example.com/d?sslmode=require")["sslmode"] == "require"
    own = given("postgresql://u@db.example.com/d?sslrootcert=/ca.pem")
    assert (own["sslmode"], own["sslrootcert"]) == ("verify-full", "/ca.pem")
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert "sslmode" not in given("postgresql://u@db.example.com/d")


def test_a_url_that_cannot_be_read_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        given("postgresql://u:hunter2@host:notaport:x/d?nonsense=1")
    assert "hunter2" not in str(caught.value) + caught.value.hint


def test_settings_of_role_and_database_do_not_change_the_text_of_values(pg_database: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(pg_database)["dbname"]
    hostile = {
        "DateStyle": "German",
        "IntervalStyle": "iso_8601",
        "TimeZone": "Asia/Tokyo",
        "bytea_output": "escape",
        "extra_float_digits": "-5",
    }
    with psycopg.connect(pg_database, autocommit=True) as admin:
        for setting, value in hostile.items():
            admin.execute(f"ALTER DATABASE \"{name}\" SET {setting} = '{value}'")
    query = (
        "SELECT '2026-02-03'::date::text, '1 day 02:00'::interval::text, '\\x00ff'::bytea::text,"
        " 0.1::float8::text, '2026-02-03 04:05+00'::timestamptz::text"
    )
    with connect(login(pg_database)) as connection:
        assert connection.execute(query).fetchone() == (
            "2026-02-03",
            "1 day 02:00:00",
            "\\x00ff",
            "0.1",
            "2026-02-03 04:05:00+00",
        )
    pgconn = connect_replication(login(pg_database))
    shown = pgconn.exec_(b"SHOW DateStyle")
    assert shown.get_value(0, 0) == b"ISO, YMD"
    pgconn.finish()


def test_a_server_that_is_away_is_worth_another_try() -> None:
    nowhere = "postgresql://u:p@127.0.0.1:1/d"
    with pytest.raises(SourceUnavailable):
        connect(login(nowhere))
    with pytest.raises(SourceUnavailable):
        connect_replication(login(nowhere))
    with pytest.raises(TargetUnavailable):
        connect(Login(nowhere, "cdc test", TargetUnavailable))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"dbname": "nowhere"}, "does not exist"),
    ],
)
def test_a_refusal_is_final_and_names_the_remedy(
    pg_database: str, change: dict[str, str], said: str
) -> None:
    url = conninfo.make_conninfo(pg_database, **change)
    with pytest.raises(ConfigError, match=said) as caught:
        connect(login(url))
    assert caught.value.hint


def test_the_application_is_seen_by_its_name(pg_database: str) -> None:
    with connect(login(pg_database)) as connection:
        shown = connection.execute("SELECT current_setting('application_name')").fetchone()
    assert shown == ("cdc test",)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "tests")


@pytest.fixture(scope="module")
def tls_server(authority: Authority) -> Iterator[LocalPostgres]:
    """A server that answers over TLS, with a certificate for 127.0.0.1."""
    with LocalPostgres(18) as server:
        mine = authority.identity("postgres", (HOST,))
        for name, path in (("server.crt", mine.cert), ("server.key", mine.key)):
            placed = server.data / name
            placed.write_bytes(path.read_bytes())
            owner = server.data.stat()
            placed.chmod(0o600)
            if placed.stat().st_uid != owner.st_uid:
                os.chown(placed, owner.st_uid, owner.st_gid)
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET ssl = on")
            admin.execute("SELECT pg_reload_conf()")
        server.server.restart()
        yield server


def test_a_certificate_of_the_named_authority_is_accepted(
    tls_server: LocalPostgres, authority: Authority
) -> None:
    url = f"{tls_server.url}?sslmode=verify-full&sslrootcert={authority.ca}"
    with connect(login(url)) as connection:
        mine = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert connection.execute(mine).fetchone() == (True,)
    pgconn = connect_replication(login(url))
    assert pgconn.ssl_in_use
    pgconn.finish()


def test_a_certificate_of_nobody_known_is_refused(
    tls_server: LocalPostgres, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "somebody")
    for root in (str(other.ca), "system"):
        url = f"{tls_server.url}?sslmode=verify-full&sslrootcert={root}"
        with pytest.raises(ConfigError, match="certificate verify failed") as caught:
            connect(login(url))
        assert "sslrootcert" in caught.value.hint
