"""Which topics a sink takes, and what becomes of their columns on the way to the target.

    tables: ["shopdb.public.*", "!shopdb.public.audit_*"]          as they are
    tables:
      shopdb.public.customers:
        to: crm.clients                                            another table
        key: [client_id]                                           another key
        fields:                                                    a selection, renamed
          client_id: id
          signed_up: {from: created_at, as: date}                  a cast
          sku: {path: attrs.sku}                                   a place inside json
          tenant: {value: acme}                                    a constant
          total: {expr: price * double(quantity)}                  CEL over the row
        where: status != 'draft'                                   only some rows

An exact name wins over a glob, a glob written earlier over a later one, an exclusion over all.
A mapping is compiled once per version of a table: what is left per row is one function a column.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cdc.errors import ConfigError
from schemas.table import Column, TableId, TableSchema
from sinks.cast import CASTS
from sinks.debezium_schema import declared
from sinks.expression import Expression
from sinks.fields import Cel, FieldEntry, FieldMap, MappedColumn, field_column
from sinks.journal import FACTS, KEY, NOW, POSITION, VERSION, row_key
from sinks.lookup import Lookup
from sinks.policy import ALONE, Lineage
from sinks.rules import OnInvalid, Rule, Rules

__all__ = [
    "FieldMap",
    "Lookup",
    "MappedColumn",
    "MappedTable",
    "Rule",
    "Selection",
    "TableMap",
    "Tables",
    "Way",
    "fixed_targets",
    "target_name",
]


_NO_TABLE = re.compile(r"[^.]+\.(transaction|message)|__debezium-heartbeat\..+")
"""Topics a source, or Debezium, writes beside those of its tables; only their exact name takes
them."""


def _declared(text: str) -> str:
    declared(text)
    return text


Mode = Literal["mirror", "append", "history"]
"""What a table is: the source's, a journal of its changes, or all versions of its rows."""

Way = Literal[Mode, "changes"]
"""The modes, and what a target that keeps no rows takes: each change alone (`sinks/changes.py`)."""
_APART: tuple[Way, ...] = ("append", "changes")
"""Ways in which each change is a row of its own."""


class TableMap(BaseModel):
    """What becomes of one topic, or of each topic a glob matches."""

    model_config = ConfigDict(extra="forbid")

    to: str = Field(
        default="{schema}.{table}",
        description="Target table as `schema.table`; may use {source}, {schema} and {table}",
    )
    key: list[str] = Field(
        default_factory=list, description="Target columns of the key; empty: those of the topic"
    )
    format: Literal["auto", "tailrace", "debezium"] = Field(
        default="auto", description="Who wrote the topic; `auto` tells by the record"
    )
    columns: dict[str, Annotated[str, AfterValidator(_declared)]] = Field(
        default_factory=dict,
        description="Types in the source, as `numeric(12,2)`, for JSON that has no schema",
    )
    fields: dict[str, FieldEntry] = Field(
        default_factory=dict, description="Target column → source column; empty: all, as they are"
    )
    rest: bool = Field(default=False, description="Also every column that no field takes, as it is")
    rename: dict[str, str] = Field(
        default_factory=dict, description="Source column → target column, among the rest"
    )
    drop: list[str] = Field(
        default_factory=list, description="Globs of source columns left out of the rest"
    )
    flatten: dict[str, list[str]] = Field(
        default_factory=dict,
        description="json column → places in it, in its stead: `attrs: [sku]` is `attrs_sku`",
    )
    where: Cel | None = Field(
        default=None, description="CEL: which rows the target has; one that leaves is deleted"
    )
    mode: Mode = Field(
        default="mirror",
        description="Keep the table equal to the source, append a row for each change, or keep a "
        "history with a row for each version",
    )
    soft_delete: str | None = Field(
        default=None, description="Column that takes the time of a delete; the row stays"
    )
    rules: list[Rule] = Field(
        default_factory=list, description="What a row must be like to be applied"
    )
    on_invalid: OnInvalid = Field(
        default="dead_letter", description="What becomes of a row that breaks a rule"
    )

    @model_validator(mode="after")
    def _go_together(self) -> TableMap:
        if self.mode != "mirror" and (self.key or self.soft_delete):
            raise ValueError(f"`mode: {self.mode}` has a key of its own, and deletes nothing")
        if self.where and (self.soft_delete or self.mode == "history"):
            kept = "soft_delete" if self.soft_delete else "mode: history"
            raise ValueError(
                f"`{kept}` and `where` do not go together: of a row that was never in the filter "
                "there is nothing to keep"
            )
        return self

    @property
    def way(self) -> Way:
        """How changes become rows."""
        return self.mode


def _table_map(value: Any) -> Any:
    return {} if value is None else value


Tables = list[str] | dict[str, Annotated[TableMap, BeforeValidator(_table_map)]]
"""The `tables:` of a sink: globs over topics, or glob → mapping; `!glob` leaves out."""


class Selection:
    """Which topics are taken, and by which mapping."""

    def __init__(self, tables: Tables) -> None:
        entries = dict.fromkeys(tables, TableMap()) if isinstance(tables, list) else tables
        self._without = [glob[1:] for glob in entries if glob.startswith("!")]
        self._with = {glob: entry for glob, entry in entries.items() if not glob.startswith("!")}

    def find(self, topic: str) -> TableMap | None:
        """Return the mapping of `topic`, None when it is not taken."""
        if any(fnmatchcase(topic, glob) for glob in self._without):
            return None
        if topic in self._with:
            return self._with[topic]
        if _NO_TABLE.fullmatch(topic):
            return None
        return next((m for glob, m in self._with.items() if fnmatchcase(topic, glob)), None)


def fixed_targets(tables: Tables) -> list[TableId]:
    """Return the target tables that are known before any topic is: those with a plain `to:`."""
    if isinstance(tables, list):
        return []
    named = [_placed(table.to) for glob, table in tables.items() if not glob.startswith("!")]
    return [table for table in named if "{" not in str(table)]


def _placed(name: str) -> TableId:
    schema, dot, rest = name.partition(".")
    return TableId(schema, rest) if dot else TableId("public", name)


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
        columns = (*_columns(source, topic, table), *_added(table))
        if table.way in _APART:
            columns = tuple(_may_be_null(mapped) for mapped in columns)
        schema = TableSchema(
            target_name(source.table, topic, table.to),
            tuple(mapped.column for mapped in _distinct(columns, topic)),
            _key(source, columns, topic, table),
            (*source.attributes, *row_key(source.key, _unchanged(columns), table.way)),
        )
        schema = lineage.told(schema, lambda version: _bound(version, topic, table), table.mode)
        where = _filter(source, topic, table, keyed=bool(schema.key))
        if (table.soft_delete or table.mode == "history") and not source.key and not table.key:
            raise ConfigError(
                f"tables.{topic}: a table without a key has no row that could be kept",
                hint="`mode: append` keeps its changes.",
            )
        rules = None
        if table.rules:
            rules = Rules(table.rules, table.on_invalid, schema, f"tables.{topic}.rules")
        rekeyed = bool(table.key)
        return cls(schema, columns, rekeyed, source, where, rules, table.way, table.soft_delete)


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
    source: TableSchema, columns: Sequence[MappedColumn], topic: str, table: TableMap
) -> tuple[str, ...]:
    if table.way in _APART:
        return KEY
    key = tuple(table.key) or _inherited_key(source, columns, topic)
    if table.mode == "history":
        return (*key, VERSION[-1].name)
    names = {mapped.column.name for mapped in columns}
    unknown = [name for name in key if name not in names]
    if unknown:
        raise ConfigError(
            f"tables.{topic}.key: {', '.join(unknown)} is no column of the mapping",
            hint=f"Choose among {', '.join(sorted(names))}.",
        )
    return key


def target_name(table: TableId, topic: str, template: str) -> TableId:
    """Return the target table that `to: template` means for a topic of `table`."""
    # The template is cut before it is filled: a name of the source may hold dots itself.
    schema, dot, rest = template.partition(".")
    names = {"source": topic.partition(".")[0], "schema": table.schema, "table": table.name}
    try:
        schema, rest = schema.format(**names), rest.format(**names)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"tables.{topic}.to: {template!r} is not a table name",
            hint="Use {source}, {schema} and {table}, as in `to: mirror.{table}`.",
        ) from error
    return TableId(schema, rest) if dot else TableId("", schema)


def _columns(source: TableSchema, topic: str, table: TableMap) -> Sequence[MappedColumn]:
    fields = [
        field_column(name, field, source.columns, f"tables.{topic}.fields.{name}")
        for name, field in table.fields.items()
    ]
    if table.fields and not (table.rest or table.rename or table.drop or table.flatten):
        return fields
    taken = {field.source for field in table.fields.values()} | table.fields.keys()
    _refuse_unknown(source, topic, table)
    rest = [
        mapped
        for column in source.columns
        if not any(fnmatchcase(column.name, glob) for glob in table.drop)
        for mapped in _kept(column, topic, table)
        if column.name not in taken
    ]
    return [*rest, *fields]


def _kept(column: Column, topic: str, table: TableMap) -> Sequence[MappedColumn]:
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
            f"tables.{topic}.flatten.{column.name}",
        )
        for path in table.flatten[column.name]
    ]


def _refuse_unknown(source: TableSchema, topic: str, table: TableMap) -> None:
    known = [column.name for column in source.columns]
    for block, names in (("rename", table.rename), ("flatten", table.flatten)):
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"tables.{topic}.{block}: the topic has no column {name!r}",
                    hint=f"Choose among {', '.join(known)}.",
                )


def _distinct(columns: Sequence[MappedColumn], topic: str) -> Sequence[MappedColumn]:
    names = [mapped.column.name for mapped in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"tables.{topic}: two columns would be called {', '.join(twice)}",
            hint="`rename` one of them.",
        )
    return columns


def _filter(source: TableSchema, topic: str, table: TableMap, *, keyed: bool) -> Expression | None:
    if table.where is None:
        return None
    where = Expression(table.where, f"tables.{topic}.where", source.columns)
    if where.kind not in (None, "bool"):
        raise ConfigError(
            f"{where.place}: `{where.text}` gives {where.kind}, not true or false",
            hint="Compare it with something.",
        )
    if not keyed:
        raise ConfigError(
            f"{where.place}: a table without a key cannot be filtered: nobody knows which row to "
            "delete when one leaves the filter",
            hint="Name unique target columns under `key:`.",
        )
    return where


def _inherited_key(
    source: TableSchema, columns: Sequence[MappedColumn], topic: str
) -> tuple[str, ...]:
    """Return the target columns the topic's key columns became, unchanged."""
    places = _unchanged(columns)
    missing = [name for name in source.key if name not in places]
    if missing:
        raise ConfigError(
            f"tables.{topic}.fields: key column {', '.join(missing)} is not mapped as it is",
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
