"""`cdc local`: what a person types, on a stack with a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest
from typer.testing import CliRunner, Result

from cdc.cli.local import app
from cdc.connections.mariadb import Login, connect, fetch
from cdc.local import LocalStackError, standing
from cdc.local.cache import cache_folder
from cdc.local.stack import LocalStack


def cdc_local(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The real cache under another name, so that a stack of the person at work is left alone."""
    LocalStack(databases=("postgres", "mariadb")).prepare()
    real = cache_folder()
    cache = tmp_path / "cache"
    cache.mkdir()
    for entry in real.iterdir():
        if entry.is_dir() and entry.name != "standing":
            (cache / entry.name).symlink_to(entry)
    monkeypatch.setenv("CDC_CACHE", str(cache))
    yield cache / "standing"
    standing.down()


def test_up_status_logs_down(folder: Path) -> None:
    up = json.loads(cdc_local("up", "--json").stdout)
    assert cdc_local("status").exit_code == 0
    assert json.loads(cdc_local("status", "--json").stdout) == up
    url = up["postgres"]["url"]
    with psycopg.connect(url) as connection:
        connection.execute("create table kept (id int)")
    assert "database system is ready" in cdc_local("logs", "postgres").stdout
    assert set(json.loads(cdc_local("logs", "--json").stdout)) == {"kafka", "registry", "postgres"}
    assert cdc_local("down").stdout == "The local stack is down.\n"
    for name in ("kafka", "registry", "postgres"):
        assert not psutil.pid_exists(up[name]["pid"])
    again = json.loads(cdc_local("up", "--json").stdout)
    with psycopg.connect(again["postgres"]["url"]) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)
    assert cdc_local("down", "--wipe").exit_code == 0
    assert not folder.exists()


def test_up_twice_is_one_stack(folder: Path) -> None:
    first = cdc_local("up", "--json").stdout
    assert cdc_local("up", "--json").stdout == first
    with pytest.raises(LocalStackError, match="has no MariaDB"):
        standing.up(mariadb=True)
    assert (folder / "state.json").stat().st_mode & 0o777 == 0o600


def test_status_prints_what_a_pipeline_file_needs(folder: Path) -> None:
    up = json.loads(cdc_local("up", "--mariadb", "--json").stdout)
    said = cdc_local("status").stdout
    kafka, registry = up["kafka"]["bootstrap"], up["registry"]["url"]
    assert f'kafka: {{bootstrap: "{kafka}", registry: "{registry}"}}' in said
    assert up["postgres"]["url"] in said
    assert up["mariadb"]["url"] in said
    with closing(connect(Login(up["mariadb"]["url"], "test"))) as connection:
        assert fetch(connection, "SELECT @@binlog_format") == [("ROW",)]
    assert "ready for connections" in cdc_local("logs", "mariadb").stdout
    cdc_local("down")
    assert not psutil.pid_exists(up["mariadb"]["pid"])


def test_a_killed_supervisor_takes_its_servers_along(folder: Path) -> None:
    up = json.loads(cdc_local("up", "--json").stdout)
    servers = [psutil.Process(up[name]["pid"]) for name in ("kafka", "registry", "postgres")]
    psutil.Process(up["pid"]).kill()
    _gone, left = psutil.wait_procs(servers, timeout=20)
    assert not left
    assert cdc_local("status").exit_code == 4


def test_nothing_up_is_said_with_exit_code_4(folder: Path) -> None:
    assert cdc_local("status").exit_code == 4
    assert cdc_local("logs").exit_code == 4
    assert cdc_local("down").stdout == "No local stack was up.\n"


def test_a_start_that_fails_shows_the_log_and_leaves_nothing(folder: Path) -> None:
    (folder / "postgres" / "data").mkdir(parents=True)
    (folder / "postgres" / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(LocalStackError, match="is of PostgreSQL 17, not 18"):
        standing.up()
    assert standing.status() is None
    shutil.rmtree(folder)


def test_a_state_of_a_newer_version_is_refused_by_name(folder: Path) -> None:
    folder.mkdir()
    path = folder / "state.json"
    path.write_text('{"version": 2}')
    with pytest.raises(LocalStackError, match="is of version 2, this Tailrace knows 1"):
        standing.status()
    path.unlink()


def test_a_state_left_by_a_crash_is_not_taken_for_a_stack(folder: Path) -> None:
    server = standing.ServerState("nowhere", 1, "none")
    mine = standing.State(os.getpid(), 1.0, server, server, server)
    assert not mine.running
