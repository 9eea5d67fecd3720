"""A Postgres server that lets nobody but its superuser in without TLS, and the roles of docker/."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg

from cdc.local import LocalPostgres
from fix_tls import Authority

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "docker" / "postgres"
HBA = """
host    all postgres 127.0.0.1/32 scram-sha-256
hostssl all all      127.0.0.1/32 scram-sha-256
"""


class GuardedPostgres:
    """The server, with the databases `shop` and `warehouse` as docker/ sets them up."""

    def __init__(self, server: LocalPostgres, authority: Authority) -> None:
        self.server = server
        self._authority = authority
        self.passwords = {name: secrets.token_hex(12) for name in ("source", "crm", "mirror")}

    def prepare(self) -> None:
        """Turn TLS on, then run what docker/compose.yaml runs in each database."""
        identity = self._authority.identity("postgres", ("127.0.0.1",))
        self._place("server.crt", identity.cert.read_text())
        self._place("server.key", identity.key.read_text())
        self._place("pg_hba.conf", HBA)
        for name, password in self.passwords.items():
            self._place(f"{name}_password", f"{password}\n")
        with self.admin("postgres") as connection:
            connection.execute("ALTER SYSTEM SET ssl = on")
        self.server.server.restart()
        shop = (ROOT / "cdc" / "demo" / "shop.sql", SCRIPTS / "source.sql")
        for database, scripts in (("shop", shop), ("warehouse", (SCRIPTS / "target.sql",))):
            self.server.create_database(database)
            with self.admin(database) as connection:
                for script in scripts:
                    # A path of pg_read_file that is not absolute begins in the data directory.
                    text = script.read_text().replace("/run/secrets/", "")
                    connection.execute(text.encode())

    def _place(self, name: str, text: str) -> None:
        path = self.server.data / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="ascii")
        owner = self.server.data.stat()
        if path.stat().st_uid != owner.st_uid:
            os.chown(path, owner.st_uid, owner.st_gid)

    @contextmanager
    def admin(self, database: str) -> Iterator[psycopg.Connection]:
        """Connect as the superuser, in autocommit."""
        with psycopg.connect(self.server.url_of(database), autocommit=True) as connection:
            yield connection

    def url(self, role: str, database: str) -> str:
        """Give the URL of one of the roles, verified by our authority."""
        plain = self.server.url_of(database, f"tailrace_{role}", self.passwords[role])
        return f"{plain}?sslmode=verify-full&sslrootcert={quote(str(self._authority.ca))}"


@contextmanager
def guarded_postgres(authority: Authority) -> Iterator[GuardedPostgres]:
    """Start a server of its own: its roles are known to the whole cluster."""
    with LocalPostgres(18) as server:
        made = GuardedPostgres(server, authority)
        made.prepare()
        yield made
