"""The errors that schemas and the registry raise; `cdc.errors` draws the whole tree.

They live here because imports point one way, `schemas` ← `cdc` ← `sinks`, and are known everywhere
else by their names in `cdc.errors`.
"""

from __future__ import annotations

__all__ = [
    "CdcError",
    "ConfigError",
    "DataError",
    "RegistryUnavailable",
    "SchemaIncompatible",
    "Stop",
    "Unavailable",
]


class CdcError(Exception):
    """The root. `hint` is the remedy for the operator, one or more lines, may hold SQL."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(CdcError):
    """The pipeline file, an option or a credential is wrong; nothing was started."""


class Unavailable(CdcError):
    """The other side did not answer in time; the same work is repeated after a pause."""


class RegistryUnavailable(Unavailable):
    """The schema registry is down or answered 5xx."""


class DataError(CdcError):
    """One record cannot be applied or encoded, whatever the order and however often."""


class Stop(CdcError):
    """Going on would lose or invent data; an operator must decide."""


class SchemaIncompatible(Stop):
    """The new version of a table cannot be read with the old one."""
