"""BEGIN and END of source transactions, as records of `<source>.transaction`.

    {"status": "BEGIN", "id": "txid:commit", "ts_ms": …}
    {"status": "END",   "id": …, "event_count": 3, "data_collections": [{…, "event_count": …}]}

JSON, keyed by the id, in the same Kafka transaction as the rows. Counts survive a restart inside a
transaction: they are progress, committed with the position.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cdc.source import Batch, Progress
from schemas.change import Origin, Rows

__all__ = ["PROGRESS", "Boundaries"]

PROGRESS = "transaction"


class _Open(msgspec.Struct):
    """The transaction whose end has not been seen."""

    id: str
    commit: int
    ts_ms: int
    counts: dict[str, int] = {}


class Boundaries:
    """Follows the transactions of one source through its batches."""

    def __init__(self, stored: dict[str, Any] | None) -> None:
        self._open = None if stored is None else msgspec.convert(stored, _Open)

    def messages(self, batch: Batch, counted: list[tuple[Rows, int]]) -> list[dict[str, Any]]:
        """Return the records for `batch`; `counted` are its runs with their numbers of events."""
        out: list[dict[str, Any]] = []
        for rows, events in counted:
            if rows.origin.snapshot:
                continue
            if self._open is None or self._open.commit != rows.origin.commit:
                out += self._end()
                out.append(self._begin(rows.origin))
            if self._open is not None:
                table = str(rows.schema.table)
                self._open.counts[table] = self._open.counts.get(table, 0) + events
        if self._open is not None and self._open.commit <= batch.boundary.commit:
            out += self._end()
        return out

    def progress(self) -> Progress:
        """Return what must be stored to go on counting after a restart."""
        value = None if self._open is None else msgspec.to_builtins(self._open)
        return Progress(PROGRESS, value)

    def _begin(self, origin: Origin) -> dict[str, Any]:
        identity = f"{origin.txid}:{origin.commit}"
        self._open = _Open(identity, origin.commit, origin.commit_us // 1000)
        return _message(identity, {"status": "BEGIN", "ts_ms": self._open.ts_ms})

    def _end(self) -> list[dict[str, Any]]:
        ended, self._open = self._open, None
        if ended is None:
            return []
        collections = [
            {"data_collection": table, "event_count": count}
            for table, count in ended.counts.items()
        ]
        value = {
            "status": "END",
            "ts_ms": ended.ts_ms,
            "event_count": sum(ended.counts.values()),
            "data_collections": collections,
        }
        return [_message(ended.id, value)]


def _message(identity: str, value: dict[str, Any]) -> dict[str, Any]:
    body = {"status": value.pop("status"), "id": identity, **value}
    return {"key": identity.encode(), "value": msgspec.json.encode(body)}
