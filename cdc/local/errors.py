"""The one error of the local stack."""

from __future__ import annotations

from cdc.errors import CdcError

__all__ = ["LocalStackError"]


class LocalStackError(CdcError):
    """A part could not be fetched or a server could not be started; `hint` says what to do."""
