"""What every table looked like last, and what a statement that changes tables asks for.

Kept as progress under "table/<name>", so that what happens while nobody reads is noticed. A new
column or type sends no row events, a table that is renamed into the selection none at all: such a
table is read again. A table that was dropped or renamed away is not touched at the target until
there is one of its name again: then it is emptied first.

The catalogue is looked at as it is now, which may be later than the log: reading again what a
later statement changes once more does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cdc.mariadb.catalog import Catalog, Selection, TableFacts
from cdc.mariadb.definitions import Definitions
from cdc.mariadb.snapshots import Snapshots
from cdc.mariadb.statements import Deed, Statement
from cdc.mariadb.tables import Tables
from cdc.mariadb.transactions import Transactions
from cdc.snapshot import Job
from cdc.source import Progress
from schemas.table import TableId

__all__ = ["History", "Seen"]


class Seen(msgspec.Struct, frozen=True):
    """A table as last seen: its columns as (name, type). `gone`: dropped or renamed since."""

    table: TableId
    columns: tuple[tuple[str, str], ...] = ()
    gone: bool = False

    def progress(self) -> Progress:
        """Return this as what is stored."""
        return Progress(f"table/{self.table}", {"version": 1, **msgspec.to_builtins(self)})


class History:
    """See the module's text."""

    def __init__(
        self,
        catalog: Catalog,
        tables: Tables,
        selection: Selection,
        definitions: Definitions,
        snapshots: Snapshots,
        stored: Iterable[Progress],
    ) -> None:
        self._catalog = catalog
        self._tables = tables
        self._selection = selection
        self._definitions = definitions
        self._snapshots = snapshots
        self._seen: dict[TableId, Seen] = {}
        self.reads = True
        self.progress: list[Progress] = []
        for item in stored:
            if item.key.startswith("table/") and item.value is not None:
                self._know(msgspec.convert(item.value, Seen))

    def begin(self, transactions: Transactions) -> None:
        """Take in every selected table that is not known yet. Raises `errors.Stop`."""
        self._look(transactions)
        self._learn()

    def _learn(self) -> None:
        self._definitions.learn(seen.table for seen in self._seen.values() if not seen.gone)

    def known(self) -> list[Progress]:
        """Return what is stored of every table."""
        return [seen.progress() for seen in self._seen.values()]

    def forsake(self) -> None:
        """Nobody knows what became of the tables: each is emptied when it is met, and read."""
        for seen in list(self._seen.values()):
            self._remember(msgspec.structs.replace(seen, gone=True))

    def altered(self, statement: Statement, transactions: Transactions) -> None:
        """A statement has changed tables."""
        self._selection.forget()
        self._definitions.forget(statement)
        deed = statement.deed
        for table in self._meant(statement):
            if deed is Deed.DROP and table in self._seen:
                self._remember(msgspec.structs.replace(self._seen[table], gone=True))
            elif deed in (Deed.CREATE, Deed.REPLACE):
                self._made(table, filled=statement.rewrites)
            elif deed is Deed.EMPTY:
                self._empty(table, transactions)
                self._read(Job(table, attempt=1))
            elif deed is Deed.ALTER:
                self._changed(table, rewritten=statement.rewrites)
        if deed in (Deed.DROP, Deed.DDL):
            self._look(transactions)
        self._learn()

    def _meant(self, statement: Statement) -> list[TableId]:
        """Return the captured tables a statement is about."""
        databases = {table.schema for table in statement.tables if not table.name}
        known = [table for table in self._seen if table.schema in databases]
        return known + [table for table in statement.tables if self._selection(table)]

    def backfill(self, name: str, where: str) -> None:
        """Read the table called `name` again, or the rows of it that `where` selects."""
        found = [facts for facts in self._selection.tables() if str(facts.table) == name]
        if found:
            self._snapshots.jobs.add(Job(found[0].table, where=where, attempt=1))
        else:
            self._snapshots.refused = f"backfill: {name} is no table of this source"

    def _look(self, transactions: Transactions) -> None:
        """Read selected tables that are there and were not, or not under that name."""
        for facts in self._selection.tables():
            seen = self._seen.get(facts.table)
            if seen is not None and not seen.gone:
                continue
            if seen is not None:
                self._empty(facts.table, transactions)
            self._enter(self._catalog.described(facts))
            self._read(Job(facts.table, estimate=facts.rows, attempt=0 if seen is None else 1))

    def _made(self, table: TableId, *, filled: bool) -> None:
        """A table was made, and emptied before if need be; its rows are in the log.

        But for those its own statement `filled` it with, in statement format.
        """
        facts = self._catalog.find(table)
        if facts is not None:
            self._enter(facts)
            if filled:
                self._read(Job(table, estimate=facts.rows, attempt=1))

    def _changed(self, table: TableId, *, rewritten: bool) -> None:
        """Read a table again that has a column or a type it had not, or other values."""
        facts, seen = self._catalog.find(table), self._seen.get(table)
        if facts is None:
            return
        before = set(seen.columns) if seen else set()
        grown = not set(self._enter(facts).columns) <= before
        if grown or rewritten:
            self._read(Job(table, estimate=facts.rows, attempt=1))

    def _enter(self, facts: TableFacts) -> Seen:
        schema = self._tables.described(facts)
        columns = tuple((column.name, column.type.native) for column in schema.columns)
        seen = Seen(facts.table, columns)
        if self._seen.get(facts.table) != seen:
            self._remember(seen)
        return seen

    def _remember(self, seen: Seen) -> None:
        self._know(seen)
        self.progress.append(seen.progress())

    def _know(self, seen: Seen) -> None:
        self._seen[seen.table] = seen
        (self._tables.gone.add if seen.gone else self._tables.gone.discard)(seen.table)

    def _empty(self, table: TableId, transactions: Transactions) -> None:
        transactions.insert(self._tables.schema(table), [b"T"], "pgoutput")

    def _read(self, job: Job) -> None:
        if self.reads:
            self._snapshots.jobs.add(job)
