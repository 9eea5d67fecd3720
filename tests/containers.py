"""The session's servers as Docker containers, with the attributes of those in `cdc.local`."""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Self

import httpx
import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from psycopg import sql
from testcontainers.core.container import DockerContainer

from cdc.local.kafka import SETTINGS as KAFKA_SETTINGS
from cdc.local.postgres import SETTINGS as POSTGRES_SETTINGS
from cdc.local.process import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 120.0
KAFKA_IMAGE = "apache/kafka:4.3.0"
REGISTRY_IMAGE = "apicurio/apicurio-registry:3.3.3"
POSTGRES_IMAGE = "postgres:{version}"


class ContainerServer:
    """What `cdc.local.process.Server` does to a child process, done to a container."""

    def __init__(self, container: DockerContainer, ready: Callable[[], bool]) -> None:
        self._container = container
        self._ready = ready
        self._made = False

    @property
    def running(self) -> bool:
        if not self._made:
            return False
        docker = self._container.get_wrapped_container()
        docker.reload()
        return docker.status in {"running", "paused"}

    def start(self) -> None:
        if self._made:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._made = True
        limit = time.monotonic() + DEADLINE_S
        while not self._ready():
            if time.monotonic() > limit:
                _out, _err = self._container.get_logs()
                raise TimeoutError(f"container not ready: {(_out + _err)[-2000:].decode()}")
            time.sleep(0.1)

    def stop(self) -> None:
        self._container.get_wrapped_container().stop(timeout=30)

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def pause(self) -> None:
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        self._container.get_wrapped_container().unpause()

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        if self._made:
            self._container.stop()


class Contained:
    """`with` for one container."""

    server: ContainerServer

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.server.remove()


class ContainerKafka(Contained):
    def __init__(self) -> None:
        self._port = free_port()
        container = DockerContainer(KAFKA_IMAGE).with_bind_ports(9092, self._port)
        own = {
            "controller.quorum.voters": "1@127.0.0.1:9093",
            "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        }
        for name, value in {**KAFKA_SETTINGS, **own}.items():
            variable = "KAFKA_" + name.upper().replace(".", "_")
            container.with_env(variable, str(value).lower() if value is False else str(value))
        self.server = ContainerServer(container, self._ready)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._port}"

    def _ready(self) -> bool:
        try:
            admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


class ContainerRegistry(Contained):
    def __init__(self) -> None:
        self._port = free_port()
        container = DockerContainer(REGISTRY_IMAGE).with_bind_ports(8080, self._port)
        container.with_env("APICURIO_STORAGE_KIND", "sql")
        container.with_env("APICURIO_STORAGE_SQL_KIND", "h2")
        self.server = ContainerServer(container, self._ready)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def _ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/subjects", timeout=2, trust_env=False).is_success
        return False


class ContainerPostgres(Contained):
    def __init__(self, version: int = 18) -> None:
        self.version = version
        self.port = free_port()
        self._password = secrets.token_urlsafe(24)
        settings = {**POSTGRES_SETTINGS, "fsync": False, "listen_addresses": "*"}
        del settings["unix_socket_directories"]  # the image's own start script uses the socket
        options = [f"-c {name}={str(value).lower()}" for name, value in settings.items()]
        container = DockerContainer(POSTGRES_IMAGE.format(version=version))
        container.with_bind_ports(5432, self.port).with_env("POSTGRES_PASSWORD", self._password)
        container.with_command(" ".join(["postgres", *options]))
        self.server = ContainerServer(container, self._ready)

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str, user: str = "postgres", password: str = "") -> str:
        secret = password or self._password
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
                " where database = %s and active",
                (name,),
            )
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
                " where database = %s",
                (name,),
            )
            drop = sql.SQL("drop database if exists {} with (force)")
            connection.execute(drop.format(sql.Identifier(name)))

    def _ready(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
