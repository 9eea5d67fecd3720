"""How much log the slot may keep on the server, and what is done when it keeps more.

A slot keeps log for us until Kafka has it. Where that takes too long (a broker away, a worker
paused, a snapshot in the way) the server's disk fills, and then the database stops for everybody.
`max_retained_wal` bounds it from our side; the server's own bound is `max_slot_wal_keep_size`,
which takes the log away from a slot without asking.

The bound is on what costs disk: the log from the slot's restart_lsn on. One transaction left open
anywhere in the database holds that back too, with nothing of ours behind.
"""

from __future__ import annotations

import structlog

from cdc.errors import GapError
from cdc.postgres.catalog import Catalog
from cdc.postgres.settings import Settings
from cdc.postgres.slot import drop_slot

__all__ = ["Retention"]

_NEAR = 0.8
_log = structlog.get_logger(__name__)


class Retention:
    """`said` tells how much is kept, from 80 % of the bound on; `over` that it is too much.

    `over` ends only below 80 % again, so that what waits for it does not flutter.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.said = ""
        self.over = False

    @property
    def pauses(self) -> bool:
        """Tell whether snapshots have to wait."""
        return self.over and self._settings.max_retained_wal_policy == "pause"

    def weigh(self, catalog: Catalog, retained: int) -> None:
        """Judge `retained` bytes. Raises `errors.GapError` when the slot had to be dropped."""
        settings, limit = self._settings, self._settings.max_retained_wal
        if not limit:
            return
        near, over = retained >= _NEAR * limit, retained > limit
        before = (bool(self.said), self.over)
        self.over = over or (self.over and near)
        kept = f"slot {settings.slot} keeps {retained >> 20} MiB of log"
        self.said = f"{kept}; max_retained_wal is {limit >> 20} MiB" if near else ""
        if self.said and before != (True, self.over):
            _log.warning("log retained", slot=settings.slot, bytes=retained, limit=limit)
        if over and settings.max_retained_wal_policy == "drop":
            self._drop(catalog)

    def _drop(self, catalog: Catalog) -> None:
        drop_slot(catalog, self._settings.slot)
        raise GapError(
            f"{self.said}: the slot was dropped to save the server's disk",
            hint="find out what held the worker up, then snapshot again: "
            "`cdc position reset SOURCE`, and start the worker",
        )
