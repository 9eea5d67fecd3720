"""MariaDB as a target: rows and cursors in one transaction, exactly once.

How, is told in `sinks/mariadb/target.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, SecretStr

from cdc.connector import Context, Finding
from cdc.mariadb.readable import MariaDBTable
from cdc.verify.readable import Wanted
from sinks.mapping import FieldMap, TableMap
from sinks.mariadb.connector import checked, dropped, table_of
from sinks.mariadb.options import Options
from sinks.mariadb.server import MariaDB
from sinks.mariadb.target import MariaDBTarget

__all__ = ["Config", "FieldMap", "MariaDBTarget", "TableMap", "check", "create", "drop", "readable"]


class Config(Options):
    """A sink into MariaDB."""

    type: Literal["mariadb"] = Field(default="mariadb", description="The connector's name")
    url: SecretStr = Field(description="`mariadb://user:password@host:3306/database`")


def create(context: Context, config: Config) -> MariaDBTarget:
    """Return the target; it connects when it is opened."""
    return MariaDBTarget(context, config, MariaDB())


def check(context: Context, config: Config) -> Iterator[Finding]:
    """Look at the server, our own tables, and every table the mapping names."""
    return checked(context, config, MariaDB())


def readable(context: Context, config: Config, wanted: Wanted) -> MariaDBTable:
    """Return a table's rows, for `cdc verify`; it connects when it is opened."""
    return table_of(context, config, MariaDB(), wanted)


def drop(context: Context, config: Config, *, dry_run: bool) -> Iterator[str]:
    """Forget the cursors of this sink; tables and rows stay."""
    return dropped(context, config, MariaDB(), dry_run=dry_run)
