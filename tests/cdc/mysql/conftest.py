"""Real servers and sources on them, for `make mysql`; what `make test` runs here asks for none."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from fix_mariadb_capture import Database
from mysql_capture import MyCapture
from mysql_server import RELEASE, RealMySQL


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the server cannot do yet."""

    def is_late(item: pytest.Item) -> bool:
        return any(mark.args > RELEASE for mark in item.iter_markers("since"))

    config.hook.pytest_deselected(items=[item for item in items if is_late(item)])
    items[:] = [item for item in items if not is_late(item)]


@pytest.fixture(scope="session")
def server() -> Iterator[RealMySQL]:
    with RealMySQL() as made:
        yield made


@pytest.fixture
def shop(server: RealMySQL) -> Iterator[Database]:
    name = f"shop_{secrets.token_hex(4)}"
    url = server.create_database(name)
    with closing(server.connect(name)) as connection:
        yield Database(url, connection)
    server.drop_database(name)


@pytest.fixture
def make(shop: Database) -> Iterator[Callable[..., MyCapture]]:
    made: list[MyCapture] = []

    def one(**options: Any) -> MyCapture:
        made.append(MyCapture(shop, **options))
        return made[-1]

    yield one
    for capture in made:
        capture.kill()


@pytest.fixture
def capture(make: Callable[..., MyCapture]) -> MyCapture:
    return make()


@pytest.fixture
def own() -> Iterator[RealMySQL]:
    """A server that a test may harm."""
    with RealMySQL() as made:
        yield made
