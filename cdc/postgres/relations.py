"""The shape of every table at the stream's place in the log, and what changed since last time.

A row is decoded with the Relation in force at its position: names, order, types, identity. What
pgoutput does not say (nullability, defaults, the primary key under FULL, an enum's labels) comes
from the catalogue as it is now and can never fail a row (R11).

What a table looked like last is kept as progress under "table/<name>", so that a change made
while nobody watched is noticed at the first row after it: ADD COLUMN with a default and a
rewrite send no row events (measured), so an added column or a changed type asks for a backfill.

Of `ALTER TYPE … ATTRIBUTE` the log tells nothing at all, no Relation either (measured). So before
rows of a table with composites leave, the catalogue is asked for the parts: those that are other
ones since are what these rows and all later ones have. Rows from before the ALTER may be among
them, and what was sent before has the old parts: so this, too, asks for a backfill.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from cdc.decode.pgoutput import Relation, RelationColumn
from cdc.decode.pgtypes import TypeRow, column_type, parts_of
from cdc.postgres.catalog import ColumnFacts, TableFacts, TableLocked
from cdc.source import Progress
from schemas.table import Column, Part, TableId, TableSchema

__all__ = ["Facts", "Relations", "Shape", "Turn", "key_problem", "relation_of", "shape_of"]


class Facts(Protocol):
    """What `Relations` asks the catalogue."""

    def facts(self, oid: int) -> TableFacts | None:
        """Return a table with its columns, None when it is gone."""
        ...

    def types(self, oids: set[int]) -> Mapping[int, TypeRow]:
        """Return the rows of types that are not built in."""
        ...


class Shape(msgspec.Struct, frozen=True):
    """A table as last seen: its oid, its columns as (name, type oid, typmod), its key.

    `parts` are those of the composites among the columns; None where nobody knows.
    """

    oid: int
    columns: tuple[tuple[str, int, int], ...]
    key: tuple[str, ...] = ()
    parts: tuple[tuple[str, tuple[Part, ...]], ...] | None = None

    def progress(self, table: TableId) -> Progress:
        """Return this shape as what is stored for `table`."""
        name = [table.schema, table.name]
        return Progress(
            f"table/{table}", {"version": 1, "table": name, **msgspec.to_builtins(self)}
        )


class Turn(msgspec.Struct, frozen=True):
    """What a new Relation means for a table.

    `unknown`: it was never seen under this name. `changed`: it looks different from last time.
    `grown`: it has a column, type or part it did not have, so rows that were never sent again lack
    it.
    `recreated`: it is another table of that name.
    """

    table: TableId
    unknown: bool = False
    changed: bool = False
    grown: bool = False
    recreated: bool = False


def key_problem(facts: TableFacts, key: Sequence[str]) -> str:
    """Say why `key` cannot be the record key of a table, nothing when it can.

    An old row carries the replica identity alone; a key outside of it would have no old value.
    """
    unknown = set(key) - {column.name for column in facts.columns}
    if unknown:
        return f"{facts.table} has no column {', '.join(sorted(unknown))}"
    identity = facts.identity_index if facts.identity == "i" else facts.primary_key
    if facts.identity in "di" and not set(key) <= set(identity):
        return f"{facts.table} does not log the old values of {', '.join(key)}"
    return ""


def shape_of(relation: Relation, schema: TableSchema) -> Shape:
    """Return the shape to remember of `relation`, which stands for `schema`."""
    columns = tuple((c.name, c.oid, c.typmod) for c in relation.columns)
    parts = tuple((column.name, column.parts) for column in schema.columns if column.parts)
    return Shape(relation.oid, columns, schema.key, parts)


def relation_of(facts: TableFacts, published: Collection[str] | None = None) -> Relation:
    """Return the Relation a table would be sent with now.

    `published` names its columns in the publication; None means all but generated ones.
    """
    flagged = facts.identity_index if facts.identity == "i" else facts.primary_key
    columns = tuple(
        RelationColumn(c.name, c.oid, c.typmod, facts.identity == "f" or c.name in flagged)
        for c in facts.columns
        if (c.name in published if published is not None else not c.generated)
    )
    return Relation(facts.oid, facts.table, facts.identity, columns)


class Relations:
    """The relations in force, by oid, and the shapes remembered, by table."""

    def __init__(
        self, facts: Facts, keys: Mapping[str, Sequence[str]], stored: Iterable[Progress] = ()
    ) -> None:
        self._facts = facts
        self._keys = keys
        self._schemas: dict[int, TableSchema] = {}
        self._composed: dict[int, Relation] = {}
        self.shapes: dict[TableId, Shape] = {}
        self.progress: list[Progress] = []
        for progress in stored:
            self._restore(progress)

    def _restore(self, progress: Progress) -> None:
        if progress.key.startswith("table/") and progress.value is not None:
            schema, name = progress.value["table"]
            self.shapes[TableId(schema, name)] = msgspec.convert(progress.value, Shape)

    def schema(self, oid: int) -> TableSchema | None:
        """Return the schema in force for a relation id, None before its first Relation."""
        return self._schemas.get(oid)

    def describe(self, relation: Relation, facts: TableFacts | None = None) -> TableSchema:
        """Return the schema `relation` stands for, without putting it in force.

        `facts` is what the catalogue says of it, if that was asked just now.
        """
        facts = facts or self._now(relation.oid)
        types = self._facts.types({column.oid for column in relation.columns})
        now = {column.name: column for column in facts.columns} if facts else {}
        columns = tuple(_column(column, now.get(column.name), types) for column in relation.columns)
        key = self._key(relation, facts)
        return TableSchema(relation.table, columns, key)

    def _now(self, oid: int) -> TableFacts | None:
        """Ask the catalogue; a table locked just now is described without it."""
        try:
            return self._facts.facts(oid)
        except TableLocked:
            return None

    def enforce(self, relation: Relation) -> TableSchema:
        """Put `relation` in force for the rows that follow."""
        schema = self._schemas[relation.oid] = self.describe(relation)
        self._composed.pop(relation.oid, None)
        if any(column.parts for column in schema.columns):
            self._composed[relation.oid] = relation
        return schema

    @property
    def composed(self) -> bool:
        """Whether a table in force has composites."""
        return bool(self._composed)

    def altered(
        self, schemas: Collection[TableSchema]
    ) -> Iterator[tuple[TableSchema, TableSchema, Turn]]:
        """Put in force what the composites of `schemas` consist of now; yield those that differ.

        Yields the schema until now, the one from here on, and what it means for the table.
        """
        for oid, relation in list(self._composed.items()):
            before = self._schemas[oid]
            if before not in schemas:
                continue
            types = self._facts.types({column.oid for column in relation.columns})
            parts = [parts_of(column.oid, types) for column in relation.columns]
            if parts != [column.parts for column in before.columns]:
                turn = self.take(relation)
                yield before, self._schemas[oid], turn

    def take(self, relation: Relation) -> Turn:
        """Put `relation` in force and tell what it means compared with the shape remembered."""
        schema = self.enforce(relation)
        before, shape = self.shapes.get(relation.table), shape_of(relation, schema)
        if before != shape:
            self.remember(relation.table, shape)
        if before is not None and before.parts is None:
            before = msgspec.structs.replace(before, parts=shape.parts)
        if before is None or before == shape:
            return Turn(relation.table, unknown=before is None)
        recreated = before.oid != shape.oid
        grown = not set(shape.columns) <= set(before.columns) or before.parts != shape.parts
        return Turn(relation.table, changed=True, grown=grown or recreated, recreated=recreated)

    def remember(self, table: TableId, shape: Shape) -> None:
        """Keep `shape` as what `table` looked like last; it commits with the next batch."""
        self.shapes[table] = shape
        self.progress.append(shape.progress(table))

    def _key(self, relation: Relation, facts: TableFacts | None) -> tuple[str, ...]:
        """Return the key in column order, whichever order its index has, so that it is stable."""
        names = [column.name for column in relation.columns]
        wanted = self._keys.get(str(relation.table))
        if wanted is None and relation.identity in "di":
            return tuple(column.name for column in relation.columns if column.identity)
        if wanted is None:
            known = self.shapes.get(relation.table)
            wanted = facts.primary_key if facts else known.key if known else ()
        if not set(wanted) <= set(names):
            return ()
        return tuple(name for name in names if name in wanted)


def _column(
    column: RelationColumn, now: ColumnFacts | None, types: Mapping[int, TypeRow]
) -> Column:
    same = now is not None and (now.oid, now.typmod) == (column.oid, column.typmod)
    spelled = now.spelled if now is not None and same and column.oid >= 16384 else ""
    kind = column_type(column.oid, column.typmod, types, spelled)
    parts = parts_of(column.oid, types)
    if now is None:
        return Column(column.name, kind, parts=parts)
    return Column(
        column.name,
        kind,
        nullable=now.nullable,
        default=now.default,
        generated=bool(now.generated),
        parts=parts,
    )
