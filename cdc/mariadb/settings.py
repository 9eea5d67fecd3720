"""What the parts of a MariaDB source need to know of its configuration, names filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cdc.mariadb.dialect import Dialect

__all__ = ["Settings"]


class Settings(msgspec.Struct, frozen=True):
    """See the field descriptions of `cdc.sources.mariadb.Config`; `server_id` is never 0."""

    dialect: Dialect

    url: str
    application: str
    tables: Sequence[str]
    keys: Mapping[str, Sequence[str]]
    snapshot: str
    server_id: int
    heartbeat: float
    chunk_rows: int
    chunk_bytes: int
    memory: int
    spill_folder: str | None
