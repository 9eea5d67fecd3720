"""What leaves between a view's two bounds, and the rows of a chunk that it makes stale.

    stream  ── T1 ── T2 ──┃── T3 ── T4 ──┃── T5 ──▶     T3, T4: perhaps in the view, perhaps not
                       view.seen     view.place

A chunk's row whose key such a transaction touched stays behind: what that transaction made of it
has left before. All else in the chunk is as of `view.place`. Where it cannot be said which rows
were touched (a table emptied, one without a usable key) the chunk is read again.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdc.keys import keys_of, line_key
from cdc.mariadb.dialect import View
from schemas.change import Rows
from schemas.table import TableSchema

__all__ = ["Overlap"]


class Overlap:
    """Hears of all rows that leave while a chunk of `schema` waits for its place."""

    def __init__(self, view: View, schema: TableSchema, *, by_key: bool) -> None:
        self._seen = view.seen
        self._schema = schema
        self._by_key = by_key
        self._keys: set[tuple[object, ...]] = set()
        self.spoiled = False

    def note(self, rows: Sequence[Rows]) -> None:
        """Remember which rows of the table the view may not have as they are."""
        for run in rows:
            if self._seen is None or run.schema.table != self._schema.table:
                continue
            if run.origin.snapshot or self._seen.names(run.origin.txid):
                continue
            known = self._by_key and run.schema.key == self._schema.key
            if not known or b"T" in run.items:
                self.spoiled = True
            else:
                self._keys |= keys_of(run)

    def kept(self, lines: list[bytes]) -> list[bytes]:
        """Return the rows of a chunk that are not stale."""
        if not self._keys:
            return lines
        indexes = self._schema.key_indexes()
        return [line for line in lines if line_key(line, indexes) not in self._keys]
