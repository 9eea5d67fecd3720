"""What a sink worker is made of, and where it says how it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from cdc.config import OnPoison
from cdc.connector import Context
from cdc.errors import CdcError
from cdc.kafka import KafkaConfig
from cdc.worker import Control
from sinks.applier import Applied
from sinks.mapping import Selection
from sinks.routes import Schemas
from sinks.target import Target
from sinks.topic_lookup import Lookups

__all__ = ["SinkJob", "SinkReporter", "SinkStatus"]


class SinkStatus(msgspec.Struct):
    """What a sink says of itself; `waiting` names what is waited for (R10)."""

    state: str = "starting"
    waiting: str = ""
    lag_rows: int | None = None
    lag_seconds: float | None = None


class SinkReporter(Protocol):
    """Where a worker says how it stands; must not raise and must not wait."""

    def applied(self, applied: Applied) -> None:
        """Count one target transaction."""
        ...

    def invalid(self, rows: Mapping[tuple[str, str], int]) -> None:
        """Count rows that broke a rule of the mapping, by table and rule."""
        ...

    def beat(self, status: SinkStatus, error: CdcError | None) -> None:
        """Tell the present state, about once a second, and at each change of it."""
        ...


class SinkJob(msgspec.Struct):
    """What a worker is made of. `stop` turns true when the process is asked to end.

    `back_off` gives the seconds to rest before attempt number n (cdc/retry.py). `buffer_bytes`
    bounds what is held in memory between Kafka and the target. `lookups` are the topics that the
    mapping looks up in.
    """

    context: Context
    kafka: KafkaConfig
    target: Callable[[], Target]
    selection: Selection
    schemas: Schemas
    control: Control
    reporter: SinkReporter
    stop: Callable[[], bool]
    back_off: Callable[[int], float]
    workers: int = 1
    buffer_bytes: int = 20 * 1024 * 1024
    on_poison: OnPoison = "dead_letter"
    lookups: Lookups | None = None
