"""Tables as Debezium's records describe them, bound to the sink's mapping: what is compiled once.

A version of a table is the schema of the rows together with that of the record keys, which alone
say what the key is. A record names its table in its `source` block; where the topic has another
name (a router's), or there is no such block, the topic names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from cdc.errors import ConfigError, DataError
from schemas.change import ABSENT, Cell
from schemas.table import Column, TableId, TableSchema, Type
from sinks.binding import MappedTable
from sinks.debezium_record import Records, Schemas, Shape
from sinks.debezium_schema import declared
from sinks.debezium_types import Kind, Read, column
from sinks.decode import Key, key_of
from sinks.fields import MappedColumn
from sinks.mapping import TableMap

__all__ = ["Bind", "BoundTable", "Tables", "Values"]

Values = Mapping[str, Any]

_ADDED = re.compile(
    r"__(deleted|op|ts_[mun]s|db|schema|table|lsn|txId|xmin|sequence|snapshot|name|connector"
    r"|version|source_\w+|transaction_\w+)"
)
"""What `add.fields` of ExtractNewRecordState adds to a row; no columns of the table."""
_NOT_IN_TOPICS = re.compile(r"[^A-Za-z0-9._-]")


class Bind(Protocol):
    """Binds a mapping to a version of a table and has the target prepare it."""

    def __call__(self, source: TableSchema, topic: str, table: TableMap) -> MappedTable:
        """Raise `errors.ConfigError` for a mapping that does not fit."""
        ...


class _Pick(msgspec.Struct, frozen=True):
    """How a target column is made: the field (empty: a constant) and the way to its cell."""

    field: str
    cell: Callable[[Any], Cell]


class BoundTable:
    """One version of a table under one mapping.

    `rows` and `keys` read the fields of rows and of record keys. `closed` says that a row may
    hold nothing else: where there is no schema, a column nobody declared is not left out unseen.
    """

    def __init__(
        self,
        mapped: MappedTable,
        rows: Mapping[str, Read],
        keys: Mapping[str, Read],
        *,
        closed: bool,
    ) -> None:
        if not mapped.copies:
            raise ConfigError(
                f"the mapping to {mapped.schema.table} computes, chooses or keeps rows, which it "
                "cannot do yet for topics that Debezium wrote",
                hint="Map their columns by `from`, `path`, `value` and `as` alone.",
            )
        self.schema = mapped.schema
        self._picks = [_pick(one, rows) for one in mapped.columns]
        self._known = frozenset(rows) if closed else None
        places = mapped.schema.key_indexes()
        self._key_of = key_of(places)
        sources = [mapped.columns[place].source for place in places]
        self._keys = [(s.name, keys[s.name]) for s in sources if s is not None and keys]

    def row(self, values: Values) -> list[Cell]:
        """Return the target row of a source row."""
        if self._known is not None:
            self._refuse_unknown(values)
        row: list[Cell] = []
        for pick in self._picks:
            value = values[pick.field] if pick.field else pick
            row.append(None if value is None else pick.cell(value))
        return row

    def _refuse_unknown(self, values: Values) -> None:
        unknown = [n for n in values.keys() - (self._known or ()) if not _ADDED.fullmatch(n)]
        if unknown:
            raise DataError(
                f"{self.schema.table}: the type of {', '.join(sorted(unknown))} is not known",
                hint="The record has no schema: name the type under `columns:` of the mapping.",
            )

    def key(self, row: list[Cell]) -> Key:
        """Return the key of a target row, the whole row where the table has none."""
        return self._whole(self._key_of(row))

    def key_from(self, values: Values) -> Key:
        """Return the target key of a record key."""
        cells = ((values[name], read) for name, read in self._keys)
        return self._whole(tuple(None if value is None else read(value) for value, read in cells))

    def _whole(self, key: Key) -> Key:
        if self.schema.key and (None in key or ABSENT in key):
            raise DataError(f"a key column of {self.schema.table} is null or was not sent")
        return key


def _pick(mapped: MappedColumn, rows: Mapping[str, Read]) -> _Pick:
    source, convert = mapped.source, mapped.convert
    if source is None:
        return _Pick("", lambda _: None if convert is None else convert(b""))
    read = rows[source.name]
    if convert is None:
        return _Pick(source.name, read)

    def cast(value: Any) -> Cell:
        cell = read(value)
        return convert(cell) if isinstance(cell, bytes) else cell

    return _Pick(source.name, cast)


class Tables:
    """The versions of one topic's table, compiled at the first record of each."""

    def __init__(self, topic: str, table: TableMap, schemas: Schemas, bind: Bind) -> None:
        self._topic = topic
        self._map = table
        self._bind = bind
        self._keys = Records(schemas)
        self._declared = {name: declared(text) for name, text in table.columns.items()}
        self._known: dict[tuple[Shape, Shape | None], BoundTable] = {}

    @property
    def newest(self) -> BoundTable | None:
        """The version that was met last for the first time."""
        return next(reversed(self._known.values()), None)

    def find(
        self, shape: Shape | None, key: bytes | None, source: Values
    ) -> tuple[BoundTable, Values | None]:
        """Return the table of rows of `shape` whose record key is `key`, and the key's values.

        Without a shape there are only key columns: what a tombstone tells. Raises
        `errors.DataError` for what is not known, `errors.ConfigError` for a mapping that does not
        fit.
        """
        key_shape, values = (None, None) if key is None else self._keys.parse(key)
        if values is not None and not isinstance(values, dict):
            raise DataError(
                f"the record key is {values!r}, and not a struct of the key columns",
                hint="Take the transformation of the key out of Debezium's configuration.",
            )
        place = shape or key_shape or Shape(None), key_shape
        table = self._known.get(place)
        if table is None:
            table = self._known[place] = self._compile(place, list(values or ()), source)
        return table, values

    def _compile(
        self, place: tuple[Shape, Shape | None], key: Sequence[str], source: Values
    ) -> BoundTable:
        shape, key_shape = place
        kinds = self._columns(shape)
        types, rows = self._reads(kinds)
        missing = [name for name in key if name not in rows]
        if missing:
            raise DataError(f"key column {', '.join(missing)} is no column of the row")
        columns = tuple(Column(name, types[name], kinds[name].optional) for name in kinds)
        untold = tuple(column.name for column in columns)  # no record tells a varchar's length
        schema = TableSchema(_identity(self._topic, source), columns, tuple(key), cast=untold)
        mapping = _only(self._map, rows) if shape is key_shape else self._map
        mapped = self._bind(schema, self._topic, mapping)
        _refuse_other_key(mapped, schema, self._map.place(self._topic))
        keys = self._reads(self._columns(key_shape))[1] if key_shape is not None else {}
        return BoundTable(mapped, rows, keys, closed=shape.kind is None)

    def _columns(self, shape: Shape) -> Mapping[str, Kind]:
        """Return the columns of a row or key, its own or the declared ones."""
        if shape.kind is None:
            if not self._declared:
                raise DataError(
                    f"records of {self._topic} come without a schema",
                    hint="Name the types under `columns:` of the mapping, or set "
                    "`schemas.enable=true` for Debezium's converters.",
                )
            return self._declared
        row = shape.kind.fields.get("after", shape.kind) if shape.enveloped else shape.kind
        return {name: kind for name, kind in row.fields.items() if not _ADDED.fullmatch(name)}

    def _reads(self, kinds: Mapping[str, Kind]) -> tuple[dict[str, Type], dict[str, Read]]:
        types, reads = {}, {}
        for name, kind in kinds.items():
            try:
                types[name], reads[name] = column(kind)
            except DataError as error:
                raise DataError(f"{self._topic}, column {name}: {error}", hint=error.hint) from None
        return types, reads


def _identity(topic: str, source: Values) -> TableId:
    """Return the source's table; its own spelling where the topic's name is made of it."""
    schema, table = source.get("schema") or source.get("db"), source.get("table")
    _, dot, tail = topic.rpartition(f".{_NOT_IN_TOPICS.sub('_', f'{schema}.{table}')}")
    if dot and not tail:
        return TableId(str(schema), str(table))
    *_, schema, table = ("", "", *topic.split("."))
    return TableId(str(schema), str(table))


def _only(table: TableMap, names: Mapping[str, Any]) -> TableMap:
    """Return a mapping without the fields that are made of other columns than these."""
    fields = {
        name: field
        for name, field in table.fields.items()
        if (field.source or (field.path or "").partition(".")[0]) in {*names, ""}
    }
    return table.model_copy(update={"fields": fields})


def _refuse_other_key(mapped: MappedTable, source: TableSchema, place: str) -> None:
    """Refuse a target key that needs the old row: Debezium does not tell what of it is there."""
    columns = {one.column.name: one for one in mapped.columns}
    chosen = [columns[name] for name in mapped.schema.key]
    names = [one.source.name for one in chosen if one.source is not None and one.convert is None]
    if len(names) != len(chosen) or set(names) != set(source.key):
        raise ConfigError(
            f"{place}.key: a topic of Debezium keeps the key of its records, which is "
            f"{', '.join(source.key) or 'none'}",
            hint="Choose another key in Debezium, with `message.key.columns`.",
        )
