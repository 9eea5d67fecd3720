"""A table as the server has it, and whether it keeps what it is given.

What would become a value that differs (in a shorter decimal, a key that knows no capitals), or of
no transaction at all (MyISAM), stops the sink: the server's strict mode says nothing there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from cdc.connections.mariadb import quoted
from cdc.errors import PreflightFailed, SchemaIncompatible
from schemas.table import Column, TableSchema, Type
from sinks.mariadb.dialect import Dialect
from sinks.mariadb.forms import WIDE
from sinks.room import holds

__all__ = [
    "Existing",
    "ExistingColumn",
    "Index",
    "refuse_engine",
    "refuse_key",
    "refuse_names",
    "refuse_unlike",
]

_OURS = "tailrace_"
_LAST_CHARACTER = "\uffff"
_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext"}
_BYTES = {"varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_INTEGERS = {"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", *_TEXTS}
_DAYS = {"date", "datetime", "timestamp", *_TEXTS}
_MOMENTS = {"datetime", "timestamp", *_TEXTS}
_WORDS = {*_TEXTS, *_BYTES, "enum", "set", "uuid", "inet4", "inet6", "decimal", "date", *_MOMENTS}
_TAKEN = {
    "boolean": _INTEGERS,
    "int16": _INTEGERS,
    "int32": _INTEGERS,
    "int64": _INTEGERS,
    "float32": {"float", "double", *_TEXTS},
    "float64": {"double", *_TEXTS},
    "decimal": {"decimal", *_TEXTS},
    "date": _DAYS,
    "time": {"time", *_TEXTS},
    "timestamp": _MOMENTS,
    "timestamptz": _MOMENTS,
    "bytes": _BYTES,
    "uuid": {"uuid", *_TEXTS},
    "string": _WORDS,
    "json": _WORDS,
    "enum": _WORDS,
    "text": {*_WORDS, "time"},
}
"""Logical type → types of a column that keeps its values as they are, or refuses them."""
_CUT = {"decimal", "date", "time", "datetime", "timestamp"}
"""Types that take a text by rounding it or cutting it off, and only note it."""
_EXACT = ("_nopad_bin", "_0900_bin")
"""Collations by which texts are equal only byte for byte: of MariaDB, of MySQL."""
_SYSTEMS = ("mariadb", "mysql")
_INDEX = "tailrace_key"
_BOUNDLESS = ("text", "blob")
_FRACTION = 6
_FRACTIONS = {"time": {"time"}, "timestamp": _MOMENTS - _TEXTS, "timestamptz": _MOMENTS - _TEXTS}


class ExistingColumn(msgspec.Struct, frozen=True):
    """A column as the server has it.

    `type` is as declared, `family` its name alone, `scale` digits behind the point or, of a moment,
    of a second. `required` is NOT NULL.
    """

    name: str
    type: str
    family: str
    charset: str | None
    collation: str | None
    generated: bool
    scale: int
    required: bool

    @property
    def declared(self) -> str:
        """Return the type with what decides which texts are equal."""
        if self.charset is None or self.collation is None:
            return self.type
        return f"{self.type} CHARACTER SET {self.charset} COLLATE {self.collation}"

    @property
    def is_exact(self) -> bool:
        """Tell whether values are equal only byte for byte."""
        return self.collation is None or self.collation.endswith(_EXACT)


class Index(msgspec.Struct):
    """A unique index: its columns, folded; whether it holds whole values, no beginnings."""

    columns: set[str]
    whole: bool = True


class Existing(msgspec.Struct, frozen=True):
    """A table as the server has it; columns by folded name, and where foreign keys point to."""

    database: str
    name: str
    engine: str
    transactional: bool
    columns: Mapping[str, ExistingColumn]
    unique: Sequence[Index]
    parents: Sequence[tuple[str, str]]

    @property
    def quoted(self) -> str:
        """Return the name for a statement."""
        return f"{quoted(self.database)}.{quoted(self.name)}"

    def column(self, name: str) -> ExistingColumn | None:
        """Return the column the server means by `name`: it knows no capitals there."""
        return self.columns.get(name.lower())

    def is_unique_by(self, key: Iterable[str]) -> bool:
        """Tell whether a unique index covers exactly `key`."""
        wanted = {name.lower() for name in key}
        return any(index.whole and index.columns == wanted for index in self.unique)

    def is_unique_only_by(self, key: Iterable[str]) -> bool:
        """Tell whether two rows that a unique index takes for one have the same `key`."""
        wanted = {name.lower() for name in key}
        return all(index.whole and index.columns >= wanted for index in self.unique)


def refuse_names(schema: TableSchema, dialect: Dialect) -> None:
    """Stop where the server would take a name for another one, or for one of the sink's own."""
    if schema.table.name.lower().startswith(_OURS):
        raise SchemaIncompatible(
            f"a table of the sink's own would be called {schema.table.name}",
            hint="Map the topic to another table with `to:`.",
        )
    names = [schema.table.schema, schema.table.name, *(c.name for c in schema.columns)]
    for name in names:
        if name and max(name) > _LAST_CHARACTER:
            raise SchemaIncompatible(
                f"{dialect.name} takes no name like {name}: a character of it is outside the "
                "basic plane",
                hint="Map the table to another with `to:`, its columns with `fields:`.",
            )
    seen: dict[str, str] = {}
    for column in schema.columns:
        other = seen.setdefault(column.name.lower(), column.name)
        if other != column.name:
            raise SchemaIncompatible(
                f"{schema.table} has columns {other} and {column.name}, which are one to "
                f"{dialect.name}",
                hint="Rename one of them in the mapping (`fields:`).",
            )


def refuse_engine(existing: Existing) -> None:
    """Stop at an engine without transactions."""
    if not existing.transactional:
        raise PreflightFailed(
            f"{existing.database}.{existing.name} is of the engine {existing.engine}, which knows "
            "no transactions: rows and cursor would not move together",
            hint=f"ALTER TABLE {existing.quoted} ENGINE=InnoDB;",
        )


def refuse_unlike(column: Column, existing: Existing, dialect: Dialect, *, cast: bool) -> None:
    """Stop where the column would turn values into something else, or take none at all.

    A text that the mapping `cast` to what it is may be a number or a moment here.
    """
    there = existing.column(column.name)
    if there is None or there.generated or _keeps(column, there, dialect.word, cast=cast):
        return
    stored = dialect.forms.storage(column.type)
    raise SchemaIncompatible(
        f"{existing.name}.{there.name} is {there.type} in the target, which would not keep a "
        f"{column.type.logical} as it is: that is stored as {stored}",
        hint=f"Cast it in the mapping (`{column.name}: {{from: …, as: …}}`), map it to another "
        f"column, or: ALTER TABLE {existing.quoted} MODIFY {quoted(there.name)} {stored};",
    )


def _keeps(column: Column, there: ExistingColumn, word: str, *, cast: bool) -> bool:
    logical = column.type.logical
    if there.family == "json":  # MySQL's own: documents are written anew, numbers are doubles
        return logical == "json" and cast
    if there.family not in _TAKEN[logical]:
        return False
    if there.family in _CUT and _TAKEN[logical] >= _WORDS and not cast:
        return holds(Type("", f"{word} {there.type}"), column.type) is True
    if logical == "decimal" and there.family == "decimal":
        return there.scale >= column.type.scale
    cuts = there.family in _FRACTIONS.get(logical, ()) and there.scale < _FRACTION
    alike = {f"{system} {there.type}" for system in _SYSTEMS}
    return not cuts or column.type.native in alike  # nothing is there to be cut


def _bounded(schema: TableSchema, existing: Existing, dialect: Dialect) -> Iterator[str]:
    """Yield what gives a bound to the key's columns that have none, for an index asks for one."""
    kinds = [schema.column(name).type for name in schema.key]
    for name, kind in zip(schema.key, kinds, strict=True):
        there = existing.column(name)
        if there is not None and there.family.endswith(_BOUNDLESS):
            texts = f" {dialect.texts}" if there.charset else ""
            declared = f"{dialect.forms.key_storage(kind, kinds)}{texts}"
            yield f"MODIFY {quoted(there.name)} {declared} NOT NULL"


def refuse_key(schema: TableSchema, existing: Existing, dialect: Dialect) -> None:
    """Stop where no unique index tells rows apart as the key does."""
    if not schema.key:
        return
    if not existing.is_unique_by(schema.key):
        parts = [*_bounded(schema, existing, dialect), f"ADD UNIQUE INDEX {quoted(_INDEX)}"]
        key = ", ".join(map(quoted, schema.key))
        raise PreflightFailed(
            f"no unique index of {existing.database}.{existing.name} covers exactly "
            f"{', '.join(schema.key)}",
            hint=f"ALTER TABLE {existing.quoted} {', '.join(parts)} ({key});",
        )
    for name in schema.key:
        there = existing.column(name)
        if there is not None and not there.is_exact and schema.column(name).type.logical in WIDE:
            raise PreflightFailed(
                f"the key {existing.name}.{there.name} takes texts for equal that differ in "
                f"capitals, accents or blanks ({there.collation})",
                hint=f"ALTER TABLE {existing.quoted} MODIFY {quoted(there.name)} {there.type} "
                f"{dialect.texts} NOT NULL;",
            )
