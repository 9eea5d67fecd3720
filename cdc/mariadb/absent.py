"""What the log left out and a consumer cannot do without, read again by its key (R6).

Under `binlog_row_image = MINIMAL` an INSERT lacks every column that took its default, and the new
row of a changed key all that was not changed with it (measured on MariaDB 11.4 and MySQL 9.7);
NOBLOB lacks large values that were not given. Whoever makes a row needs all of it. Read again are

* creates, and the new rows of changed keys;
* updates that a chunk which waits may lack (`overlap.py`): the row stays behind there, so that the
  update has to bring it whole;
* JSON documents of which MySQL logged changes and nothing to make them in.

What is read is the row of now, and what made it so follows in the log. A row that is gone by now
stays as it came: so does that. A server may send a transaction before its tables show it, and the
row would be the one before: that is waited for (`Dialect.settle`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import pymysql

from cdc.connections.mariadb import code_of
from cdc.errors import PreflightFailed
from cdc.mariadb.catalog import TableFacts
from cdc.mariadb.chunks import TableBusy, key_text, literal, order_of
from cdc.mariadb.connection import quoted, rows, whole_guard
from cdc.mariadb.selecting import asked, reader
from cdc.mariadb.tables import Tables
from cdc.mysql.documents import UNTOLD
from schemas.change import ABSENT, UNREADABLE, Cell, Rows
from schemas.forms import read_pgoutput, split_tuple
from schemas.table import TableSchema

__all__ = ["filled"]

_AT_ONCE = 500
_CHANGED = (1054, 1146)
"""No such column, no such table."""

_CREATES = (b"IN", b"UK")
_UPDATE = b"UN"

_Key = tuple[str, ...]
_Row = dict[str, bytes | None]


class _Lacking(NamedTuple):
    """The place, new cells and key of an item; one `needed` must not be left as it came."""

    place: int
    cells: Sequence[Cell]
    key: _Key
    needed: bool


def filled(run: Rows, tables: Tables) -> Rows:
    """Return a run in which nothing lacks what it needs, as far as its rows are still there.

    Raises `errors.PreflightFailed` for a table whose rows cannot be looked up by their key,
    `TableBusy` for one that was changed since it was last looked at.
    """
    lacking = list(_lacking(run, every=tables.doubts(run.schema.table, run.origin.txid)))
    if not lacking:
        return run
    facts = tables.there(run.schema.table)
    found: dict[_Key, _Row] = {}
    if facts is not None and order_of(facts, run.schema):
        keys = sorted({item.key for item in lacking})
        with whole_guard(tables.facts.login):
            connection, dialect = tables.facts.connection, tables.facts.dialect
            dialect.settle(connection, run.origin.txid, tables.place())
        for first in range(0, len(keys), _AT_ONCE):
            found.update(_looked_up(run.schema, facts, keys[first : first + _AT_ONCE], tables))
    elif facts is not None and any(item.needed for item in lacking):
        raise PreflightFailed(
            f"rows of {run.schema.table} were logged without all of their columns, and cannot be "
            "looked up: it has no primary key, or one of types whose literals differ",
            hint="SET GLOBAL binlog_row_image = 'FULL'; end the sessions that had another image",
        )
    items: list[bytes] = [bytes(item) for item in run.items if isinstance(item, bytes)]
    for place, cells, key, _ in lacking:
        items[place] = _whole(items[place], run.schema, cells, found.get(key, {}))
    return msgspec.structs.replace(run, items=items)


def _lacking(run: Rows, *, every: bool) -> Iterator[_Lacking]:
    """Yield what has to be read again; `every` asks for all updates, too."""
    indexes = run.schema.key_indexes()
    for place, item in enumerate(run.items):
        if not isinstance(item, bytes):
            continue
        needed = item.startswith(_CREATES) or UNTOLD in item
        if not needed and not (every and item.startswith(_UPDATE)):
            continue
        after = read_pgoutput(item).after or ()
        if any(map(_is_missing, after)):
            key = [cell for index in indexes if isinstance(cell := after[index], bytes)]
            if not any(cell.startswith(UNREADABLE) for cell in key):
                yield _Lacking(place, after, tuple(cell.decode() for cell in key), needed)


def _is_missing(cell: Cell) -> bool:
    return cell is ABSENT or cell == UNTOLD


def _looked_up(
    schema: TableSchema, facts: TableFacts, keys: Sequence[_Key], tables: Tables
) -> Iterator[tuple[_Key, _Row]]:
    """Yield the rows of these keys as they are now, by column."""
    connection, login = tables.facts.connection, tables.facts.login
    kinds = {found.column.name: found.column.kind for found in facts.columns}
    values = ", ".join(
        "({})".format(
            ", ".join(
                literal(connection, kinds[name], key_text(kinds[name], value))
                for name, value in zip(schema.key, key, strict=True)
            )
        )
        for key in keys
    )
    columns = [found.column for found in facts.columns]
    names = ", ".join(map(quoted, schema.key))
    table = quoted(schema.table.schema, schema.table.name)
    wanted = asked(columns)
    query = f"SELECT {wanted} FROM {table} WHERE ({names}) IN ({values})"  # noqa: S608 - quoted
    with whole_guard(login):
        try:
            found = rows(connection, query)
        except pymysql.Error as error:
            if code_of(error) not in _CHANGED:
                raise
            raise TableBusy(f"{schema.table} was changed just now: {error.args[-1]}") from error
    texts = reader(columns)
    for row in found:
        cells = dict(zip((column.name for column in columns), texts(row), strict=True))
        yield tuple((cells[name] or b"").decode() for name in schema.key), cells


def _whole(item: bytes, schema: TableSchema, cells: Sequence[Cell], now: _Row) -> bytes:
    """Return the item with what it lacks; a column that is gone by now stays absent."""
    names = [column.name for column in schema.columns]
    parts = [
        _packed(now.get(name, ABSENT) if _is_missing(cell) else cell)
        for name, cell in zip(names, cells, strict=True)
    ]
    end = 1 if item[1:2] == b"N" else split_tuple(item, 2)[1]
    return b"".join([item[:end], b"N", struct.pack(">H", len(parts)), *parts])


def _packed(cell: Cell) -> bytes:
    if cell is None:
        return b"n"
    return b"t" + struct.pack(">I", len(cell)) + cell if isinstance(cell, bytes) else b"u"
