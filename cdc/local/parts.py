"""The files that the local stack is made of: `parts.toml` as objects."""

from __future__ import annotations

import functools
import platform
import sys
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from cdc.local.errors import LocalStackError

__all__ = [
    "POSTGRES_VERSIONS",
    "Part",
    "kafka_parts",
    "mariadb_part",
    "postgres_part",
    "registry_part",
]

POSTGRES_VERSIONS = (14, 15, 16, 17, 18)
MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Part:
    """One file of a Maven repository: what it belongs to, where it is, what it must be."""

    family: str
    maven: str
    size: int
    sha256: str

    @property
    def coordinates(self) -> tuple[str, str, str, str, str]:
        """Group, artifact, version, classifier (or ""), packaging."""
        group, artifact, version, *rest = self.maven.split(":")
        classifier, packaging = rest or ("", "jar")
        return group, artifact, version, classifier, packaging

    @property
    def version(self) -> str:
        """Its version, as the repository spells it."""
        return self.coordinates[2]

    @property
    def filename(self) -> str:
        """Its name in the cache, the one Maven gives it."""
        _group, artifact, version, classifier, packaging = self.coordinates
        return f"{'-'.join(filter(None, (artifact, version, classifier)))}.{packaging}"


@functools.cache
def _table() -> dict[str, list[dict[str, Any]]]:
    text = resources.files("cdc.local").joinpath("parts.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _part(family: str, row: dict[str, Any]) -> Part:
    return Part(family, row["maven"], row["bytes"], row["sha256"])


def kafka_parts() -> list[Part]:
    """Every jar on the broker's class path, in order."""
    return [_part("Kafka", row) for row in _table()["kafka"]]


def registry_part() -> Part:
    """The archive of the schema registry."""
    return _part("Schema registry", _table()["registry"][0])


def this_platform() -> str:
    """This machine as the parts table spells it: `linux-x86_64`, `darwin-arm64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}-{MACHINES.get(machine, machine)}"


def postgres_part(version: int) -> Part:
    """The PostgreSQL binaries of a major version for this machine.

    Raises:
        LocalStackError: there are none for this version or this platform.
    """
    here = this_platform()
    for row in _table()["postgres"]:
        if (row["major"], row["platform"]) == (version, here):
            return _part(f"PostgreSQL {version}", row)
    if version not in POSTGRES_VERSIONS:
        raise LocalStackError(
            f"there are no PostgreSQL {version} binaries in the local stack",
            hint=f"take one of {', '.join(map(str, POSTGRES_VERSIONS))}",
        )
    raise LocalStackError(
        f"there are no PostgreSQL {version} binaries for {here}",
        hint="run on Linux or macOS (x86_64 or arm64), or start the servers of docker/compose.yaml",
    )


def mariadb_part() -> Part:
    """The MariaDB server for this machine.

    Raises:
        LocalStackError: there is none for this platform.
    """
    here = this_platform()
    for row in _table()["mariadb"]:
        if row["platform"] == here:
            return _part("MariaDB", row)
    raise LocalStackError(
        f"there is no MariaDB server for {here} in the local stack",
        hint="run on Linux on x86_64, or start a MariaDB of your own",
    )
