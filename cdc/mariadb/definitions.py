"""What the columns of each table are at the log's place, for a log that does not name them.

Under `binlog_row_metadata` NO_LOG, the server's default, and MINIMAL the log has types only. Names,
signs, labels and character sets are then the catalogue's, which is as of the log's end. It holds
for the place where the log is being read when no statement between the two is about the table:
that is looked for in the log itself (`ahead.py`). What was found out is kept as progress under
"columns/<table>" until a statement in the log changes the table, so that what is altered while
nobody reads does no harm to the rows before it.

What cannot be found out is a gap: rows between two changes of a table, both of them made before
the first was read. What was found out and does not fit the types in the log is one, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from cdc.decode.binlogtables import LoggedColumn, LoggedTable
from cdc.decode.mysqltypes import MysqlColumn, fits
from cdc.errors import GapError
from cdc.mariadb.ahead import Ahead
from cdc.mariadb.catalog import Catalog, TableFacts
from cdc.mariadb.position import Place
from cdc.mariadb.statements import Statement
from cdc.source import Progress
from schemas.table import TableId

__all__ = ["Definitions", "named"]

_KEY = "columns/"
_HINT = (
    "SET GLOBAL binlog_row_metadata = 'FULL' keeps it from happening again; then read everything "
    "again: `cdc position reset`, or `snapshot: when_needed`"
)

Reached = Callable[[], tuple[str, Place]]
"""Tells behind which position, and which place, the rows lie that are being read."""


class Definitions:
    """See the module's text. `reached` is set by who reads the log."""

    def __init__(self, catalog: Catalog, stored: Iterable[Progress]) -> None:
        self._catalog = catalog
        self._ahead = Ahead(catalog.login, catalog.dialect)
        self._known: dict[TableId, TableFacts] = {}
        self.reached: Reached
        self.progress: list[Progress] = []
        for item in stored:
            if item.key.startswith(_KEY) and item.value is not None:
                facts = msgspec.convert(item.value, TableFacts)
                self._known[facts.table] = facts

    def known(self) -> list[Progress]:
        """Return what is stored of every table."""
        return [_progress(facts) for facts in self._known.values()]

    def of(self, table: TableId) -> TableFacts:
        """Return what `table` is where the log is being read. Raises `errors.GapError`."""
        if table not in self._known and not self.look(table):
            raise GapError(
                f"rows of {table} were logged without the names of their columns, and it was "
                "changed once more, or dropped, before it could be looked at",
                hint=_HINT,
            )
        return self._known[table]

    def look(self, table: TableId) -> bool:
        """Ask the catalogue; tell whether what it says holds where the log is being read.

        It must be asked before the log's end: what it has seen of a change, the log has then.
        """
        facts = self._catalog.find(table)
        end = self._catalog.log_end()
        if facts is None:
            return False
        later = self._ahead.between(*self.reached(), end)
        if any(statement.concerns(table) for statement in later):
            return False
        self._known[table] = msgspec.structs.replace(facts, rows=0)
        self.progress.append(_progress(self._known[table]))
        return True

    def learn(self, tables: Iterable[TableId]) -> None:
        """Look at those that are not known, unless the log names columns by itself."""
        if self._catalog.variable("binlog_row_metadata") != "FULL":
            for table in tables:
                if table not in self._known:
                    self.look(table)

    def forget(self, statement: Statement) -> None:
        """A statement has changed tables: what was known of them does not hold behind it."""
        for table in [table for table in self._known if statement.concerns(table)]:
            del self._known[table]
            self.progress.append(Progress(f"{_KEY}{table}", None))


def _progress(facts: TableFacts) -> Progress:
    return Progress(f"{_KEY}{facts.table}", {"version": 1, **msgspec.to_builtins(facts)})


def named(logged: LoggedTable, facts: TableFacts, charsets: Mapping[int, str]) -> LoggedTable:
    """Return a table of the log with the names, signs, charsets and key of `facts`.

    Raises `errors.GapError` where these do not fit the types the log has.
    """
    numbers = {name: number for number, name in sorted(charsets.items(), reverse=True)}
    known = [found.column for found in facts.columns]
    if len(known) != len(logged.columns):
        raise _unfit(logged, f"{len(logged.columns)} columns, not {len(known)}")
    columns: list[LoggedColumn] = []
    for column, found in zip(known, logged.columns, strict=True):
        told = logged.collated and column.kind not in ("enum", "set")
        whole = msgspec.structs.replace(
            found,
            name=column.name,
            unsigned=found.unsigned if logged.signed else column.unsigned,
            collation=found.collation if told else numbers.get(column.charset, found.collation),
        )
        if not _fits(column, whole, charsets):
            raise _unfit(logged, f"a {column.name} that is no {column.spelled}")
        columns.append(whole)
    names = [column.name for column in known]
    key = tuple(names.index(name) for name in facts.primary_key)
    return msgspec.structs.replace(logged, columns=tuple(columns), primary_key=key)


def _fits(column: MysqlColumn, logged: LoggedColumn, charsets: Mapping[int, str]) -> bool:
    """Tell whether a column may be what the log has, which knows nothing of its labels."""
    if column.kind == "enum" and logged.size != 1 + (len(column.labels) > 255):
        return False
    return fits(msgspec.structs.replace(column, labels=()), logged, charsets)


def _unfit(logged: LoggedTable, what: str) -> GapError:
    return GapError(
        f"rows of {logged.table} were logged without the names of their columns, and with {what}: "
        "it was changed in a way the log does not tell",
        hint=_HINT,
    )
