"""The servers a storm rages on, each behind a proxy: broker, registry, source and target.

One stage serves many scenarios, each with databases and a pipeline of its own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import psycopg

from cdc.local import LocalKafka, LocalMariaDB, LocalPostgres, LocalRegistry
from cdc.local.process import free_port
from crash.proxy import Proxy

SINKER = "sinker"
API = "/apis/ccompat/v7"


class Stage:
    """Four servers and four proxies; `with Stage() as stage:`. `mariadb`: both databases are."""

    def __init__(self, *, mariadb: bool = False) -> None:
        self.proxies: dict[str, Proxy] = {}
        self.kafka = LocalKafka()
        self.registry = LocalRegistry()
        # Little memory for decoding: larger transactions come streamed, before their commit.
        streamed = {"logical_decoding_work_mem": "256kB"}
        self.source = LocalMariaDB() if mariadb else LocalPostgres(settings=streamed)
        self.target = LocalMariaDB() if mariadb else LocalPostgres()
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.close()

    def _start(self) -> None:
        behind = self._proxy("broker", lambda: int(self.kafka.address("PROXIED").split(":")[1]))
        port = free_port()
        advertised = f"PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind}"
        self.kafka = LocalKafka(
            port=port,
            listeners={"PROXIED": "PLAINTEXT"},
            settings={"advertised.listeners": advertised},
        )
        servers = (self.kafka, self.registry, self.source, self.target)
        for server in servers:
            self._exit.callback(server.stop)
        with ThreadPoolExecutor(len(servers)) as pool:
            for started in [pool.submit(server.start) for server in servers]:
                started.result()
        assert self.kafka.bootstrap.endswith(f":{port}"), "the broker's port was taken"
        self._proxy("registry", lambda: self.registry.port)
        self._proxy("source", lambda: self.source.port)
        self._proxy("target", lambda: self.target.port)
        if isinstance(self.target, LocalMariaDB):
            self.target.execute(
                f"create user {SINKER}@'%' identified by '{SINKER}'",
                f"grant all on *.* to {SINKER}@'%'",
            )
            return
        with psycopg.connect(self.target.url, autocommit=True) as connection:
            connection.execute(f"create role {SINKER} login password '{SINKER}'")

    def _proxy(self, name: str, target: object) -> int:
        self.proxies[name] = proxy = Proxy(target)  # type: ignore[arg-type]
        self._exit.callback(proxy.close)
        return proxy.port

    def bootstrap(self) -> str:
        """The broker as workers see it."""
        return f"127.0.0.1:{self.proxies['broker'].port}"

    def registry_url(self) -> str:
        """The registry as workers see it."""
        return f"http://127.0.0.1:{self.proxies['registry'].port}{API}"

    def source_url(self, database: str) -> str:
        """A source database as workers see it."""
        return self._through("source", self.source.url_of(database), self.source.port)

    def target_url(self, database: str) -> str:
        """A target database as workers see it: by an ordinary role."""
        url = self.target.url_of(database, user=SINKER, password=SINKER)
        return self._through("target", url, self.target.port)

    def _through(self, name: str, url: str, port: int) -> str:
        return url.replace(f":{port}/", f":{self.proxies[name].port}/")
