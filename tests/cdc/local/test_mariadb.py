"""The local MariaDB: it starts, logs rows, survives being hurt, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pymysql
import pytest

from cdc.local import LocalMariaDB, LocalStackError
from cdc.local import mariadb as local_mariadb
from cdc.local.mariadb import refuse_missing_library
from cdc.local.process import free_port
from fix_pipeline import wait_until

ROOT = Path(__file__).parents[3]


def test_the_server_is_of_the_pinned_version_and_logs_whole_rows(mariadb: LocalMariaDB) -> None:
    wanted = {
        "log_bin": 1,
        "binlog_format": "ROW",
        "binlog_row_image": "FULL",
        "binlog_row_metadata": "FULL",
        "gtid_strict_mode": 1,
        "server_id": 1,
        "bind_address": "127.0.0.1",
        "time_zone": "+00:00",
    }
    [(version, *found)] = mariadb.execute(
        f"SELECT version(), {', '.join(f'@@{name}' for name in wanted)}"
    )
    assert version.startswith("11.4.5-MariaDB")
    assert found == list(wanted.values())


def test_the_server_wants_the_password(mariadb: LocalMariaDB) -> None:
    with pytest.raises(pymysql.OperationalError, match="Access denied"):
        mariadb.connect(password="wrong")


def test_a_database_is_dropped_under_an_open_transaction(mariadb: LocalMariaDB) -> None:
    mariadb.create_database("it's `odd`")
    with closing(mariadb.connect("it's `odd`")) as other, other.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id int)")
        cursor.execute("START TRANSACTION")
        cursor.execute("INSERT INTO t VALUES (1)")
        mariadb.drop_database("it's `odd`")
    assert ("it's `odd`",) not in mariadb.execute("SHOW DATABASES")


def test_a_server_that_starts_leaves_the_temporary_tables_of_another() -> None:
    with LocalMariaDB() as server, closing(server.connect("mysql")) as one, one.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE kept (id int) ENGINE = Aria")
        with LocalMariaDB():
            cursor.execute("DROP TEMPORARY TABLE kept")


def test_a_killed_server_comes_back_with_its_data_and_address() -> None:
    with LocalMariaDB() as server:
        url = server.create_database("shop")
        server.execute("CREATE TABLE shop.kept (id int)", "INSERT INTO shop.kept VALUES (1)")
        server.server.kill()
        with pytest.raises(pymysql.OperationalError):
            server.connect()
        server.server.start()
        assert server.url_of("shop") == url
        assert server.execute("SELECT * FROM shop.kept") == [(1,)]
        server.server.pause()
        with pytest.raises(pymysql.OperationalError):
            server.connect(connect_timeout=1, read_timeout=1)
        server.server.resume()
        server.server.restart()
        assert server.execute("SELECT * FROM shop.kept") == [(1,)]
        data = server.data
    assert not data.exists()


def test_a_port_that_another_takes_before_the_server_does_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        taken = other.getsockname()[1]
        ports = iter([taken, free_port()])
        monkeypatch.setattr(local_mariadb, "free_port", lambda _: next(ports))
        with LocalMariaDB() as server:
            assert server.port != taken
            assert server.execute("SELECT @@port") == [(server.port,)]


def test_given_data_is_kept_while_settings_are_those_of_each_start(tmp_path: Path) -> None:
    data = tmp_path / "maria"
    with LocalMariaDB(data=data, settings={"server_id": 7, "log_bin": False}) as server:
        assert server.execute("SELECT @@server_id, @@log_bin") == [(7, 0)]
        server.create_database("shop")
    with LocalMariaDB(data=data) as server:
        assert server.execute("SELECT @@server_id, @@log_bin") == [(1, 1)]
        assert ("shop",) in server.execute("SHOW DATABASES")
    wrong = LocalMariaDB(data=data, settings={"binlog_format": "SIDEWAYS"})
    with pytest.raises(LocalStackError, match=r"the end of its log:(.|\n)*SIDEWAYS"):
        wrong.start()
    assert not wrong.server.running


def test_a_missing_library_is_named_with_its_remedy(tmp_path: Path) -> None:
    program = tmp_path / "mariadbd"
    said = "mariadbd: error while loading shared libraries: libcrypt.so.1: cannot open"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 127\n")
    program.chmod(0o755)
    with pytest.raises(LocalStackError, match=r"needs libcrypt\.so\.1, which") as refused:
        refuse_missing_library(program)
    assert "apt-get install libcrypt1" in refused.value.hint


@pytest.mark.crash
def test_no_server_is_left_when_its_parent_is_killed() -> None:
    program = """if True:
        import time
        from cdc.local import LocalMariaDB
        with LocalMariaDB() as server:
            print(server.server.pid, flush=True)
            time.sleep(600)"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        assert server.is_running()
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: not server.is_running(), "the server has gone", 20)
