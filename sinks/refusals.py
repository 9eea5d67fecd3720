"""What targets refuse, found and told in the same way whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TypeVar

from cdc.connector import Finding
from cdc.errors import CdcError, DataError, SchemaIncompatible, StateError
from schemas.table import TableId
from sinks.target import Step

__all__ = [
    "bare",
    "dropped",
    "forbidden",
    "rehearsed",
    "unmatched",
    "unmoved",
    "unwanted",
    "vanished",
]

_NOT_THERE = (
    "The row's creation was not applied here: take a new snapshot of the table, or set REPLICA "
    "IDENTITY FULL on it."
)


Error = TypeVar("Error", bound=CdcError)


def rehearsed(
    transactions: Iterable[Sequence[Step]], take: Callable[[Step], object]
) -> dict[int, DataError]:
    """Return which steps `take` refuses, by their place among all of them, and why."""
    refused: dict[int, DataError] = {}
    for number, step in enumerate(chain.from_iterable(transactions)):
        try:
            take(step)
        except DataError as error:
            refused[number] = bare(error)
    return refused


def bare(error: Error) -> Error:
    """Return `error` without the frames it came through, which keep all that they hold (R14).

    A frame that holds the event that holds the error would never be let go: events are not
    looked at by the collector.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def vanished(table: TableId) -> StateError:
    """Return the error for a table that changes were applied to, and that is not there."""
    return StateError(
        f"table {table} is gone, and changes were applied to it before",
        hint="Bring it back, or fill it anew: `cdc sink rewind NAME --to earliest "
        "--topic TOPIC` where the topic holds everything, else `cdc backfill`.",
    )


def dropped(table: TableId) -> SchemaIncompatible:
    """Return the error for a table that somebody drops while it is being made or changed."""
    return SchemaIncompatible(f"{table} was dropped while it was being prepared")


def forbidden(statements: Sequence[str]) -> SchemaIncompatible:
    """Return the error for a table that would need `statements`, which the rules forbid."""
    return SchemaIncompatible(
        "the target lacks a table, and `schema_changes` says stop (create)",
        hint=";\n".join(statements) + ";",
    )


def unwanted(name: str) -> Finding:
    """Return what `cdc check` finds of a table that is missing, where the rules make none."""
    repair = "Make the table, or set `schema_changes: {create: apply}`."
    return Finding("fail", name, "is missing, and `schema_changes` makes none", repair)


def unmatched(table: TableId, rows: int) -> DataError:
    """Return the error for `rows` updates of some columns whose row is not there (R6)."""
    return DataError(
        f"{rows} updates of {table} carry some columns only and find no row to update",
        hint=_NOT_THERE,
    )


def unmoved(table: TableId, rows: int) -> DataError:
    """Return the error for `rows` changed keys whose old row, with the rest, is not there (R6)."""
    return DataError(
        f"{rows} rows of {table} changed their key, carry some columns only, and their old rows "
        "are not there",
        hint=_NOT_THERE,
    )
