"""A real MariaDB server, 11.4, with a row-based binary log.

The parts hold the server alone, without its scripts' programs: the system tables are made as
`mariadb-install-db` makes them, by the server in bootstrap mode reading its own SQL files.

Source: MariaDB documentation, "mariadb-install-db", "Server System Variables".
"""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Mapping
from contextlib import closing, suppress
from hashlib import sha1
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

import pymysql

from cdc.connections.mariadb import quoted
from cdc.local.cache import is_made, made_once
from cdc.local.errors import LocalStackError
from cdc.local.fetch import fetch
from cdc.local.home import Home
from cdc.local.parts import Part, mariadb_part
from cdc.local.process import Command, Server, environment, free_port, run_once

__all__ = ["LocalMariaDB", "refuse_missing_library"]

Setting = str | int | bool
DEADLINE_S = 60.0
USER = "root"

SETTINGS: dict[str, Setting] = {
    "bind_address": "127.0.0.1",
    "skip_name_resolve": True,
    # Below the data, where the server's working folder is: a path has a limit of 107 bytes.
    "socket": "mariadb.sock",
    "pid_file": "mariadb.pid",
    "server_id": 1,
    "log_bin": "binlog",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL",
    "gtid_strict_mode": True,
    "character_set_server": "utf8mb4",
    "default_time_zone": "+00:00",
    "max_connections": 200,
    # It would make an RSA key of 4096 bits at every start, which takes 8 to 40 s.
    "ssl": False,
}
# Throw-away data needs no protection from a power cut; SIGKILL loses nothing all the same.
CARELESS: dict[str, Setting] = {
    "innodb_flush_log_at_trx_commit": 2,
    "innodb_doublewrite": False,
    "sync_binlog": 0,
}

KEPT = ("bin/mariadbd", "share/english/", "share/charsets/")
"""What a server needs of the 366 MB in the jar, beside the SQL that makes its system tables."""
SYSTEM_TABLES = (
    "mariadb_system_tables.sql",
    "mariadb_performance_tables.sql",
    "mariadb_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mariadb_sys_schema.sql",
)
_PORTS = 5
"""Ports that are tried."""
_PORT_TAKEN = "Address already in use"
MISSING_LIBRARY = re.compile(r"shared libraries: (\S+?):")
PACKAGES = "apt-get install libcrypt1 libsystemd0 libstdc++6, or dnf install libxcrypt-compat"


def missing_parts() -> list[Part]:
    """What a server would have to fetch first."""
    return [] if is_made(_folder()) else [mariadb_part()]


def _folder() -> str:
    return f"mariadb-{mariadb_part().version}"


class LocalMariaDB:
    """A server on 127.0.0.1 with a random password of root; started by `with` or `start()`.

    `settings` are server variables over ours; False leaves one out (`skip-NAME`). `data` is a
    folder to keep, a temporary one by default; only there are commits synced to the disk. `server`
    gives `kill`, `pause`, `resume` and `restart`, all on the same port and data.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, Setting] | None = None,
        data: Path | None = None,
        port: int = 0,
    ) -> None:
        self.settings = dict(settings or {})
        self._home = Home(data, "mariadb", refuses_root=True)
        self._wanted = port
        self.port = 0
        self._password = ""
        self.server = Server(Command("mariadb", list, Path()))

    @property
    def url(self) -> str:
        """Root's URL of the server, with the database `mysql`."""
        return self.url_of("mysql")

    def url_of(self, database: str, user: str = USER, password: str = "") -> str:
        """A URL of a database on this server; without a password, root's."""
        return f"mariadb://{user}:{password or self._password}@127.0.0.1:{self.port}/{database}"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.server.log

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self._home.path / "data"

    def connect(self, database: str = "", **options: Any) -> pymysql.Connection[Any]:
        """A connection of root's, in autocommit; `options` are PyMySQL's.

        Raises:
            pymysql.Error: the server is away, or has no such database.
        """
        given = {"user": USER, "password": self._password, "autocommit": True, **options}
        return pymysql.connect(host="127.0.0.1", port=self.port, database=database or None, **given)

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as root; the rows of the last one.

        Raises:
            pymysql.Error: the server is away, or refuses one.
        """
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def create_database(self, name: str) -> str:
        """Create an empty database; its URL.

        Raises:
            pymysql.Error: it exists, or the server is away.
        """
        self.execute(f"CREATE DATABASE {quoted(name)}")
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, and end whoever is connected to it: an open transaction holds it.

        Raises:
            pymysql.Error: the server is away.
        """
        query = "SELECT id FROM information_schema.processlist WHERE db = %s"
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(query, (name,))
            for (number,) in cursor.fetchall():
                with suppress(pymysql.err.OperationalError):  # it has ended by itself
                    cursor.execute("KILL %s", (number,))
            cursor.execute(f"DROP DATABASE IF EXISTS {quoted(name)}")

    def start(self) -> None:
        """Fetch what is missing, make the system tables, start, wait until it answers SQL.

        Raises:
            LocalStackError: a part or a shared library is missing, or it was not ready in time.
        """
        home = self._home.open()
        try:
            binaries = self._binaries()
            if not self.data.exists():
                self._initialise(home, binaries)
            self._password = (home / "password").read_text(encoding="ascii")
            for left in reversed(range(_PORTS)):
                try:
                    self._serve(home, binaries)
                    break
                except LocalStackError as error:
                    if not left or _PORT_TAKEN not in str(error):
                        raise
        except BaseException:
            self.stop()
            raise

    def _serve(self, home: Path, binaries: Path) -> None:
        """Start on a port that is free: until the server binds it, another may."""
        self.port = free_port(self._wanted)
        options = self._configure(home, binaries)
        argv = [str(binaries / "bin" / "mariadbd"), f"--defaults-file={options}"]
        self.server = Server(
            Command("mariadb", lambda: argv, home, at_once=signal.SIGKILL, refuses_root=True)
        )
        self.server.start(self._ready, DEADLINE_S)

    def stop(self) -> None:
        """End the server; temporary data goes with it."""
        self.server.stop(timeout=20.0, at_once=not self._home.lasts)
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
        tree = made_once(_folder(), _unpack)
        return self._home.reachable(tree)

    def _configure(self, home: Path, binaries: Path) -> Path:
        """Write the options' file anew; the machine's own are not read."""
        careless = {} if self._home.lasts else CARELESS
        places: dict[str, Setting] = {
            "datadir": str(self.data),
            # A server that starts removes every temporary table it finds, also another server's.
            "tmpdir": str(home),
            "lc_messages_dir": str(binaries / "share"),
            "character_sets_dir": str(binaries / "share" / "charsets"),
            "port": self.port,
        }
        merged = {**SETTINGS, **careless, **places, **self.settings}
        lines = [_spelled(name, value) for name, value in merged.items()]
        path = home / "server.cnf"
        path.write_text("\n".join(["[mariadbd]", *lines, ""]), encoding="utf-8")
        return path

    def _initialise(self, home: Path, binaries: Path) -> None:
        """Make the system tables and root's password."""
        password = secrets.token_urlsafe(24)
        script = home / "system.sql"
        script.write_text(_system_tables(binaries / "share", password), encoding="utf-8")
        self.data.mkdir()
        if self._home.handed:
            for path in (script, self.data):
                shutil.chown(path, "nobody")
        script.chmod(0o600)
        places = [
            f"--datadir={self.data}",
            f"--tmpdir={home}",
            f"--lc-messages-dir={binaries / 'share'}",
        ]
        reads = f'exec "$0" --no-defaults --bootstrap --log-warnings=0 "$@" < "{script}"'
        argv = ["sh", "-c", reads, str(binaries / "bin" / "mariadbd"), *places]
        run_once(Command("initialise", lambda: argv, home, refuses_root=True))
        script.unlink()
        kept = home / "password"
        kept.write_text(password, encoding="ascii")
        kept.chmod(0o600)

    def _ready(self) -> bool:
        try:
            with closing(self.connect(connect_timeout=2, read_timeout=2)):
                return True
        except pymysql.OperationalError:
            return False


def _spelled(name: str, value: Setting) -> str:
    """A line of an options' file."""
    if isinstance(value, bool):
        return name if value else f"skip_{name}"
    return f'{name} = "{value}"'


def _system_tables(share: Path, password: str) -> str:
    """SQL for the bootstrap; root may come from anywhere, the server listens on loopback alone."""
    scrambled = sha1(sha1(password.encode()).digest()).hexdigest().upper()  # noqa: S324 - theirs
    rights = (
        '{"access":18446744073709551615,"plugin":"mysql_native_password",'
        f'"authentication_string":"*{scrambled}"}}'
    )
    parts = [(share / name).read_text(encoding="utf-8") for name in SYSTEM_TABLES]
    return "\n".join(
        [
            "CREATE DATABASE mysql;",
            "USE mysql;",
            "SET @auth_root_socket = NULL;",
            *parts,
            "DELETE FROM mysql.global_priv WHERE User = 'root';",
            f"INSERT INTO mysql.global_priv VALUES ('%', 'root', '{rights}');",  # noqa: S608 - ours
            "",
        ]
    )


def _unpack(folder: Path) -> None:
    """Unpack what the server needs out of the verified jar, which is not needed after that."""
    [jar] = fetch([mariadb_part()])
    with zipfile.ZipFile(jar) as archive:
        for entry in archive.infolist():
            place = PurePosixPath(entry.filename)
            if "linux" not in place.parts or entry.is_dir():
                continue
            inner = PurePosixPath(*place.parts[place.parts.index("linux") + 1 :])
            if str(inner).startswith(KEPT) or inner.name in SYSTEM_TABLES:
                target = folder / inner
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
    server = folder / "bin" / "mariadbd"
    server.chmod(0o755)
    refuse_missing_library(server)
    jar.unlink()


def refuse_missing_library(server: Path) -> None:
    """Run the server once for its version.

    Raises:
        LocalStackError: this machine lacks a library that it is linked with.
    """
    tried = subprocess.run(
        [server, "--no-defaults", "--version"],
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if tried.returncode == 0:
        return
    missing = MISSING_LIBRARY.search(tried.stderr)
    what = missing[1] if missing else tried.stderr.strip()
    raise LocalStackError(
        f"the MariaDB server needs {what}, which this machine lacks", hint=PACKAGES
    )
