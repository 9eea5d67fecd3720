"""What SELECT is asked for, and its rows in canonical texts: one home for all who read tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cdc.decode.mysqltypes import MysqlColumn, selected, text
from cdc.mariadb.connection import quoted

__all__ = ["Row", "asked", "reader"]

Row = Sequence[bytes | None]


def asked(columns: Sequence[MysqlColumn]) -> str:
    """Return what SELECT has to ask for."""
    return ", ".join(selected(column, quoted(column.name)) for column in columns)


def reader(columns: Sequence[MysqlColumn]) -> Callable[[Row], list[bytes | None]]:
    """Return what makes canonical texts of a row that was `asked` for, compiled once."""
    makes = [text(column) for column in columns]

    def read(row: Row) -> list[bytes | None]:
        return [
            cell if cell is None or make is None else make(cell)
            for cell, make in zip(row, makes, strict=True)
        ]

    return read
