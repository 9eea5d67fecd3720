"""What a table is: its identity, its columns and their logical types, its key."""

from __future__ import annotations

import msgspec

__all__ = ["Column", "Part", "TableId", "TableSchema", "Type"]


class TableId(msgspec.Struct, frozen=True, order=True):
    """A table inside one source: `schema` and `name` exactly as the source spells them."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


class Type(msgspec.Struct, frozen=True):
    """The type of a column.

    `logical` is a key of `schemas.types.LOGICAL`; `native` is what the source calls it, with its
    dialect in front ("postgres numeric(12,2)"), and is enough to create an equal column there.
    `precision` and `scale` are digits and are set for `decimal` alone; `labels` are an enum's.
    """

    logical: str
    native: str = ""
    precision: int = 0
    scale: int = 0
    labels: tuple[str, ...] = ()


class Part(msgspec.Struct, frozen=True):
    """One part of a composite value, with its own parts where it is a composite itself."""

    name: str
    type: Type
    parts: tuple[Part, ...] = ()


class Column(msgspec.Struct, frozen=True):
    """One column. `nullable`, `default` (source SQL) and `generated` are advisory (R11).

    So are `parts`, in order, of a composite, whose values are text all the same.
    """

    name: str
    type: Type
    nullable: bool = True
    default: str | None = None
    generated: bool = False
    parts: tuple[Part, ...] = ()


class TableSchema(msgspec.Struct, frozen=True):
    """One version of a table: what a row of it looks like on the wire, in column order.

    `key` names the columns of the record key in key order; empty means null keys.
    `attributes` is free text from the source that a sink may want (comment, owner, ...).
    A sink fills the last three: `former` are columns as earlier versions had them, newest first,
    where they differ, so that a target can tell what it was given from what is somebody else's;
    `passing` names those that the newest version has no more, or not so; `cast` those whose type
    the mapping chose, whatever the source's is. (A topic that tells no lengths names all of its.)
    """

    table: TableId
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    former: tuple[Column, ...] = ()
    passing: tuple[str, ...] = ()
    cast: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """Return the column called `name`. Raises `KeyError` when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def key_indexes(self) -> tuple[int, ...]:
        """Return the places of the key columns among `columns`, in key order."""
        names = [column.name for column in self.columns]
        return tuple(names.index(name) for name in self.key)
