"""A whole pipeline of real processes with nothing but the documented rights, all of it over TLS.

Kafka by SASL_SSL and the ACLs of docker/acls.md, a user each for source and sink; the registry
behind TLS and a password; Postgres by verify-full, as the roles of docker/postgres/*.sql.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from fix_docker import DOCKER
from fix_pipeline import wait_until
from fix_tls import Authority, SecureKafka, acls_of
from fix_tls_postgres import GuardedPostgres, guarded_postgres
from fix_tls_registry import PASSWORD, USER, Guarded

CDC = Path(sys.executable).with_name("cdc")
DRAIN_S = 20


class Deployment:
    """docker/kubernetes/pipeline.yaml with the addresses and logins of this test."""

    def __init__(self, folder: Path, postgres: GuardedPostgres, kafka: SecureKafka) -> None:
        self.folder, self.postgres, self._kafka = folder, postgres, kafka
        self.name, self.source = f"p{secrets.token_hex(3)}", f"shop{secrets.token_hex(3)}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def write(self, who: str, registry: str, authority: Authority) -> Path:
        """Write the pipeline file of the user `who`, who may do what acls.md says of a `who`."""
        user = f"{self.name}-{who}"
        password = self._kafka.add_user(user)
        for sink in ("crm", "mirror"):
            names = {"pipeline": self.name, "source": self.source, "sink": sink}
            self._kafka.allow(user, acls_of(who, names, creates=True))
        text = (DOCKER / "kubernetes" / "pipeline.yaml").read_text()
        made: dict[str, Any] = yaml.safe_load(text.replace("shopdb", self.source))
        made["pipeline"] = self.name
        client = self._kafka.login(user, password)
        assert made["kafka"]["client"].keys() == client.keys()
        login = {"url": registry, "username": USER, "password": PASSWORD, "ca": str(authority.ca)}
        assert made["kafka"]["registry"].keys() == login.keys()
        # `check` asks once, and this registry serves every test of the session.
        login["timeout"] = "30"
        address = self._kafka.broker.address("SECURE")
        made["kafka"] = {"bootstrap": address, "registry": login, "client": client}
        made["sources"][self.source]["url"] = self.postgres.url("source", "shop")
        made["sinks"]["crm"]["url"] = self.postgres.url("crm", "warehouse")
        mirror = yaml.safe_load((DOCKER / "pipeline.yaml").read_text())["sinks"]["mirror"]
        mirror["tables"] = [f"{self.source}.public.*"]
        made["sinks"]["mirror"] = mirror | {"url": self.postgres.url("mirror", "warehouse")}
        made["metrics"] = {"port": 0}
        written = self.folder / f"{who}.yaml"
        written.write_text(yaml.safe_dump(made))
        return written

    def cdc(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        argv = [str(CDC), *map(str, arguments)]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=90, check=False, cwd=self.folder
        )

    def start(self, kind: str, name: str) -> None:
        argv = [str(CDC), "-c", str(self.folder / f"{kind}.yaml"), kind, name]
        with (self.folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(argv, stderr=log, cwd=self.folder)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        for name, process in self._running.items():
            assert process.poll() is None, (self.folder / f"{name}.log").read_text()[-3000:]
        with self.postgres.admin("warehouse") as connection:
            try:
                return connection.execute(query).fetchall()
            except psycopg.errors.UndefinedTable:
                return []

    def stop(self) -> list[int]:
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        return [process.wait(DRAIN_S) for process in self._running.values()]

    def kill(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def postgres_by_tls(authority: Authority) -> Iterator[GuardedPostgres]:
    with guarded_postgres(authority) as made:
        yield made


@pytest.fixture
def deployment(
    tmp_path: Path,
    postgres_by_tls: GuardedPostgres,
    secure_kafka: SecureKafka,
    guarded_registry: Guarded,
    authority: Authority,
) -> Iterator[Deployment]:
    made = Deployment(tmp_path, postgres_by_tls, secure_kafka)
    registry = guarded_registry("basic")
    for who in ("source", "sink"):
        made.write(who, registry, authority)
    yield made
    made.kill()


CUSTOMER = "INSERT INTO customers (full_name, email, address) VALUES (%s, %s, '{}')"
MIRRORED = "SELECT full_name FROM public.customers ORDER BY id"
CLIENTS = "SELECT name FROM crm.clients ORDER BY client_id"


def test_a_pipeline_runs_with_exactly_the_documented_rights(deployment: Deployment) -> None:
    with deployment.postgres.admin("shop") as shop:
        shop.execute(CUSTOMER, ("Ada Lovelace", "ada@example.org"))
        for kind, unit in (("source", deployment.source), ("sink", "crm"), ("sink", "mirror")):
            checked = deployment.cdc("-c", deployment.folder / f"{kind}.yaml", "check", unit)
            assert checked.returncode == 0, checked.stdout + checked.stderr
            deployment.start(kind, unit)
        wait_until(lambda: deployment.rows(CLIENTS) == [("Ada Lovelace",)], "the snapshot", 90)
        shop.execute(CUSTOMER, ("Grace Hopper", "grace@example.org"))
        shop.execute("UPDATE customers SET full_name = 'Ada King' WHERE id = 1")
        both = [("Ada King",), ("Grace Hopper",)]
        wait_until(lambda: deployment.rows(CLIENTS) == both, "inserts and updates", 60)
        wait_until(lambda: deployment.rows(MIRRORED) == both, "the mirror has them too", 60)
        shop.execute("DELETE FROM customers")
        wait_until(lambda: deployment.rows(CLIENTS) == [], "deletes", 60)
        encrypted = shop.execute(
            "SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)"
            " WHERE a.usename LIKE 'tailrace%'"
        ).fetchone()
    status = deployment.cdc("-c", deployment.folder / "source.yaml", "status", "--json")
    assert encrypted == (True,)
    assert deployment.stop() == [0, 0, 0]
    assert "secret" not in status.stdout
    assert json.loads(status.stdout)


def test_the_roles_are_no_superusers_and_own_only_what_they_write(
    postgres_by_tls: GuardedPostgres,
) -> None:
    powers = (
        "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls, rolreplication"
        " FROM pg_roles WHERE rolname LIKE 'tailrace%' ORDER BY 1"
    )
    owned = (
        "SELECT DISTINCT relnamespace::regnamespace::text FROM pg_class"
        " WHERE relowner = %s::regrole"
    )
    with postgres_by_tls.admin("shop") as shop, postgres_by_tls.admin("warehouse") as warehouse:
        assert shop.execute(powers).fetchall() == [
            ("tailrace_crm", False, False),
            ("tailrace_mirror", False, False),
            ("tailrace_source", False, True),
        ]
        assert shop.execute(owned, ("tailrace_source",)).fetchall() == []
        mine = {row[0] for row in warehouse.execute(owned, ("tailrace_crm",)).fetchall()}
    assert {name for name in mine if not name.startswith("pg_t")} <= {"crm", "tailrace_crm"}


LACKING: dict[str, tuple[str, str, str]] = {
    "connect": (
        "REVOKE CONNECT ON DATABASE shop FROM tailrace_source",
        "GRANT CONNECT ON DATABASE shop TO tailrace_source",
        "GRANT CONNECT ON DATABASE",
    ),
    "replication": (
        "ALTER ROLE tailrace_source NOREPLICATION",
        "ALTER ROLE tailrace_source REPLICATION",
        "REPLICATION",
    ),
    "usage": (
        "REVOKE USAGE ON SCHEMA public FROM public, tailrace_source",
        "GRANT USAGE ON SCHEMA public TO public, tailrace_source",
        "GRANT USAGE ON SCHEMA",
    ),
    "select": (
        "REVOKE SELECT ON customers FROM tailrace_source",
        "GRANT SELECT ON customers TO tailrace_source",
        "GRANT SELECT ON",
    ),
    "publication": (
        "ALTER PUBLICATION tailrace RENAME TO away",
        "ALTER PUBLICATION away RENAME TO tailrace",
        "CREATE PUBLICATION",
    ),
}


@pytest.mark.parametrize("right", LACKING)
def test_a_source_that_lacks_a_right_is_told_the_sql_that_grants_it(
    postgres_by_tls: GuardedPostgres, right: str
) -> None:
    from cdc.connector import Context
    from cdc.sources.postgres import Config, check

    url = postgres_by_tls.url("source", "shop")
    config = Config.model_validate({"url": url, "tables": ["public.*"], "publication": "tailrace"})
    taken, given, repair = LACKING[right]
    with postgres_by_tls.admin("shop") as shop:
        shop.execute(taken)
        found = list(check(Context("p", "shopdb"), config))
        shop.execute(given)
    failed = [finding for finding in found if finding.level == "fail"]
    assert any(repair in finding.repair for finding in failed), found
    assert not [f for f in check(Context("p", "shopdb"), config) if f.level == "fail"]


LACKING_TARGET: dict[str, tuple[str, str, str]] = {
    "connect": (
        "REVOKE CONNECT ON DATABASE warehouse FROM tailrace_crm",
        "GRANT CONNECT ON DATABASE warehouse TO tailrace_crm",
        "GRANT CONNECT ON DATABASE",
    ),
    "temporary": (
        "REVOKE TEMPORARY ON DATABASE warehouse FROM tailrace_crm",
        "GRANT TEMPORARY ON DATABASE warehouse TO tailrace_crm",
        "TEMP",
    ),
    "schema": (
        "ALTER SCHEMA crm OWNER TO postgres",
        "ALTER SCHEMA crm OWNER TO tailrace_crm",
        "GRANT",
    ),
    "cursors": (
        "ALTER SCHEMA tailrace_crm OWNER TO postgres",
        "ALTER SCHEMA tailrace_crm OWNER TO tailrace_crm",
        "GRANT",
    ),
}


@pytest.mark.parametrize("right", LACKING_TARGET)
def test_a_sink_that_lacks_a_right_is_told_the_sql_that_grants_it(
    postgres_by_tls: GuardedPostgres, right: str
) -> None:
    from cdc.connector import Context
    from sinks.targets.postgres import Config, check

    config = Config.model_validate(
        {
            "url": postgres_by_tls.url("crm", "warehouse"),
            "cursor_schema": "tailrace_crm",
            "tables": {"shopdb.public.customers": {"to": "crm.clients"}},
        }
    )
    taken, given, repair = LACKING_TARGET[right]
    with postgres_by_tls.admin("warehouse") as warehouse:
        warehouse.execute(taken)
        found = list(check(Context("p", "crm"), config))
        warehouse.execute(given)
    failed = [finding for finding in found if finding.level == "fail"]
    assert any(repair in finding.repair for finding in failed), found
    assert not [f for f in check(Context("p", "crm"), config) if f.level == "fail"]
