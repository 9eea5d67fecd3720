"""A real MariaDB for the session, and an empty database of a test's own on it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from cdc.local import LocalMariaDB


@pytest.fixture(scope="session")
def mariadb() -> Iterator[LocalMariaDB]:
    """One server for the whole session; a test that hurts a server starts one of its own."""
    with LocalMariaDB() as server:
        yield server


@pytest.fixture
def fresh(mariadb: LocalMariaDB) -> Iterator[str]:
    """Give the URL of an empty database, dropped after the test."""
    name = f"test_{secrets.token_hex(6)}"
    yield mariadb.create_database(name)
    mariadb.drop_database(name)
