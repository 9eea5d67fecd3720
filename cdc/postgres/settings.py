"""What the parts of a Postgres source need to know of its configuration, names filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

__all__ = ["Settings"]


class Settings(msgspec.Struct, frozen=True):
    """See the field descriptions of `cdc.sources.postgres.Config`.

    `owner` names pipeline and source in watermarks. `own_slot` and `own_publication` say that we
    make, change and drop them; those of somebody else are used as they are.
    """

    url: str
    application: str
    owner: str
    tables: Sequence[str]
    keys: Mapping[str, Sequence[str]]
    snapshot: str
    publication: str
    own_publication: bool
    slot: str
    own_slot: bool
    failover: bool
    heartbeat: float
    chunk_rows: int
    chunk_bytes: int
    memory: int
    spill_folder: str | None
    max_retained_wal: int = 0
    max_retained_wal_policy: str = "warn"
