"""Which rows of a statement the server refuses for their values, found in one pass.

`INSERT IGNORE` goes on behind a value that its column cannot hold and warns "… at row N". So one
pass over a batch, into staging, finds all rows of that kind, where a strict INSERT finds the first
and the batch must be halved again and again. Each is asked for again, strictly and alone: no row is
blamed for a warning that was misread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pymysql
from pymysql.constants import ER

from cdc.connections.mariadb import Connection, code_of, fetch

__all__ = ["is_of_a_value", "refused_rows"]

_VALUE = (
    ER.WARN_DATA_OUT_OF_RANGE,
    ER.WARN_DATA_TRUNCATED,
    ER.TRUNCATED_WRONG_VALUE,
    ER.TRUNCATED_WRONG_VALUE_FOR_FIELD,
    ER.DATA_TOO_LONG,
)
_ROW = re.compile(r"(\d+)\D*$")
_COLUMN = re.compile(r"column .*\bc(\d+)\b.*$")


def is_of_a_value(error: pymysql.Error) -> bool:
    """Tell whether a row was refused for one of its values, not by a constraint."""
    return code_of(error) in _VALUE


def refused_rows(
    connection: Connection, stage: str, chunks: Iterable[Sequence[bytes]], names: Sequence[str]
) -> dict[int, str]:
    """Return the place of each refused row, over all chunks, and why; a chunk fits a statement.

    The rows are literals of the columns c0, c1, … of `stage`; `names` are those of the table.
    """
    cells = ", ".join(f"c{place}" for place in range(len(names)))
    into = f"INTO {stage} ({cells}) VALUES ".encode()
    refused: dict[int, str] = {}
    first = 0
    for chunk in chunks:
        connection.query(b"INSERT IGNORE " + into + b",".join(chunk))
        for place in sorted(_warned(connection, len(chunk))):
            reason = _reason(connection, b"INSERT " + into + chunk[place], names)
            if reason:
                refused[first + place] = reason
        first += len(chunk)
    return refused


def _warned(connection: Connection, rows: int) -> set[int]:
    """Return the places of the rows that the last statement warned of."""
    found = [
        _ROW.search(text) for _, code, text in fetch(connection, "SHOW WARNINGS") if code in _VALUE
    ]
    places = {int(number[1]) - 1 for number in found if number is not None}
    return {place for place in places if 0 <= place < rows}


def _reason(connection: Connection, statement: bytes, names: Sequence[str]) -> str:
    """Return what the server says against a row, empty where it takes it."""
    try:
        connection.query(statement)
    except pymysql.Error as error:
        if not is_of_a_value(error):
            raise
        return _COLUMN.sub(lambda found: f"column {names[int(found[1])]}", str(error.args[-1]))
    return ""
