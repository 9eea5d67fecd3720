"""What only the rows of one transaction of the target together can tell: `unique` (`rules.py`).

Rows are followed in the order of the source: a value that a row gives up, by an update, a delete or
a truncation, may be another's from then on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from cdc.errors import DataError
from schemas.change import ABSENT, Cell
from schemas.table import TableId, TableSchema
from sinks.decode import DELETE, POISON, TRUNCATE, UPSERT, Event, Key
from sinks.rules import Rules, Tally

__all__ = ["Screen"]


class _Values:
    """Who has which value of one column, as far as one transaction goes."""

    def __init__(self) -> None:
        self._owner: dict[bytes, Key] = {}
        self._held: dict[Key, bytes] = {}

    def take(self, event: Event, place: int) -> bool:
        """Follow one event; tell whether its row has a value that another row has."""
        if event.kind == TRUNCATE:
            self._owner.clear()
            self._held.clear()
        elif event.kind == DELETE:
            self._free(event.key)
        elif event.kind == UPSERT and event.row is not None:
            return self._hold(event, event.row[place])
        return True

    def _hold(self, event: Event, value: Cell) -> bool:
        if value is ABSENT:
            return True
        if value is not None and self._owner.get(value, event.key) not in (event.key, event.old):
            return False
        self._free(event.key)
        if event.old is not None:
            self._free(event.old)
        if value is not None:
            self._owner[value] = event.key
            self._held[event.key] = value
        return True

    def _free(self, key: Key) -> None:
        value = self._held.pop(key, None)
        if value is not None:
            del self._owner[value]


class Screen:
    """Judges what only the rows of one transaction together can tell: `unique`."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._rules: dict[int, tuple[TableSchema, Rules]] = {}

    def add(self, schema: TableSchema, rules: Rules) -> None:
        """Judge the rows of `schema`, too, where its rules ask for it."""
        if rules.unique:
            self._rules[id(schema)] = (schema, rules)

    def __call__(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return the events of one transaction, in order, without those that are skipped.

        Those that are refused become poison. Raises `errors.Stop`.
        """
        if not self._rules:
            return events
        seen: defaultdict[tuple[TableId, str], _Values] = defaultdict(_Values)
        return [event for event in events if self._keeps(event, seen)]

    def _keeps(self, event: Event, seen: Mapping[tuple[TableId, str], _Values]) -> bool:
        schema, rules = self._rules.get(id(event.schema), (None, None))
        if schema is None or rules is None:
            return True
        for rule, place in rules.unique:
            if seen[schema.table, rule.name].take(event, place):
                continue
            try:
                return rules.broken(rule, f"{rule.field} is there twice", self._tally)
            except DataError as error:
                event.kind, event.error = POISON, error
        return True
