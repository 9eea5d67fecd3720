"""What a migration would break, said before it is run: no database is touched.

    DDL ─▶ statements ─▶ the table's newest schema in the registry ─▶ the schema it would become
                              registry   would it take the new version?     (R13)
                              sinks      mapping, key, `schema_changes`

A sink's table is taken to be as the sink made it for the version before; what somebody changed
there by hand is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol

import msgspec
from msgspec.structs import replace

from cdc.cli.ddl import Statement, Unread, read_migration
from cdc.columns import project
from cdc.config import Pipeline, Unit
from cdc.errors import ConfigError
from cdc.topics import topic_name
from schemas.avro import table_schema
from schemas.evolution import differences
from schemas.subjects import Strategy
from schemas.table import Column, TableId, TableSchema
from sinks.binding import MappedTable
from sinks.mapping import Selection, TableMap
from sinks.policy import Change, Declared, Lineage, SchemaChanges, changes, plan

__all__ = ["Finding", "Judge", "Latest"]

_SHOWN = 60
"""Characters of a statement that are shown."""


_Level = Literal["breaks", "changes", "nothing"]


class Finding(msgspec.Struct, frozen=True):
    """What is to be known of a migration. `breaks`: something stops, or nobody knows.

    `where` is `registry`, `migration`, or the address of a source or a sink.
    """

    level: _Level
    where: str
    table: str
    sentence: str
    line: int = 0


class Latest(Protocol):
    """As much of `schemas.registry.Registry` as is asked."""

    def latest(self, subject: str) -> tuple[int, dict[str, Any]] | None:
        """Return id and schema of the newest version, None for an unknown subject."""
        ...


class _Column(msgspec.Struct, frozen=True):
    """A column as a sink made it, for `sinks.policy`."""

    name: str
    type: str
    required: bool = False


class Judge:
    """Says what a migration of `source` would do; asks the registry alone."""

    def __init__(self, pipeline: Pipeline, source: Unit, registry: Latest) -> None:
        if pipeline.kafka.registry.subjects is not Strategy.TOPIC:
            raise ConfigError("`cdc schema check` needs `kafka.registry.subjects: topic`")
        self._pipeline = pipeline
        self._source = source
        self._registry = registry
        self._before: dict[TableId, TableSchema | None] = {}
        self._after: dict[TableId, TableSchema] = {}

    def findings(self, ddl: str, schema: str) -> Iterator[Finding]:
        """Yield what the statements of `ddl`, in their order, would do.

        Tables that name no schema are of `schema`. Raises as the registry does.
        """
        for statement in read_migration(ddl, self._source.connector.name, schema):
            if statement.unread:
                said = f"{_short(statement.text)}: {statement.unread}"
                yield Finding("breaks", "migration", "", said, statement.line)
            elif statement.table is not None:
                yield from self._follow(statement, statement.table)
        for table, new in self._after.items():
            old = self._before[table]
            if old is not None:
                yield from self._compared(old, self._published(old, new))

    def _topic(self, table: TableId) -> str:
        options: Any = self._source.options
        return topic_name(self._source.context.name, table, options.publish.topic)

    def _newest(self, table: TableId) -> TableSchema | None:
        if table not in self._before:
            latest = self._registry.latest(f"{self._topic(table)}-value")
            self._before[table] = None if latest is None else table_schema(latest[1])
        return self._before[table]

    def _follow(self, statement: Statement, table: TableId) -> Iterator[Finding]:
        """Note what a statement makes of its table."""
        old, place = self._newest(table), (str(table), statement.line)
        if old is None:
            said = "the registry has no schema of it: it is not captured, or had no row yet"
            yield _finding("nothing", "registry", place, said)
        elif statement.ends:
            said = "ends: its topic gets no more rows, and those of the sinks stay as they are"
            yield _finding("breaks", "migration", place, said)
        else:
            try:
                for deed in statement.deeds:
                    self._after[table] = deed(self._after.get(table, old))
            except Unread as error:
                yield _finding("breaks", "migration", place, str(error))

    def _published(self, old: TableSchema, new: TableSchema) -> TableSchema:
        """Return `new` with the columns it adds as the source's `columns:` rules publish them."""
        options: Any = self._source.options
        known = {column.name for column in old.columns}
        seen = {column.name: column for column in project(new, options.columns)[0].columns}
        columns = [c if c.name in known else seen.get(c.name) for c in new.columns]
        return replace(new, columns=tuple(c for c in columns if c is not None))

    def _compared(self, old: TableSchema, new: TableSchema) -> Iterator[Finding]:
        place = (str(old.table), 0)
        for difference in differences(old, new):
            if difference.breaks:
                said = f"{difference.sentence}: the registry would refuse it, the source stops"
                yield _finding("breaks", "registry", place, said)
            else:
                yield _finding("changes", "registry", place, difference.sentence)
        topic = self._topic(old.table)
        for sink in self._pipeline.sinks.values():
            config: Any = sink.config
            rules = getattr(config, "schema_changes", SchemaChanges())
            for mapping in Selection(config.tables).mappings(topic):
                for level, said in _at_sink(rules, mapping, topic, (old, new)):
                    yield _finding(level, sink.address, place, said)


def _finding(level: _Level, where: str, place: tuple[str, int], said: str) -> Finding:
    table, line = place
    return Finding(level, where, table, said, line)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…"


def _at_sink(
    rules: SchemaChanges, mapping: TableMap, topic: str, versions: tuple[TableSchema, TableSchema]
) -> Iterator[tuple[_Level, str]]:
    old, new = versions
    try:
        was = MappedTable.bind(old, topic, mapping).schema
        now = MappedTable.bind(new, topic, mapping, Lineage([old], new)).schema
    except ConfigError as error:
        yield "breaks", f"the mapping would no longer fit: {error}"
        return
    if was.key != now.key:
        yield "breaks", f"the key would be ({', '.join(now.key)}), and a key is never changed"
    asked = plan(_asked(was, now), rules)
    for change in asked.stop:
        yield "breaks", f"would stop: {change.sentence} (`{change.kind}: stop`)"
    for change in (*asked.first, *asked.behind):
        yield "changes", f"the target is changed: {change.sentence} (`{change.kind}: apply`)"
    for change in asked.left:
        yield "nothing", f"the target stays as it is: {change.sentence} (`{change.kind}: ignore`)"


def _asked(was: TableSchema, now: TableSchema) -> list[Change]:
    """Return what the new version asks of the table the old one made."""
    there = {column.name: _Column(column.name, column.type.native) for column in was.columns}

    def declares(declared: Declared, column: Column) -> bool:
        return was.column(declared.name).type == column.type

    return changes(now, there.get, declares)
