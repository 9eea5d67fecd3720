"""MariaDB as a source: tables by their binary log, exactly once.

    open ─▶ guard the position ─▶ dump of the log ─▶ whole transactions ─▶ Batch

The server keeps its log by its own rules, so there is nothing to make there and nothing to leave
behind: what is stored is compared with the log at each start, and a gap is a stop (R3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from cdc.connector import Context, Finding
from cdc.mariadb.catalog import Catalog, Selection
from cdc.mariadb.connection import Login, connect
from cdc.mariadb.dialect import Dialect
from cdc.mariadb.preflight import findings
from cdc.mariadb.readable import MariaDBSource
from cdc.mariadb.server import MariaDB
from cdc.mariadb.session import Session
from cdc.mariadb.settings import Settings
from cdc.mariadb.tables import Tables
from cdc.source import Source
from cdc.verify.readable import Wanted
from schemas.table import TableSchema

__all__ = [
    "Config",
    "check",
    "create",
    "discover",
    "found_tables",
    "readable",
    "server_id",
    "settings",
]

_MEGABYTE = 1 << 20
_IDS_FROM, _IDS = 1 << 31, 1 << 30


class Config(BaseModel):
    """The options of a MariaDB source."""

    model_config = ConfigDict(extra="forbid")

    url: SecretStr = Field(
        description="Where to connect: `mariadb://user:password@host:3306/`, with `ssl-mode`, "
        "`ssl-ca`, `ssl-cert` and `ssl-key`; outside loopback the server's certificate is verified "
        "if the URL says nothing else"
    )
    tables: list[str] = Field(
        default=["*.*"],
        description="Globs over `database.table`; one that begins with `!` leaves out",
    )
    snapshot: Literal["initial", "never", "only", "when_needed"] = Field(
        default="initial",
        description="`initial` reads what is there at the first start, `never` starts with the "
        "log, `only` stops after the snapshot, `when_needed` also begins anew after a gap",
    )
    key: dict[str, list[str]] = Field(
        default={},
        description="Key columns for tables that have no key of their own, by `database.table`",
    )
    server_id: int = Field(
        default=0,
        ge=0,
        lt=1 << 32,
        description="What we are called among the server's replicas, no other of which may have "
        "it; 0: made of the names of pipeline and source",
    )
    heartbeat: float = Field(
        default=5.0,
        gt=0,
        description="Seconds after which an idle server says that it is there; six in a row "
        "missing count as a lost connection",
    )
    chunk_rows: int = Field(default=20_000, ge=1, description="Rows of one snapshot chunk, at most")
    chunk_bytes: int = Field(
        default=8 * _MEGABYTE, ge=1, description="Bytes of one snapshot chunk, about"
    )
    memory: int = Field(
        default=32 * _MEGABYTE,
        ge=0,
        description="Bytes of a transaction kept in memory until its end; more goes to a file",
    )
    spill_folder: str = Field(
        default="", description="Where that file is made; empty: the system's temporary folder"
    )


def server_id(context: Context) -> int:
    """Return an id of our own, from 2^31 on, where people number no servers."""
    name = f"{context.pipeline}/{context.name}".encode()
    return _IDS_FROM + int.from_bytes(hashlib.sha256(name).digest()[:8], "big") % _IDS


def settings(context: Context, config: Config, dialect: Dialect) -> Settings:
    """Return what the source's parts need to know, names filled in."""
    return Settings(
        dialect=dialect,
        url=config.url.get_secret_value(),
        application=f"cdc {context.pipeline}.{context.name}",
        tables=config.tables,
        keys=config.key,
        snapshot=config.snapshot,
        server_id=config.server_id or server_id(context),
        heartbeat=config.heartbeat,
        chunk_rows=config.chunk_rows,
        chunk_bytes=config.chunk_bytes,
        memory=config.memory,
        spill_folder=config.spill_folder or None,
    )


def create(context: Context, config: Config) -> Source:
    """Return the source; nothing is connected before `open`."""
    return Session(settings(context, config, MariaDB()))


def check(context: Context, config: Config) -> Iterator[Finding]:
    """Yield every precondition, one by one, with the SQL that repairs it."""
    return findings(settings(context, config, MariaDB()))


def discover(config: Config) -> Iterator[TableSchema]:
    """Yield the tables the globs select, as they are now. Raises `errors.CdcError`."""
    return found_tables(config, MariaDB())


def found_tables(config: Config, dialect: Dialect) -> Iterator[TableSchema]:
    """Yield the tables the globs select on a server that speaks `dialect`."""
    login = Login(config.url.get_secret_value(), "cdc init", system=dialect.name)
    with closing(connect(login)) as connection:
        catalog = Catalog(connection, login, dialect)
        selection = Selection(catalog, config.tables)
        tables = Tables(catalog, selection, config.key)
        for facts in selection.tables():
            yield tables.described(catalog.described(facts))


def readable(context: Context, config: Config, wanted: Wanted) -> MariaDBSource:
    """Return a table's rows, for `cdc verify`; nothing is connected before `open`."""
    login = Login(config.url.get_secret_value(), f"cdc {context.pipeline}.{context.name} verify")
    return MariaDBSource(login, (wanted.table.schema, wanted.table.name), wanted)
