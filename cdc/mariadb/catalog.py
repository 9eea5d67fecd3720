"""Reading what is there now: tables, columns, keys, and the server's settings.

What decodes a row comes from the log itself; the catalogue adds what the log does not say: JSON
and UUID, the whole spelling of a type, nullability, defaults, the key's order. It is as of now, so
a column whose facts do not fit the log any more is taken as the log has it (`tables.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from cdc.decode.gtid import Domains
from cdc.decode.mysqltypes import MysqlColumn
from cdc.mariadb.connection import Arguments, Connection, Login, rows, text, whole_guard
from cdc.mariadb.dialect import Dialect
from cdc.mariadb.position import Place
from schemas.table import TableId

__all__ = ["Catalog", "ColumnFacts", "Selection", "TableFacts", "selects"]

_SYSTEM = ("information_schema", "mysql", "performance_schema", "sys")

_TABLES = """
SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.TABLE_TYPE, t.ENGINE, t.TABLE_ROWS,
       (SELECT e.TRANSACTIONS FROM information_schema.ENGINES e WHERE e.ENGINE = t.ENGINE)
FROM information_schema.TABLES t WHERE t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')
AND t.TABLE_SCHEMA NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')
"""
_OTHERS = """
SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'SEQUENCE'
"""
_SIZED = ("bit", "binary", "time", "datetime", "timestamp")


class ColumnFacts(msgspec.Struct, frozen=True):
    """One column now; `default` is SQL."""

    column: MysqlColumn
    nullable: bool
    default: str | None
    generated: bool


class TableFacts(msgspec.Struct, frozen=True):
    """One table now. `primary_key` is in the index's order, `rows` the server's estimate."""

    table: TableId
    engine: str
    transactional: bool
    versioned: bool
    rows: int
    columns: tuple[ColumnFacts, ...] = ()
    primary_key: tuple[str, ...] = ()


def selects(globs: Sequence[str], table: TableId) -> bool:
    """Tell whether `schema.table` matches a glob and none that begins with "!"."""
    name = str(table)
    if table.schema in _SYSTEM:
        return False
    wanted = any(fnmatchcase(name, glob) for glob in globs if not glob.startswith("!"))
    return wanted and not any(fnmatchcase(name, g[1:]) for g in globs if g.startswith("!"))


class Catalog:
    """Reads over one connection in autocommit. Every method may raise `errors.Unavailable`."""

    def __init__(self, connection: Connection, login: Login, dialect: Dialect) -> None:
        self.connection = connection
        self.login = login
        self.dialect = dialect
        self._charsets: dict[int, str] = {}

    def rows(self, query: str, arguments: Arguments = ()) -> list[tuple[str, ...]]:
        """Run `query` and return its rows as texts, NULL as the empty one."""
        with whole_guard(self.login):
            found = rows(self.connection, query, arguments)
        return [tuple(map(text, row)) for row in found]

    def value(self, query: str, arguments: tuple[object, ...] = ()) -> str:
        """Return the single value of `query`, empty when there is none."""
        found = self.rows(query, arguments)
        return found[0][0] if found else ""

    def variable(self, name: str) -> str:
        """Return a global variable of the server."""
        return self.value(f"SELECT @@GLOBAL.{name}")

    def charsets(self) -> Mapping[int, str]:
        """Return collation number → character set, as this server has them."""
        if not self._charsets:
            self._charsets = {
                int(number): name for number, name in self.rows(self.dialect.charsets)
            }
        return self._charsets

    def log_end(self) -> Place:
        """Return where the binary log ends."""
        with whole_guard(self.login):
            return self.dialect.log_end(self.connection)

    def bytes_behind(self, place: Place) -> int:
        """Return how many bytes of the log lie behind `place`: all of it where it is of no file."""
        files = [Place(name, int(size)) for name, size, *_ in self.rows("SHOW BINARY LOGS")]
        left = sum(file.offset for file in files if file.covers(place) or file.file == place.file)
        return max(left - place.offset, 0)

    def gtid_at(self, place: Place) -> Domains | None:
        """Return the position at a place of the log, None when that is no place of it."""
        query = "SELECT BINLOG_GTID_POS(%s, %s) IS NULL, BINLOG_GTID_POS(%s, %s)"
        [(missing, gtid)] = self.rows(query, (*place, *place))
        return None if missing == "1" else Domains.parse(gtid)

    def tables(self, globs: Sequence[str]) -> list[TableFacts]:
        """Return the tables `globs` select, by name, without their columns."""
        found = [_table(row) for row in self.rows(_TABLES + "ORDER BY 1, 2")]
        return [facts for facts in found if selects(globs, facts.table)]

    def find(self, table: TableId) -> TableFacts | None:
        """Return a table with its columns, None when there is none."""
        which = "AND t.TABLE_SCHEMA = %s AND t.TABLE_NAME = %s"
        found = self.rows(_TABLES + which, (table.schema, table.name))
        return self.described(_table(found[0])) if found else None

    def described(self, facts: TableFacts) -> TableFacts:
        """Return `facts` with its columns and key."""
        columns, key = [], {}
        which = {"schema": facts.table.schema, "name": facts.table.name}
        for row in self.rows(self.dialect.columns, which):
            columns.append(_column(row))
            if row[12]:
                key[int(row[12])] = row[0]
        ordered = tuple(key[place] for place in sorted(key))
        return msgspec.structs.replace(facts, columns=tuple(columns), primary_key=ordered)


def _table(row: tuple[str, ...]) -> TableFacts:
    schema, name, kind, engine, count, transactions = row
    return TableFacts(
        TableId(schema, name),
        engine,
        transactional=transactions == "YES",
        versioned=kind != "BASE TABLE",
        rows=int(count or 0),
    )


def _column(row: tuple[str, ...]) -> ColumnFacts:
    name, kind, spelled, nullable, default, generated, charset, precision, scale = row[:9]
    fraction, length, json = row[9:12]
    if json == "1" and kind == "longtext":
        kind = spelled = "json"
    size = 0
    if kind in _SIZED:
        size = int(fraction or (precision if kind == "bit" else length) or 0)
    column = MysqlColumn(
        name,
        kind,
        spelled.replace(" zerofill", ""),
        unsigned=" unsigned" in spelled or kind == "year",
        size=size,
        precision=int(precision or 0) if kind == "decimal" else 0,
        scale=int(scale or 0) if kind == "decimal" else 0,
        charset=charset or "binary",
        labels=_labels(spelled) if kind in ("enum", "set") else (),
    )
    told = default if default not in ("", "NULL") else None
    return ColumnFacts(column, nullable == "YES", told, generated == "1")


def _labels(spelled: str) -> tuple[str, ...]:
    """Read "enum('a','it''s')"; the catalogue escapes nothing but the quote."""
    inner = spelled[spelled.index("(") + 2 : spelled.rindex(")") - 1]
    return tuple(label.replace("''", "'") for label in inner.split("','"))


class Selection:
    """The tables that `globs` ask for, those not made yet among them; never a sequence."""

    def __init__(self, catalog: Catalog, globs: Sequence[str]) -> None:
        self._catalog = catalog
        self._globs = globs
        self._others: set[TableId] | None = None

    def __call__(self, table: TableId) -> bool:
        """Tell whether rows of `table` are asked for."""
        if not selects(self._globs, table):
            return False
        if self._others is None:
            self._others = {TableId(*row) for row in self._catalog.rows(_OTHERS)}
        return table not in self._others

    def tables(self) -> list[TableFacts]:
        """Return those that are there now."""
        return self._catalog.tables(self._globs)

    def schemas(self) -> set[str]:
        """Return the databases of those that are there now."""
        return {facts.table.schema for facts in self.tables()}

    def forget(self) -> None:
        """Some schema has changed."""
        self._others = None
