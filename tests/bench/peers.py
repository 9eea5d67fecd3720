"""The peers: Kafka Connect with Debezium's connectors, as a child process, configured from files.

A worker is one JVM that stays up over all runs of a path, so that it is warm; a run is a connector
of its own in it. The JVM has its own defaults and 1 GB of heap, not the flags that make the local
stack's servers small.
"""

from __future__ import annotations

import functools
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from cdc.local.fetch import fetch
from cdc.local.java import java
from cdc.local.parts import Part
from cdc.local.process import Command, Server, end_of_log, free_port
from fix_pipeline import wait_until

HERE = Path(__file__).parent
SETTINGS = HERE / "peers"
HEAP = "-Xmx1g"
# The converter's jar does not say what it offers, and without that Connect scans every class for a
# minute; this is the file that `connect-plugin-path sync-manifests` writes.
SERVICE = "org.apache.kafka.connect.storage.Converter"
CONVERTER = "io.apicurio.registry.utils.converter.AvroConverter"


@functools.cache
def parts(family: str) -> Sequence[Part]:
    """The jars of `connect`, `source`, `sink` or `maria`, as tests/bench/peers.toml pins them."""
    table = tomllib.loads((HERE / "peers.toml").read_text("utf-8"))
    return [
        Part(f"peer: {family}", row["maven"], row["bytes"], row["sha256"]) for row in table[family]
    ]


def versions() -> dict[str, str]:
    """What is measured against, as `name: version`."""
    named = {
        "connect-runtime": "connect",
        "debezium-connector-postgres": "source",
        "debezium-connector-jdbc": "sink",
        "debezium-connector-mariadb": "maria",
        "apicurio-registry-utils-converter": "source",
    }
    return {
        artifact: part.version
        for artifact, family in named.items()
        for part in parts(family)
        if part.coordinates[1] == artifact
    }


def settings(name: str, values: Mapping[str, object]) -> dict[str, str]:
    """A file of tests/bench/peers as name → value; a placeholder without a value is an error."""
    text = Template((SETTINGS / f"{name}.properties").read_text("utf-8"))
    lines = text.substitute({key: str(value) for key, value in values.items()}).splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key: value for key, _, value in pairs}


class Connect:
    """A Kafka Connect worker with one plug-in, `source`, `sink` or `maria`; started by `with`."""

    def __init__(self, family: str, folder: Path, *, kafka: str, registry: str) -> None:
        self._family = family
        self._folder = folder
        self._port = free_port()
        self._places = {
            "kafka": kafka,
            "registry": registry,
            "folder": folder,
            "port": self._port,
        }
        self._server = Server(Command(f"connect-{family}", list, folder))

    def __enter__(self) -> Self:
        plugin = self._folder / "plugins" / self._family
        plugin.mkdir(parents=True)
        for jar in fetch(parts(self._family)):
            (plugin / jar.name).symlink_to(jar)
        with zipfile.ZipFile(plugin / "manifest.jar", "w") as manifest:
            manifest.writestr(f"META-INF/services/{SERVICE}", f"{CONVERTER}\n")
        file = self._folder / "connect.properties"
        worker = settings("connect", self._places)
        file.write_text("".join(f"{key}={value}\n" for key, value in worker.items()), "utf-8")
        jars = ":".join(map(str, fetch(parts("connect"))))
        argv = [java()[0], HEAP, "-cp", jars, "org.apache.kafka.connect.cli.ConnectStandalone"]
        command = Command(f"connect-{self._family}", lambda: [*argv, str(file)], self._folder)
        self._server = Server(command)
        self._server.start(self._answers, 120)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop(20)

    @property
    def process(self) -> psutil.Process:
        """The JVM."""
        assert self._server.pid is not None
        return psutil.Process(self._server.pid)

    @property
    def log(self) -> str:
        """The end of what it has to say."""
        return end_of_log(self._server.log, 60)

    def create(self, kind: str, values: Mapping[str, object]) -> None:
        """Start the connector `values["name"]` with the settings of peers/`kind`.properties."""
        self.configure(str(values["name"]), settings(kind, values))

    def configure(self, name: str, config: Mapping[str, str]) -> None:
        """Start the connector `name`, or give it other settings."""
        self._ask("PUT", f"/connectors/{name}/config", json=dict(config))

    def running(self, name: str) -> bool:
        """Whether a connector and its task run; AssertionError when it failed."""
        answer = self._ask("GET", f"/connectors/{name}/status")
        states = [answer["connector"], *answer["tasks"]]
        for state in states:
            assert state["state"] != "FAILED", state.get("trace", state)
        return len(states) > 1 and all(state["state"] == "RUNNING" for state in states)

    def stop(self, name: str) -> None:
        """End a connector's tasks, keep it and its offsets."""
        self._ask("PUT", f"/connectors/{name}/stop")
        path = f"/connectors/{name}/status"

        def stopped() -> bool:
            answer = self._ask("GET", path)
            return bool(answer["connector"]["state"] == "STOPPED" and not answer["tasks"])

        wait_until(stopped, f"{name} to stop", 60)

    def resume(self, name: str) -> None:
        """Let a connector that was stopped go on from its offsets."""
        self._ask("PUT", f"/connectors/{name}/resume")

    def offsets(self, name: str) -> Any:
        """Return what Connect has stored of a connector, as its REST interface tells it."""
        return self._ask("GET", f"/connectors/{name}/offsets")

    def delete(self, name: str) -> None:
        """End a connector and wait until it is gone."""
        self._ask("DELETE", f"/connectors/{name}")
        wait_until(lambda: name not in self._ask("GET", "/connectors"), f"{name} to go", 30)

    def _ask(self, method: str, path: str, json: Any = None) -> Any:
        url = f"http://127.0.0.1:{self._port}{path}"
        answer = httpx.request(method, url, json=json, timeout=60, trust_env=False)
        found = answer.json() if answer.content else None
        if answer.status_code == 404 and path.endswith("/status"):  # not yet known to the herder
            return {"connector": {"state": "UNASSIGNED"}, "tasks": []}
        assert answer.is_success, f"{method} {path}: {answer.status_code} {found}"
        return found

    def _answers(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self._port}/connectors"
            return httpx.get(url, timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False
