"""What a statement that PostgreSQL refused means for the worker (R4)."""

from __future__ import annotations

import psycopg

from cdc.errors import DataError, PreflightFailed, StateError, TargetUnavailable

__all__ = ["translated"]

_DATA_CLASSES = ("22", "23")
_DATA_STATES = ("54000", "P0001", "42804", "44000")
"""Beside the classes: an index row too large, a trigger's refusal, a view's check."""


def translated(error: psycopg.Error) -> Exception:
    """Return what a failed statement means for the worker (R4)."""
    state = error.sqlstate or ""
    text = str(error).strip()
    if state[:2] in _DATA_CLASSES or state in _DATA_STATES:
        return DataError(f"the target refuses a row: {text}")
    if state == "42501":
        return PreflightFailed(
            f"the target's role lacks a right: {text}",
            hint="GRANT SELECT, INSERT, UPDATE, DELETE ON <table> TO <role>; see the page "
            "sinks/targets/postgres.md.",
        )
    if state in ("42P01", "42703", "42P10"):
        return StateError(
            f"a table, column or index changed under the sink: {text}",
            hint="Restart the sink; when a table was dropped, `cdc sink rewind` fills it again.",
        )
    return TargetUnavailable(f"the target did not take the batch: {text}")
