"""One table of a source against one table of a sink: what is set beside what, and how.

What cannot be compared is refused by name: a target that keeps more than the source has (soft
deletes, journals, histories), rows that a rule may have kept out, a key that is made of others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from cdc.columns import ColumnRule, Mask, project
from cdc.errors import ConfigError
from cdc.verify.compare import Pair
from cdc.verify.forms import form_of
from cdc.verify.readable import Hashing, Readable, ReadableSource, Wanted
from schemas.table import TableId, TableSchema
from sinks.binding import MappedTable
from sinks.expected import Expected, View
from sinks.fields import MappedColumn
from sinks.mapping import TableMap

__all__ = ["Match", "match"]

_ORDERED = ("int16", "int32", "int64")
"""Keys that every engine sorts alike, and cuts alike; all others are put into buckets."""

_KEPT = {
    "append": "it is a journal of changes, not the rows of the source",
    "history": "it keeps every version of a row",
}


class Match(msgspec.Struct):
    """A source's table, the topic between, and what the target is to have of it."""

    table: TableId
    topic: str
    view: View
    masks: Mapping[str, Mask]

    @property
    def target(self) -> TableSchema:
        """The target's table."""
        return self.view.table.schema

    def pair(
        self,
        source: Callable[[Wanted], ReadableSource],
        target: Callable[[Wanted], Readable],
    ) -> tuple[ReadableSource, Pair]:
        """Return the source's side and both sides, open. Close both sides of the pair in the end.

        Raises `errors.PreflightFailed`, and `errors.ConfigError` where nothing can be compared.
        """
        view = self.view
        copies = view.copies and not self.masks.keys() & set(view.sources[: len(view.order)])
        names = view.sources[: len(view.order)] if copies else view.sources
        inner = source(Wanted(self.table, names, view.width))
        kinds = tuple(mapped.column.type for mapped in view.order)
        theirs = target(Wanted(self.target.table, view.names, view.width, kinds))
        ours: Readable = inner if copies else Expected(inner, view, self.masks)
        pair = Pair(ours, theirs, view.width)
        try:
            ours.open()
            theirs.open()
            self._choose(pair)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return inner, pair

    def _choose(self, pair: Pair) -> None:
        """Let the servers hash where equal rows have equal hashes; else compare values."""
        ours, theirs = pair.ours, pair.theirs
        kinds = [mapped.column.type for mapped in self.view.order]
        types = zip(ours.types(), theirs.types(), strict=True)
        one_engine = ours.engine == theirs.engine
        alike = [one_engine and one == other != "" for one, other in types]
        if all(alike) and isinstance(ours, Hashing) and isinstance(theirs, Hashing):
            pair.hashing = (ours, theirs)
            pair.width = pair.width or 1
        elif pair.width:
            forms = zip(kinds, alike, strict=True)
            pair.forms = [None if same else form_of(kind) for kind, same in forms]
            numbers = all(kind.logical in _ORDERED for kind in kinds[: pair.width])
            pair.sorted_alike = one_engine or numbers
        else:
            raise ConfigError(
                f"{self.table} has no key, and its columns are not copied as they are between "
                "databases of one kind",
                hint="Name unique target columns under `key:` of the mapping.",
            )


def match(
    schema: TableSchema, rules: Mapping[str, ColumnRule], topic: str, mapping: TableMap
) -> Match:
    """Set a table as the source has it beside what a mapping makes of it.

    Raises `errors.ConfigError` naming what cannot be compared.
    """
    published, masks = project(schema, rules)
    _refuse(topic, mapping)
    bound = MappedTable.bind(published, topic, mapping)
    key = _key(bound)
    hidden = [m.source.name for m in key if m.source is not None and m.source.name in masks]
    if hidden:
        raise ConfigError(
            f"{mapping.place(topic)}: key column {hidden[0]} is hidden by `columns:` of the "
            "source, so no row of the target can be looked up in the source"
        )
    chosen = [mapped.column.name for mapped in key]
    rest = [mapped for mapped in bound.columns if mapped.column.name not in chosen]
    return Match(schema.table, topic, View(bound, [*key, *rest], len(key)), masks)


def _refuse(topic: str, mapping: TableMap) -> None:
    reason = _KEPT.get(mapping.mode, "")
    if mapping.soft_delete:
        reason = "with `soft_delete` it keeps rows the source has not"
    elif mapping.rules:
        reason = "rows that break a rule are not applied, and what is there instead is anything"
    if reason:
        raise ConfigError(f"{mapping.place(topic)} cannot be verified: {reason}")


def _key(bound: MappedTable) -> Sequence[MappedColumn]:
    """Return the target columns that hold a key unchanged: the target's own, or the source's.

    None where neither side has a key.
    """
    plain = [m for m in bound.columns if m.source is not None and m.convert is None]
    named = {m.column.name: m for m in plain}
    images = {m.source.name: m for m in plain if m.source is not None}
    own, theirs = bound.schema.key, bound.source.key
    if own and all(name in named for name in own):
        return [named[name] for name in own]
    if theirs and all(name in images for name in theirs):
        return [images[name] for name in theirs]
    if own or theirs:
        raise ConfigError(
            f"{bound.schema.table} cannot be verified: no key of it is one of the source's, "
            "unchanged",
            hint="Map the source's key columns too, without a cast.",
        )
    return ()
