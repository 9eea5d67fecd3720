"""What leaves between a view's two bounds, and the rows of a chunk that it makes stale.

    stream  ── T1 ── T2 ──┃── T3 ── T4 ──┃── T5 ──▶     T3, T4: perhaps in the view, perhaps not
                       view.seen     view.place

A chunk's row whose key such a transaction touched stays behind: what that transaction made of it
has left before, whole (`absent.py`). All else in the chunk is as of `view.place`. Where it cannot
be said which rows were touched (a table emptied, one without a usable key, rows of an XA COMMIT
logged in part) the chunk is read again.

MariaDB's view has all that lies before its place but for what XA COMMIT did (`xa.Held`). One that
leaves while the chunk waits, and may be missing, counts as T3. One that had left before, and may be
missing, is prepared to the server and not to the log (`unsettled`): the chunk is read again, later.
MySQL's `seen` has what XA COMMIT did once the tables have it, so there nothing more is to be asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cdc.decode.gtid import Gtid
from cdc.keys import keys_of, line_key
from cdc.mariadb.dialect import View
from cdc.mariadb.position import PreparedXa
from cdc.mariadb.prepared import Ended
from schemas.change import ABSENT, Change, Rows
from schemas.forms import read_pgoutput
from schemas.table import TableId, TableSchema

__all__ = ["Overlap"]

_MOST = 100_000
"""Keys to remember; a chunk that more rows made stale is read again."""


class Overlap:
    """Hears of all rows that leave while a chunk of `schema` waits for its place."""

    def __init__(self, view: View, schema: TableSchema, *, by_key: bool) -> None:
        self._seen = view.seen
        self._held = view.held
        self._lasting = set(view.held.lasting)
        self._late: set[str] = set()
        self._schema = schema
        self._by_key = by_key
        self._keys: set[tuple[object, ...]] = set()
        self.spoiled = False

    def end(self, xa: Ended) -> None:
        """An XA transaction commits; its rows leave from now on."""
        self._lasting.discard(xa.xid)
        if self._seen is not None:
            return
        if xa.xid in self._held.now or not self._held.logged.contains(Gtid.parse(xa.gtid)):
            self._late.add(xa.gtid)

    def unsettled(self, prepared: Iterable[PreparedXa]) -> set[str]:
        """Return the XA transactions the view may lack though the log had ended them before it.

        `prepared` are those that are so in the log, where the view was placed.
        """
        return self._lasting - {item.xid for item in prepared}

    def doubts(self, table: TableId, transaction: str) -> bool:
        """Tell whether the view may lack what a transaction that leaves now did to `table`."""
        if table != self._schema.table:
            return False
        if self._seen is None:
            return transaction in self._late
        return not self._seen.names(transaction)

    def note(self, rows: Sequence[Rows]) -> None:
        """Remember which rows of the table the view may not have as they are."""
        for run in rows:
            if run.origin.snapshot or not self.doubts(run.schema.table, run.origin.txid):
                continue
            known = self._by_key and run.schema.key == self._schema.key
            if not known or b"T" in run.items or not self._brings(run):
                self.spoiled = True
            else:
                self._keys |= keys_of(run)
        self.spoiled = self.spoiled or len(self._keys) > _MOST

    def _brings(self, run: Rows) -> bool:
        """Tell whether a consumer has all of its rows by this run alone."""
        # Those of a view with `seen` were read again as they left; of others it was not known then.
        return self._seen is not None or all(map(_is_whole, run.items))

    def kept(self, lines: list[bytes]) -> list[bytes]:
        """Return the rows of a chunk that are not stale."""
        if not self._keys:
            return lines
        indexes = self._schema.key_indexes()
        return [line for line in lines if line_key(line, indexes) not in self._keys]


def _is_whole(item: bytes | Change) -> bool:
    """Tell whether a consumer has all of a row by one change of it."""
    change = read_pgoutput(item) if isinstance(item, bytes) else item
    return all(cell is not ABSENT for cell in change.after or ())
