"""MySQL as a source: tables by their binary log, exactly once.

The same machine as MariaDB's (`cdc/sources/mariadb.py`); what MySQL does its own way is in
`cdc/mysql`: positions are sets of transactions, and a snapshot is placed between two of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, SecretStr

from cdc.connector import Context, Finding
from cdc.mariadb.preflight import findings
from cdc.mariadb.session import Session
from cdc.mysql.server import MySQL
from cdc.source import Source
from cdc.sources import mariadb
from schemas.table import TableSchema

__all__ = ["Config", "check", "create", "discover"]


class Config(mariadb.Config):
    """The options of a MySQL source: MariaDB's."""

    url: SecretStr = Field(
        description="Where to connect: `mysql://user:password@host:3306/`, with `ssl-mode`, "
        "`ssl-ca`, `ssl-cert` and `ssl-key`; outside loopback the server's certificate is verified "
        "if the URL says nothing else"
    )


def create(context: Context, config: Config) -> Source:
    """Return the source; nothing is connected before `open`."""
    return Session(mariadb.settings(context, config, MySQL()))


def check(context: Context, config: Config) -> Iterator[Finding]:
    """Yield every precondition, one by one, with the SQL that repairs it."""
    return findings(mariadb.settings(context, config, MySQL()))


def discover(config: Config) -> Iterator[TableSchema]:
    """Yield the tables the globs select, as they are now. Raises `errors.CdcError`."""
    return mariadb.found_tables(config, MySQL())
