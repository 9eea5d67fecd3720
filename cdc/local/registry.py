"""A real schema registry: Apicurio, spoken to through its Confluent-compatible API."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from cdc.local.cache import is_made, made_once
from cdc.local.fetch import fetch
from cdc.local.home import Home
from cdc.local.java import StartCache
from cdc.local.parts import Part, registry_part
from cdc.local.process import Command, Server, free_port

__all__ = ["LocalRegistry", "missing_parts"]

DEADLINE_S = 60.0
API = "/apis/ccompat/v7"


class LocalRegistry:
    """A registry on 127.0.0.1 with its data in a file; started by `with` or `start()`.

    Its default compatibility level is NONE: set one per subject. `settings` are Apicurio and
    Quarkus properties over ours; `data` is a folder to keep, a temporary one by default. `server`
    gives `kill`, `pause`, `resume` and `restart`, all on the same port and data.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, str | int | bool] | None = None,
        heap: str = "384m",
        data: Path | None = None,
        port: int = 0,
    ) -> None:
        self.settings = dict(settings or {})
        self._home = Home(data, "registry")
        self._heap = heap
        self._wanted = port
        self.port = 0
        self.server = Server(Command("registry", list, Path()))

    @property
    def url(self) -> str:
        """The base URL for schema registry clients."""
        return f"http://127.0.0.1:{self.port}{API}"

    @property
    def log(self) -> Path:
        """The registry's log file."""
        return self.server.log

    def start(self) -> None:
        """Fetch what is missing, start the registry and wait until it answers.

        Raises:
            LocalStackError: a part could not be had, or the registry was not ready in time.
        """
        home = self._home.open()
        try:
            self.port = free_port(self._wanted)
            self.server = Server(self._command(home))
            self.server.start(self._ready, DEADLINE_S)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the registry; temporary data goes with it."""
        self.server.stop(at_once=not self._home.lasts)
        self._home.close()

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

    def _command(self, home: Path) -> Command:
        jar = made_once(_folder(), _unpack) / "quarkus-run.jar"
        cache = StartCache("registry", [f"-Xmx{self._heap}"], f"{jar}{registry_part().sha256}")
        options = [f"-D{name}={_spelled(value)}" for name, value in self._options(home).items()]
        return Command(
            "registry",
            lambda: [*cache.command(), *options, "-jar", str(jar)],
            home,
            at_once=cache.at_once,
            ended=cache.keep,
        )

    def _options(self, home: Path) -> dict[str, str | int | bool]:
        return {
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": self.port,
            # Opened whatever one says, on all interfaces and port 9000 unless told otherwise.
            "quarkus.management.host": "127.0.0.1",
            "quarkus.management.port": free_port(),
            "quarkus.http.access-log.enabled": False,
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "h2",
            "apicurio.storage.snapshot.location": str(home),
            # Quarkus ends the database itself; WRITE_DELAY 0: what was answered survives SIGKILL.
            "apicurio.datasource.url": f"jdbc:h2:file:{home}/registry;"
            "DB_CLOSE_ON_EXIT=FALSE;WRITE_DELAY=0",
            "apicurio.datasource.jdbc.initial-size": 2,
            "apicurio.datasource.jdbc.min-size": 2,
            **self.settings,
        }

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/subjects", timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False


def _spelled(value: str | int | bool) -> str:  # noqa: FBT001 - a property may be a flag
    return str(value).lower() if isinstance(value, bool) else str(value)


def _folder() -> str:
    return f"apicurio-{registry_part().version}"


def missing_parts() -> list[Part]:
    """What has to be fetched before a registry can start."""
    return [] if is_made(_folder()) else [registry_part()]


def _unpack(folder: Path) -> None:
    """Unpack the verified archive, and drop it: it is as large as what comes out."""
    [archive] = fetch([registry_part()])
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    archive.unlink()
