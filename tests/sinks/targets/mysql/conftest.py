"""A real MySQL in the place of MariaDB, for `make mysql`; `make test` asks for none."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from fix_mariadb import Place
from mysql_server import WRITER, RealMySQL
from sinks.mysql import server as mysql
from sinks.mysql.server import MySQL
from sinks.targets import mysql as mysql_target


class MySQLPlace(Place):
    module = mysql_target
    dialect = MySQL()

    def be_impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(MySQL, "settings", {**MySQL.settings, "innodb_lock_wait_timeout": 1})
        monkeypatch.setattr(mysql, "IDLE_S", 2)


class Server(RealMySQL):
    """One whose databases are there to be written into."""

    def create_database(self, name: str) -> str:
        super().create_database(name)
        return self.url_of(name, WRITER)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server("--max-allowed-packet=16M") as made:
        yield made


@pytest.fixture(scope="session")
def mariadb(server: Server) -> Server:
    return server


@pytest.fixture
def fresh(server: Server) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    yield server.create_database(name)
    server.drop_database(name)


@pytest.fixture
def make_place(server: Server, fresh: str) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def one(**options: object) -> Place:
        made.append(MySQLPlace(server, fresh, **options))
        return made[-1]

    yield one
    for place in made:
        place.close()
