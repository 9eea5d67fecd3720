"""Tables that nobody reads to their end: the server is not waited for, not as garbage either."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymysql.connections import MySQLResult
from pymysql.cursors import SSCursor

from cdc.connections.mariadb import Login
from cdc.errors import SourceUnavailable
from cdc.mariadb import readable
from cdc.mariadb.readable import MariaDBSource, MariaDBTable
from cdc.mariadb.results import lines
from cdc.verify.readable import Piece, Wanted
from fix_mariadb_capture import Database, MariaCapture
from schemas.table import TableId

ROWS = 200_000
"""More than the sockets between us and the server hold."""


def begun() -> int:
    """Count the results that the server still sends, whoever holds them."""
    results = [found for found in gc.get_objects() if isinstance(found, MySQLResult)]
    return sum(found.unbuffered_active for found in results)


def filled(shop: Database) -> None:
    shop.execute(
        "CREATE TABLE t (n int NOT NULL, filler char(100) NOT NULL)",
        f"INSERT INTO t SELECT seq, 'x' FROM seq_1_to_{ROWS}",
    )


def test_a_source_that_ends_in_the_middle_of_a_table(
    shop: Database, make_maria: Callable[..., MariaCapture]
) -> None:
    filled(shop)
    maria = make_maria(chunk_rows=100)
    maria.until(lambda: begun() == 1, "a table that is being read")
    maria.kill()
    assert begun() == 0
    maria.until_read()
    assert sum(maria.rows_left("t").values()) == ROWS


def test_a_comparison_that_ends_in_the_middle_of_a_table(shop: Database) -> None:
    filled(shop)
    login = Login(shop.url, "test")
    table = MariaDBTable(login, (shop.name, "t"), Wanted(TableId(shop.name, "t"), ("n",), 1))
    for _ in range(2):
        table.open()
        rows = table.rows(Piece())
        next(rows)
        assert begun() == 1
        table.close()
        assert begun() == 0
    table.open()
    rows = table.rows(Piece())
    next(rows)
    del rows
    assert begun() == 0


@pytest.mark.parametrize("what", ["pieces", "rows", "lines"])
def test_a_comparison_whose_connection_is_lost_amid_rows_is_told_so(
    shop: Database, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def cut(cursor: SSCursor, columns: Any) -> Iterator[list[bytes]]:
        connection: Any = cursor.connection
        connection._sock.shutdown(socket.SHUT_RDWR)
        connection._rfile.read(len(connection._rfile.peek()))
        return lines(cursor, columns)

    shop.execute("CREATE TABLE t (n int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    wanted = Wanted(TableId(shop.name, "t"), ("n",), 1)
    table = MariaDBSource(Login(shop.url, "test"), (shop.name, "t"), wanted)
    table.open()
    monkeypatch.setattr(readable, "lines", cut)
    with pytest.raises(SourceUnavailable, match="Lost connection"):
        list(table.pieces(1) if what == "pieces" else getattr(table, what)(Piece()))
    assert begun() == 0
    table.close()
