"""A mapping bound to one version of a table: its columns, its key, what a row has to pass.

Everything about names and types is decided here, once per version; what is left per row is one
function a column (`sinks/decode.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import msgspec

from cdc.errors import ConfigError
from schemas.table import Column, TableId, TableSchema
from sinks.cast import CASTS
from sinks.expression import Expression, row_filter
from sinks.fields import FieldMap, MappedColumn, field_column
from sinks.journal import FACTS, KEY, NOW, PART, POSITION, VERSION, row_key
from sinks.mapping import TableMap, Way
from sinks.policy import ALONE, Lineage
from sinks.rules import Rules

__all__ = ["MappedTable", "target_name"]

_APART: tuple[Way, ...] = ("append", "changes")
"""Ways in which each change is a row of its own."""


class MappedTable(msgspec.Struct, frozen=True):
    """A mapping bound to one version of a table.

    `rekeyed` says that the key is not the topic's: then an update may move a row's key. `where`
    decides, over the source's columns, which rows the target has; `rules`, over the target's, which
    may be applied. `mode` says what the rows are, `deleted` names the column that takes the time of
    a delete.
    """

    schema: TableSchema
    columns: tuple[MappedColumn, ...]
    rekeyed: bool
    source: TableSchema
    where: Expression | None = None
    rules: Rules | None = None
    mode: Way = "mirror"
    deleted: str | None = None

    @property
    def copies(self) -> bool:
        """Whether every row of the source is one of the target, and no value is computed."""
        if self.where is not None or self.rules is not None:
            return False
        computed = any(mapped.compute is not None for mapped in self.columns)
        return not (computed or self.deleted) and self.mode == "mirror"

    def keeps_apart(self, source: TableSchema) -> bool:
        """Tell whether rows with different topic keys have different target keys (R8)."""
        if self.mode in _APART:
            return True
        columns = {mapped.column.name: mapped for mapped in self.columns}
        chosen = [columns[name] for name in self.schema.key]
        plain = {m.source.name for m in chosen if m.source is not None and m.convert is None}
        return bool(source.key) and plain.issuperset(source.key)

    @classmethod
    def bind(
        cls, source: TableSchema, topic: str, table: TableMap, lineage: Lineage = ALONE
    ) -> MappedTable:
        """Bind `table` to `source`; `lineage` are its other versions.

        Raises `errors.ConfigError` for a column that is not there.
        """
        place = table.place(topic)
        columns = (*_columns(source, place, table), *_added(table))
        if table.way in _APART:
            columns = tuple(_may_be_null(mapped) for mapped in columns)
        schema = TableSchema(
            target_name(source.table, topic, table),
            tuple(mapped.column for mapped in _distinct(columns, place)),
            _key(source, columns, place, table),
            (*source.attributes, *_attributes(source, columns, table)),
            cast=tuple(_cast(source, columns, table)),
        )
        schema = lineage.told(schema, lambda version: _bound(version, topic, table), table.mode)
        where = row_filter(table.where, f"{place}.where", source.columns, keyed=bool(schema.key))
        if (table.soft_delete or table.mode == "history") and not source.key and not table.key:
            raise ConfigError(
                f"{place}: a table without a key has no row that could be kept",
                hint="`mode: append` keeps its changes.",
            )
        rules = None
        if table.rules:
            rules = Rules(table.rules, table.on_invalid, schema, f"{place}.rules")
        rekeyed = bool(table.key)
        return cls(schema, columns, rekeyed, source, where, rules, table.way, table.soft_delete)


def _attributes(
    source: TableSchema, columns: Sequence[MappedColumn], table: TableMap
) -> Iterator[tuple[str, str]]:
    """Yield what a target that takes single changes is told of their table."""
    if table.way == "changes":
        yield row_key(source.key, _unchanged(columns))
        if table.is_part:
            yield PART, ""


def _cast(source: TableSchema, columns: Sequence[MappedColumn], table: TableMap) -> Iterator[str]:
    """Yield the columns that may be narrower in the target: so meant, or of a length untold."""
    yield from (name for name, field in table.fields.items() if field.casts)
    untold = [one for one in columns if one.source and one.source.name in source.cast]
    yield from (mapped.column.name for mapped in untold)


def _bound(version: TableSchema, topic: str, table: TableMap) -> TableSchema | None:
    """Return another version as the target has it; None where the mapping does not fit."""
    try:
        return MappedTable.bind(version, topic, table).schema
    except ConfigError:
        return None


def _added(table: TableMap) -> Sequence[MappedColumn]:
    """Return the columns that tell of the change itself; the decoder fills them."""
    if table.way in _APART:
        told = FACTS if table.way == "append" else (*FACTS, POSITION)
        return [MappedColumn(column, None) for column in told]
    if table.mode == "history":
        began, ended, until = VERSION
        present = MappedColumn(until, None, lambda _: NOW)
        return [MappedColumn(began, None), MappedColumn(ended, None), present]
    if table.soft_delete:
        return [MappedColumn(Column(table.soft_delete, CASTS["timestamptz"]), None)]
    return []


def _may_be_null(mapped: MappedColumn) -> MappedColumn:
    """A truncation has no row, and a delete seldom all of it."""
    if mapped.column.name in KEY:
        return mapped
    column = msgspec.structs.replace(mapped.column, nullable=True)
    return msgspec.structs.replace(mapped, column=column)


def _key(
    source: TableSchema, columns: Sequence[MappedColumn], place: str, table: TableMap
) -> tuple[str, ...]:
    if table.way in _APART:
        return KEY
    key = tuple(table.key) or _inherited_key(source, columns, place)
    if table.mode == "history":
        return (*key, VERSION[-1].name)
    names = {mapped.column.name for mapped in columns}
    unknown = [name for name in key if name not in names]
    if unknown:
        raise ConfigError(
            f"{place}.key: {', '.join(unknown)} is no column of the mapping",
            hint=f"Choose among {', '.join(sorted(names))}.",
        )
    return key


def target_name(table: TableId, topic: str, mapping: TableMap) -> TableId:
    """Return the target table that a mapping's `to` means for a topic of `table`."""
    # The template is cut before it is filled: a name of the source may hold dots itself.
    schema, dot, rest = mapping.to.partition(".")
    names = {"source": topic.partition(".")[0], "schema": table.schema, "table": table.name}
    try:
        schema, rest = schema.format(**names), rest.format(**names)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"{mapping.place(topic)}.to: {mapping.to!r} is not a table name",
            hint="Use {source}, {schema} and {table}, as in `to: mirror.{table}`.",
        ) from error
    return TableId(schema, rest) if dot else TableId("", schema)


def _columns(source: TableSchema, place: str, table: TableMap) -> Sequence[MappedColumn]:
    fields = [
        field_column(name, field, source.columns, f"{place}.fields.{name}")
        for name, field in table.fields.items()
    ]
    if table.fields and not (table.rest or table.rename or table.drop or table.flatten):
        return fields
    taken = {field.source for field in table.fields.values()} | table.fields.keys()
    _refuse_unknown(source, place, table)
    rest = [
        mapped
        for column in source.columns
        if not any(fnmatchcase(column.name, glob) for glob in table.drop)
        for mapped in _kept(column, place, table)
        if column.name not in taken
    ]
    return [*rest, *fields]


def _kept(column: Column, place: str, table: TableMap) -> Sequence[MappedColumn]:
    """Return what becomes of a column that no field takes."""
    name = table.rename.get(column.name, column.name)
    if column.name not in table.flatten:
        kept = msgspec.structs.replace(column, name=name, generated=False)
        return [MappedColumn(kept, column)]
    return [
        field_column(
            f"{name}_{path.replace('.', '_')}",
            FieldMap(path=f"{column.name}.{path}"),
            [column],
            f"{place}.flatten.{column.name}",
        )
        for path in table.flatten[column.name]
    ]


def _refuse_unknown(source: TableSchema, place: str, table: TableMap) -> None:
    known = [column.name for column in source.columns]
    for block, names in (("rename", table.rename), ("flatten", table.flatten)):
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"{place}.{block}: the topic has no column {name!r}",
                    hint=f"Choose among {', '.join(known)}.",
                )


def _distinct(columns: Sequence[MappedColumn], place: str) -> Sequence[MappedColumn]:
    names = [mapped.column.name for mapped in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{place}: two columns would be called {', '.join(twice)}",
            hint="`rename` one of them.",
        )
    return columns


def _inherited_key(
    source: TableSchema, columns: Sequence[MappedColumn], place: str
) -> tuple[str, ...]:
    """Return the target columns the topic's key columns became, unchanged."""
    places = _unchanged(columns)
    missing = [name for name in source.key if name not in places]
    if missing:
        raise ConfigError(
            f"{place}.fields: key column {', '.join(missing)} is not mapped as it is",
            hint="Map it without a cast, or name another unique key with `key: [...]`.",
        )
    return tuple(places[name] for name in source.key)


def _unchanged(columns: Sequence[MappedColumn]) -> dict[str, str]:
    """Return source column → target column, of those that are mapped as they are."""
    return {
        mapped.source.name: mapped.column.name
        for mapped in columns
        if mapped.source is not None and mapped.convert is None
    }
