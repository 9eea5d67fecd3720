"""MySQL as a target: rows and cursors in one transaction, exactly once.

The same machine as MariaDB's (`sinks/mariadb/target.py`); what MySQL does its own way is in
`sinks/mysql`.
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
from sinks.mariadb.target import MariaDBTarget
from sinks.mysql.server import MySQL

__all__ = ["Config", "FieldMap", "MariaDBTarget", "TableMap", "check", "create", "drop", "readable"]


class Config(Options):
    """A sink into MySQL."""

    type: Literal["mysql"] = Field(default="mysql", description="The connector's name")
    url: SecretStr = Field(description="`mysql://user:password@host:3306/database`")


def create(context: Context, config: Config) -> MariaDBTarget:
    """Return the target; it connects when it is opened."""
    return MariaDBTarget(context, config, MySQL())


def check(context: Context, config: Config) -> Iterator[Finding]:
    """Look at the server, our own tables, and every table the mapping names."""
    return checked(context, config, MySQL())


def readable(context: Context, config: Config, wanted: Wanted) -> MariaDBTable:
    """Return a table's rows, for `cdc verify`; it connects when it is opened."""
    return table_of(context, config, MySQL(), wanted)


def drop(context: Context, config: Config, *, dry_run: bool) -> Iterator[str]:
    """Forget the cursors of this sink; tables and rows stay."""
    return dropped(context, config, MySQL(), dry_run=dry_run)
