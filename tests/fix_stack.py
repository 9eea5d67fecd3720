"""The real servers that integration tests run on, started once per session, when first asked for.

`CDC_STACK=containers` takes the same servers from Docker images instead of child processes; what a
test may use of them is the same: `kafka.bootstrap`, `registry.url`, `postgres.url`,
`postgres.url_of`, `postgres.create_database`, `postgres.drop_database`, and on each `server` with
`kill`, `pause`, `resume`, `start` and `restart`. A test that hurts a server starts one of its own.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psycopg
import pytest

from cdc.local import LocalKafka, LocalPostgres, LocalRegistry

if TYPE_CHECKING:
    from containers import ContainerKafka, ContainerPostgres, ContainerRegistry

NEWEST = 18


def in_containers() -> bool:
    return os.environ.get("CDC_STACK") == "containers"


def a_kafka() -> LocalKafka | ContainerKafka:
    if in_containers():
        from containers import ContainerKafka

        return ContainerKafka()
    return LocalKafka()


def a_registry() -> LocalRegistry | ContainerRegistry:
    if in_containers():
        from containers import ContainerRegistry

        return ContainerRegistry()
    return LocalRegistry()


def a_postgres(version: int) -> LocalPostgres | ContainerPostgres:
    if in_containers():
        from containers import ContainerPostgres

        return ContainerPostgres(version)
    return LocalPostgres(version)


@pytest.fixture(scope="session")
def kafka() -> Iterator[LocalKafka | ContainerKafka]:
    """One broker for the whole session: name topics, groups and transactional ids uniquely."""
    with a_kafka() as server:
        yield server
        server.server.kill()  # it would put thousands of topics away that nobody will read


@pytest.fixture(scope="session")
def registry() -> Iterator[LocalRegistry | ContainerRegistry]:
    """One registry for the whole session: name subjects uniquely."""
    with a_registry() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Callable[[int], LocalPostgres | ContainerPostgres]]:
    """Give the session's server of a version (14 to 18), started when first asked for."""
    running: dict[int, LocalPostgres | ContainerPostgres] = {}
    with ExitStack() as stack:

        def server(version: int) -> LocalPostgres | ContainerPostgres:
            if version not in running:
                running[version] = stack.enter_context(a_postgres(version))
            return running[version]

        yield server


@pytest.fixture(scope="session")
def postgres(
    postgres_server: Callable[[int], LocalPostgres | ContainerPostgres],
) -> LocalPostgres | ContainerPostgres:
    """One server of the newest version for the whole session."""
    return postgres_server(NEWEST)


@pytest.fixture
def fresh_database(
    postgres: LocalPostgres | ContainerPostgres,
) -> Iterator[Callable[[], str]]:
    """Make empty databases, each call another one; all are dropped after the test."""
    names: list[str] = []

    def make() -> str:
        names.append(f"test_{secrets.token_hex(6)}")
        return postgres.create_database(names[-1])

    yield make
    for name in names:
        rollback_prepared(postgres.url_of(name))
        postgres.drop_database(name)


@pytest.fixture
def pg_database(fresh_database: Callable[[], str]) -> str:
    """Give the URL of an empty database, dropped after the test with its slots."""
    return fresh_database()


def rollback_prepared(url: str) -> None:
    """A prepared transaction outlives its session and forbids dropping its database."""
    with psycopg.connect(url, autocommit=True) as connection:
        mine = "select gid from pg_prepared_xacts where database = current_database()"
        for (gid,) in connection.execute(mine).fetchall():
            connection.execute(f"rollback prepared '{gid}'")
