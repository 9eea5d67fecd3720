"""A real Kafka broker, KRaft mode, one node that is also its controller."""

from __future__ import annotations

import base64
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cdc.local.cache import made_once
from cdc.local.fetch import fetch
from cdc.local.home import Home
from cdc.local.java import StartCache
from cdc.local.parts import kafka_parts
from cdc.local.process import Command, Server, free_port, run_once

__all__ = ["LocalKafka"]

Setting = str | int | bool
DEADLINE_S = 60.0

# One node has no replicas; internal topics with few partitions spare a second and many files.
SETTINGS: dict[str, Setting] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
    # A killed broker may register again only when its old session is over: 9 s by default.
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
    "message.max.bytes": 16 * 1024 * 1024,
    # A topic is made on purpose or not at all: a misspelt name must not become one.
    "auto.create.topics.enable": False,
    # 128 MiB by default, a third of the whole broker here.
    "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
}


class LocalKafka:
    """A broker on 127.0.0.1, started by `with` or `start()`.

    `settings` are broker properties over ours; `listeners` maps the name of a further listener to
    its security protocol (`{"SECURE": "SASL_SSL"}`), reached at `address("SECURE")`, its keys and
    logins being `settings`. `data` is a folder to keep, a temporary one by default. `server` gives
    `kill`, `pause`, `resume` and `restart`, all on the same port and data.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, Setting] | None = None,
        listeners: Mapping[str, str] | None = None,
        heap: str = "512m",
        data: Path | None = None,
        port: int = 0,
    ) -> None:
        self.settings = dict(settings or {})
        self._protocols = {"PLAINTEXT": "PLAINTEXT", **(listeners or {})}
        self._home = Home(data, "kafka")
        self._heap = heap
        self._port = port
        self._ports: dict[str, int] = {}
        self.server = Server(Command("kafka", list, Path()))

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients."""
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        """`host:port` of a listener by its name."""
        return f"127.0.0.1:{self._ports[listener]}"

    @property
    def log(self) -> Path:
        """The broker's log file."""
        return self.server.log

    def start(self) -> None:
        """Fetch what is missing, start the broker and wait until it serves metadata.

        Raises:
            LocalStackError: a part could not be had, or the broker was not ready in time.
        """
        home = self._home.open()
        try:
            self._ports = {name: free_port() for name in (*self._protocols, "CONTROLLER")}
            self._ports["PLAINTEXT"] = free_port(self._port)
            self.server = Server(self._command(home))
            self.server.start(self._ready, DEADLINE_S)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the broker; temporary data goes with it."""
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
        jars = fetch(kafka_parts())
        sums = "".join(part.sha256 for part in kafka_parts())
        class_path = ":".join(map(str, jars))
        cache = StartCache("kafka", [f"-Xmx{self._heap}", "-cp", class_path], sums)
        properties = home / "server.properties"
        properties.write_text(self._properties(home / "data"), encoding="utf-8")
        _format(home / "data", class_path, kafka_parts()[0].version)
        return Command(
            "kafka",
            lambda: [*cache.command(), "kafka.Kafka", str(properties)],
            home,
            at_once=cache.at_once,
            ended=cache.keep,
        )

    def _properties(self, data: Path) -> str:
        addresses = {name: f"{name}://{self.address(name)}" for name in self._ports}
        protocols = {**self._protocols, "CONTROLLER": "PLAINTEXT"}
        own = {
            "controller.quorum.voters": f"1@{self.address('CONTROLLER')}",
            "listeners": ",".join(addresses.values()),
            "advertised.listeners": ",".join(addresses[name] for name in self._protocols),
            "listener.security.protocol.map": ",".join(f"{n}:{p}" for n, p in protocols.items()),
            "log.dirs": str(data),
        }
        merged = {**SETTINGS, **own, **self.settings}
        return "".join(f"{name}={_spelled(value)}\n" for name, value in merged.items())

    def _ready(self) -> bool:
        host, port = self.bootstrap.split(":")
        try:
            # A client that meets a closed port complains on stderr; ask the port first.
            socket.create_connection((host, int(port)), timeout=1).close()
            admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            found = admin.list_topics(timeout=2)
        except (OSError, KafkaException):
            return False
        # Another broker may have been given the port while this one was down.
        return bool(found.brokers) and found.cluster_id == _cluster_of(self.log.parent / "data")


def _spelled(value: Setting) -> str:
    """A Java property; a backslash starts an escape there."""
    return str(value).lower() if isinstance(value, bool) else str(value).replace("\\", "\\\\")


def _format(data: Path, class_path: str, version: str) -> None:
    """Give an empty data folder its identity, as `kafka-storage format` does.

    Formatting takes half a second of JVM for two files of which only the ids differ: it is done
    once per Kafka version, and each broker gets a copy with ids of its own.
    """
    if (data / "meta.properties").exists():
        return
    template = made_once(f"kafka-format-{version}", lambda folder: _real_format(folder, class_path))
    data.mkdir(exist_ok=True)
    checkpoint = (template / "data" / "bootstrap.checkpoint").read_bytes()
    (data / "bootstrap.checkpoint").write_bytes(checkpoint)
    ids = f"cluster.id={_new_id()}\ndirectory.id={_new_id()}\n"
    (data / "meta.properties").write_text(f"{ids}node.id=1\nversion=1\n", encoding="ascii")


def _cluster_of(data: Path) -> str:
    """Return the cluster whose data this is."""
    lines = (data / "meta.properties").read_text(encoding="utf-8").splitlines()
    return dict(line.partition("=")[::2] for line in lines)["cluster.id"]


def _real_format(folder: Path, class_path: str) -> None:
    properties = folder / "server.properties"
    own = {
        "controller.quorum.voters": "1@127.0.0.1:9093",
        "listeners": "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093",
        "log.dirs": str(folder / "data"),
    }
    lines = [f"{name}={_spelled(value)}\n" for name, value in {**SETTINGS, **own}.items()]
    properties.write_text("".join(lines), encoding="utf-8")
    command = StartCache("kafka-format", ["-Xmx128m", "-cp", class_path], "").plain()
    storage_tool = ["kafka.tools.StorageTool", "format", "-t", _new_id(), "-c", str(properties)]
    run_once(Command("kafka-format", lambda: [*command, *storage_tool], folder))


def _new_id() -> str:
    """A Kafka id: 16 random bytes, base64 in the URL alphabet, not starting with a dash."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode())[0] == "-":
        continue
    return text
