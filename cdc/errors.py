"""Everything that can go wrong, and what the worker does about it: one tree, one table.

    CdcError
    ├── ConfigError            the YAML, an option or a credential is wrong              stop
    ├── Unavailable            the other side is away, busy or restarting                retry
    │   ├── SourceUnavailable
    │   ├── KafkaUnavailable
    │   ├── RegistryUnavailable
    │   └── TargetUnavailable
    ├── DataError              this one record cannot be applied or encoded              dead-letter
    └── Stop                   going on would lose or invent data                        stop
        ├── GapError           the log no longer holds what comes after our position
        ├── UnknownEvent       the log says something we do not understand
        ├── SchemaIncompatible the new version of a table breaks its readers
        ├── TopicChanged       a topic was recreated, truncated or repartitioned
        ├── StateError         a stored position, cursor or progress cannot be used
        ├── PreflightFailed    a precondition on the source or target does not hold
        └── Fenced             another worker owns what we owned

An error names its place (YAML path, table, offset, LSN) in the message and the remedy in `hint`.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from schemas.errors import (
    CdcError,
    ConfigError,
    DataError,
    RegistryUnavailable,
    SchemaIncompatible,
    Stop,
    Unavailable,
)

__all__ = [
    "EXIT_CODES",
    "Action",
    "CdcError",
    "ConfigError",
    "DataError",
    "Fenced",
    "GapError",
    "KafkaUnavailable",
    "PreflightFailed",
    "RegistryUnavailable",
    "SchemaIncompatible",
    "SourceUnavailable",
    "StateError",
    "Stop",
    "TargetUnavailable",
    "TopicChanged",
    "Unavailable",
    "UnknownEvent",
    "action_for",
    "exit_code_for",
]


class Action(Enum):
    """What a worker does with an error."""

    RETRY = "retry"
    DEAD_LETTER = "dead_letter"
    STOP = "stop"


class SourceUnavailable(Unavailable):
    """The source system refused or dropped the connection."""


class KafkaUnavailable(Unavailable):
    """The broker is down, slow or read-only, or a transaction ended in doubt."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "Is the broker up, and are kafka.bootstrap and security.protocol right?",
    ) -> None:
        super().__init__(message, hint=hint)


class TargetUnavailable(Unavailable):
    """The target refused or dropped the connection, or chose us as a deadlock victim."""


class GapError(Stop):
    """The log no longer holds what comes after the stored position."""


class UnknownEvent(Stop):
    """The log carries an event this version does not understand."""


class TopicChanged(Stop):
    """A topic was recreated, shortened below the cursor, or given more partitions."""


class StateError(Stop):
    """A stored position, cursor or progress is of a newer version, damaged or foreign."""


class PreflightFailed(Stop):
    """A precondition on the source or target does not hold."""


class Fenced(Stop):
    """Another worker has taken over; this one must end without writing."""


_ACTIONS: dict[type[CdcError], Action] = {
    Unavailable: Action.RETRY,
    DataError: Action.DEAD_LETTER,
    Stop: Action.STOP,
    ConfigError: Action.STOP,
}

EXIT_CODES: dict[type[CdcError], int] = {
    ConfigError: 2,
    Fenced: 5,
    Stop: 3,
    Unavailable: 4,
    DataError: 1,
    CdcError: 1,
}
"""Exit status of `cdc` by the nearest class; 0 is success, 1 also "a difference was found"."""


_T = TypeVar("_T")


def _nearest(table: dict[type[CdcError], _T], error: CdcError, default: _T) -> _T:
    return next((table[kind] for kind in type(error).__mro__ if kind in table), default)


def action_for(error: CdcError) -> Action:
    """Return what a worker does with `error`; an unlisted kind stops it."""
    return _nearest(_ACTIONS, error, Action.STOP)


def exit_code_for(error: CdcError) -> int:
    """Return the exit status of `cdc` for `error`."""
    return _nearest(EXIT_CODES, error, 1)
