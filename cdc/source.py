"""The contract between a source system and the worker that publishes its changes.

A source is single-threaded, owned by one worker, and never writes to Kafka. The worker drives it:

    open(after) ─▶ read() ─▶ read() ─▶ ... ─▶ close()
                     │
                     └─▶ the worker commits the batch and `upto` in one Kafka transaction
                         ─▶ confirm(upto): only now may the source let go of its log

Promises of a source:

* Order: batches come in commit order; `upto` never goes back.
* Repetition: after `open(p)` every change behind `p` is delivered, none at or before it, and each
  record carries the same stamp as the first time.
* Nothing of an open transaction is ever returned.
* `read` returns in about `timeout` seconds even when the source is silent.
* What it cannot read, it names and stops at (`errors.Stop`), it never skips.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import msgspec

from cdc.errors import StateError
from schemas.change import Rows, Stamp

__all__ = [
    "Batch",
    "Position",
    "Progress",
    "Source",
    "SourceStatus",
    "StoredPosition",
    "Watchful",
    "new_incarnation",
]

_VERSION = 1


class Position(Protocol):
    """A place in a source's log, opaque to everyone but that source."""

    def encode(self) -> dict[str, Any]:
        """Return a JSON object the source can open from later."""
        ...

    def covers(self, other: Self) -> bool:
        """Tell whether everything up to `other` lies at or before this position."""
        ...


class StoredPosition(msgspec.Struct, frozen=True):
    """What the positions of log sources share: the form they are stored in.

    A subclass adds `covers`; its fields are stored by their names. `system_name` is what the
    source reads, as an error calls it.
    """

    system_name: ClassVar[str]

    def encode(self) -> dict[str, Any]:
        """Return a JSON object with `"version": 1`."""
        return {"version": _VERSION, **msgspec.to_builtins(self)}

    @classmethod
    def decode(cls, value: dict[str, Any]) -> Self:
        """Return what `encode` was given. Raises `errors.StateError` for anything else."""
        version = value.get("version")
        if version != _VERSION:
            raise StateError(
                f"the stored position has version {version}, this program reads {_VERSION}",
                hint="upgrade the worker, or look at it with `cdc position show`",
            )
        fields = {name: part for name, part in value.items() if name != "version"}
        try:
            return msgspec.convert(fields, cls)
        except msgspec.ValidationError as error:
            raise StateError(
                f"the stored position is not one of a {cls.system_name} source: {error}",
                hint="look at it with `cdc position show`, replace it with `cdc position set`",
            ) from error


def new_incarnation(lost: int = 0) -> int:
    """Return an incarnation never used before; `lost` is that of a position given up.

    Seconds since 1970 are greater than any number a position that was reset could have held.
    """
    return max(int(time.time()), lost + 1)


class Progress(msgspec.Struct, frozen=True):
    """State that must commit with the position: one chunked snapshot or one table's history.

    `key` is unique within the source ("chunk/public.orders"); `value` is JSON, or None to forget.
    """

    key: str
    value: dict[str, Any] | None


class Batch(msgspec.Struct):
    """What one `read` returned: rows in commit order and the position behind the last of them.

    `boundary` is the newest (incarnation, commit) at or before which every transaction is
    complete with this batch: sinks cut there (R12). `progress` commits with the position.
    An empty `rows` moves the position alone (heartbeat).
    """

    rows: Sequence[Rows]
    upto: Position
    boundary: Stamp
    progress: Sequence[Progress] = ()


class SourceStatus(msgspec.Struct):
    """What a source can say about itself for `cdc status` and the metrics.

    `lag_bytes` is log not yet read; `retained_bytes` is log the source keeps for us;
    `waiting` names the pid, lock or server waited for, empty when nothing is (R10).
    `snapshots` maps table to (rows done, rows estimated).
    """

    state: str = "starting"
    waiting: str = ""
    lag_bytes: int | None = None
    retained_bytes: int | None = None
    snapshots: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)


class Source(Protocol):
    """See the module's text. Every method may raise `errors.Unavailable` or `errors.Stop`."""

    def open(self, after: dict[str, Any] | None, progress: Sequence[Progress]) -> None:
        """Connect and stand behind `after`; None begins with a snapshot and the log's present.

        `after` and `progress` are what was committed last. Raises `errors.GapError` when the log
        no longer reaches back to `after`, `errors.StateError` when `after` is not ours.
        """
        ...

    def read(self, timeout: float) -> Batch | None:
        """Return what came within `timeout` seconds, or None. Never waits for a full batch."""
        ...

    def confirm(self, upto: Position) -> None:
        """Everything up to `upto` is durable in Kafka: the source may forget it."""
        ...

    def command(self, name: str, arguments: dict[str, Any]) -> None:
        """Begin a request from the control topic ("backfill", ...) between two reads.

        The next `read` returns a batch whose progress makes the request durable; repeating a
        request that was already durable changes nothing. Raises `errors.DataError` for one that
        cannot be carried out.
        """
        ...

    def status(self) -> SourceStatus:
        """Return the present state without waiting."""
        ...

    def close(self) -> None:
        """Let go of every connection and file; safe to call twice and after an error."""
        ...


@runtime_checkable
class Watchful(Protocol):
    """A source that keeps an eye on its system while nothing is read from it: optional."""

    def watch(self) -> SourceStatus:
        """Look, on a source that is not open, at what its system keeps for us.

        Called every few seconds while a worker is paused or cannot publish. Returns what there
        is to say in `waiting` and `retained_bytes`. Raises `errors.Stop` only.
        """
        ...
