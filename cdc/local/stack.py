"""Kafka, registry and databases together, started at the same time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from cdc.local import mariadb, postgres, registry
from cdc.local.fetch import fetch
from cdc.local.kafka import LocalKafka
from cdc.local.mariadb import LocalMariaDB
from cdc.local.parts import kafka_parts
from cdc.local.postgres import LocalPostgres
from cdc.local.registry import LocalRegistry

__all__ = ["LocalStack"]


class Startable(Protocol):
    """What the stack starts and stops."""

    def start(self) -> None:
        """Start and wait until ready."""

    def stop(self) -> None:
        """Stop; nothing to do when it does not run."""


class LocalStack:
    """Kafka, registry and databases; `with LocalStack() as stack:` or `start()` and `stop()`.

    `databases` says which run, of "postgres" and "mariadb"; `version` is that of Postgres; `data`
    keeps everything below one folder; `ports` are the preferred ones of Kafka, registry, Postgres
    and MariaDB: where one is taken, the next free one is used.
    """

    def __init__(
        self,
        *,
        version: int = 18,
        databases: Collection[str] = ("postgres",),
        data: Path | None = None,
        ports: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> None:
        names = ("kafka", "registry", "postgres", "mariadb")
        folders = [data / name if data else None for name in names]
        self.kafka = LocalKafka(data=folders[0], port=ports[0])
        self.registry = LocalRegistry(data=folders[1], port=ports[1])
        self.postgres = LocalPostgres(version, data=folders[2], port=ports[2])
        self.mariadb = LocalMariaDB(data=folders[3], port=ports[3])
        self._databases = databases

    def prepare(self) -> None:
        """Fetch what is missing, with one display of progress for all.

        Raises:
            LocalStackError: a part cannot be had, or has other bytes than it should.
        """
        missing = [*kafka_parts(), *registry.missing_parts()]
        if "postgres" in self._databases:
            missing += postgres.missing_parts(self.postgres.version)
        if "mariadb" in self._databases:
            missing += mariadb.missing_parts()
        fetch(missing)

    def start(self) -> None:
        """Start all at the same time; none is left running when one fails.

        Raises:
            LocalStackError: the first failure.
        """
        self.prepare()
        try:
            _at_once([server.start for server in self._servers()])
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all at the same time."""
        _at_once([server.stop for server in self._servers()])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _servers(self) -> tuple[Startable, ...]:
        databases: dict[str, Startable] = {"postgres": self.postgres, "mariadb": self.mariadb}
        return self.kafka, self.registry, *(databases[name] for name in self._databases)


def _at_once(actions: Sequence[Callable[[], None]]) -> None:
    """Do all, each in a thread, wait for all, then raise the first failure."""
    with ThreadPoolExecutor(len(actions)) as pool:
        running = [pool.submit(action) for action in actions]
    for done in running:
        done.result()
