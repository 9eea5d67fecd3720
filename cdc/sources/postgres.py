"""PostgreSQL as a source: tables by their log, exactly once, with a snapshot of what was there.

    open ─▶ publication ─▶ {creating} ─▶ slot ─▶ stream + snapshot chunks ─▶ Batch
                           stored first  made     one loop, two connections

Why a start loses nothing (R3): the publication exists before the slot, so every transaction the
slot delivers finds it; the intent to create is stored before the slot is made, so a slot left
over by a kill is known as ours and is made anew; and what the slot holds is compared with what
is stored at every later start.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from cdc.connections.postgres import Login, connect
from cdc.connector import Context, Finding
from cdc.postgres.catalog import Catalog
from cdc.postgres.debezium import read_offset, taken_over
from cdc.postgres.leavings import leavings
from cdc.postgres.preflight import findings
from cdc.postgres.publication import Publication
from cdc.postgres.readable import PostgresSource
from cdc.postgres.relations import Relations, relation_of
from cdc.postgres.session import Session
from cdc.postgres.settings import Settings
from cdc.source import Source
from cdc.verify.readable import Wanted
from schemas.table import TableSchema

__all__ = [
    "Config",
    "check",
    "create",
    "default_name",
    "discover",
    "drop",
    "readable",
    "settings",
    "take_over",
]

_MEGABYTE = 1 << 20


class Config(BaseModel):
    """The options of a Postgres source."""

    model_config = ConfigDict(extra="forbid")

    url: SecretStr = Field(
        description="Where to connect: `postgresql://user:password@host:5432/database`, with any "
        "libpq parameter; outside loopback `sslmode` is `verify-full` if the URL names none"
    )
    tables: list[str] = Field(
        default=["*.*"],
        description="Globs over `schema.table`; one that begins with `!` leaves out",
    )
    snapshot: Literal["initial", "never", "only", "when_needed"] = Field(
        default="initial",
        description="`initial` reads what is there at the first start, `never` starts with the "
        "log, `only` stops after the snapshot, `when_needed` also begins anew after a gap",
    )
    key: dict[str, list[str]] = Field(
        default={},
        description="Key columns for tables that have no key of their own, by `schema.table`",
    )
    publication: str = Field(
        default="",
        description="A publication made by somebody else, used as it is; empty: our own",
    )
    slot: str = Field(
        default="",
        description="The replication slot's name; empty: `cdc_<pipeline>_<source>`. A slot that "
        "exists at the first start is used, not made",
    )
    failover: bool = Field(
        default=True, description="Make the slot one that standbys keep (PostgreSQL 17 and newer)"
    )
    heartbeat: float = Field(
        default=10.0,
        ge=0,
        description="Seconds between logical messages on an idle database, so that the slot "
        "moves on; 0: none",
    )
    chunk_rows: int = Field(default=20_000, ge=1, description="Rows of one snapshot chunk, at most")
    chunk_bytes: int = Field(
        default=8 * _MEGABYTE, ge=1, description="Bytes of one snapshot chunk, about"
    )
    memory: int = Field(
        default=32 * _MEGABYTE,
        ge=0,
        description="Bytes of unfinished transactions kept in memory; more goes to a file",
    )
    spill_folder: str = Field(
        default="", description="Where that file is made; empty: the system's temporary folder"
    )
    max_retained_wal: int = Field(
        default=0, ge=0, description="Bytes of log the slot may keep on the server; 0: no bound"
    )
    max_retained_wal_policy: Literal["warn", "pause", "drop"] = Field(
        default="warn",
        description="At 80 % of it all three warn; above it `pause` holds snapshots up until the "
        "stream has caught up, `drop` drops the slot and stops, so that the disk is saved",
    )


def default_name(context: Context) -> str:
    """Return the name of slot and publication: at most 63 characters of a-z, 0-9 and _.

    A name that had to be changed carries a hash, so that two sources never share a slot.
    """
    plain = f"cdc_{context.pipeline}_{context.name}"
    safe = re.sub(r"[^a-z0-9_]", "_", plain)
    if safe == plain and len(safe) <= 54:
        return safe
    return f"{safe[:45]}_{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def settings(context: Context, config: Config) -> Settings:
    """Return what the source's parts need to know, names filled in."""
    return Settings(
        url=config.url.get_secret_value(),
        application=f"cdc {context.pipeline}.{context.name}",
        tables=config.tables,
        keys=config.key,
        snapshot=config.snapshot,
        publication=config.publication or default_name(context),
        own_publication=not config.publication,
        slot=config.slot or default_name(context),
        own_slot=not config.slot,
        failover=config.failover,
        heartbeat=config.heartbeat,
        chunk_rows=config.chunk_rows,
        chunk_bytes=config.chunk_bytes,
        memory=config.memory,
        spill_folder=config.spill_folder or None,
        max_retained_wal=config.max_retained_wal,
        max_retained_wal_policy=config.max_retained_wal_policy,
        owner=f"{context.pipeline}/{context.name}",
    )


def create(context: Context, config: Config) -> Source:
    """Return the source; nothing is connected before `open`."""
    return Session(settings(context, config))


def check(context: Context, config: Config) -> Iterator[Finding]:
    """Yield every precondition, one by one, with the SQL that repairs it."""
    return findings(settings(context, config))


def discover(config: Config) -> Iterator[TableSchema]:
    """Yield the tables the globs select, as they are now. Raises `errors.CdcError`."""
    login = Login(config.url.get_secret_value(), "cdc init")
    with connect(login) as connection:
        catalog = Catalog(connection, login)
        relations = Relations(catalog, config.key)
        sent = ("", "s") if connection.info.server_version >= 180000 else ("",)
        for facts in catalog.described(catalog.tables(config.tables)):
            names = [column.name for column in facts.columns if column.generated in sent]
            yield relations.describe(relation_of(facts, names), facts)


def readable(context: Context, config: Config, wanted: Wanted) -> PostgresSource:
    """Return what of a table is published, for `cdc verify`; it connects when it is opened."""
    chosen = settings(context, config)
    login = Login(chosen.url, f"{chosen.application} verify"[:63])
    publication = Publication(chosen.publication, given=not chosen.own_publication)
    return PostgresSource(login, wanted, publication)


def take_over(context: Context, config: Config, stored: bytes) -> dict[str, Any]:
    """Return the position behind what Debezium wrote, by the offset it stored.

    Raises `errors.CdcError`, as `cdc.postgres.debezium` does.
    """
    return taken_over(settings(context, config), read_offset(stored)).encode()


def drop(
    context: Context,
    config: Config,
    dry_run: bool,  # noqa: FBT001 - the contract of cdc/connector.py
) -> Iterator[str]:
    """Yield what is left in the database, removing it unless `dry_run`."""
    return leavings(settings(context, config), dry_run=dry_run)
