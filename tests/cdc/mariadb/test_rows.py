"""Rows of real tables: as wide as they come, encrypted, interrupted; by both executors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pymysql
import pytest
from pymysql.cursors import SSCursor

from cdc.connections.mariadb import Login
from cdc.decode.mysqltypes import MysqlColumn
from cdc.local import LocalMariaDB
from cdc.mariadb.connection import connect, leave, rows, unread
from cdc.mariadb.readable import MariaDBTable
from cdc.mariadb.results import lines
from cdc.verify.readable import Piece, Wanted
from fix_mariadb_capture import Database, database_of
from fix_tls import Authority
from schemas.executor import SWITCH
from schemas.table import TableId, Type

COLUMNS = (
    MysqlColumn("n", "int", "int"),
    MysqlColumn("note", "longtext", "longtext", charset="utf8mb4"),
)
TABLE = "CREATE TABLE t (n int PRIMARY KEY, note longtext)"
WIDE = 17 << 20


@pytest.fixture(params=["plain", "compiled"], autouse=True)
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(SWITCH, request.param)
    return str(request.param)


@contextmanager
def asked(url: str, query: str) -> Iterator[SSCursor]:
    connection = connect(Login(url, "test"))
    try:
        cursor = SSCursor(connection)
        cursor.execute(query)
        yield cursor
    finally:
        leave(connection)


def sizes(url: str) -> list[tuple[bytes, int]]:
    with asked(url, "SELECT n, note FROM t ORDER BY n") as cursor:
        found = [line.split(b"\t") for run in lines(cursor, COLUMNS) for line in run]
    return [(n, len(note)) for n, note in found]


@pytest.fixture
def roomy(mariadb: LocalMariaDB) -> Iterator[None]:
    """Let the server send and take values of more than 16 MB."""
    [(usual,)] = mariadb.execute("SELECT @@GLOBAL.max_allowed_packet")
    mariadb.execute(f"SET GLOBAL max_allowed_packet = {4 * WIDE}")
    yield
    mariadb.execute(f"SET GLOBAL max_allowed_packet = {usual}")


@pytest.mark.usefixtures("roomy")
def test_rows_of_any_width_between_others(mariadb: LocalMariaDB, fresh: str, executor: str) -> None:
    wanted = [0, 250, 251, 70_000, WIDE, 3, (1 << 24) - 1, 9]
    with database_of(mariadb, fresh) as shop:
        shop.execute(TABLE)
        for n, size in enumerate(wanted):
            shop.execute(f"INSERT INTO t VALUES ({n}, REPEAT('x', {size}))")
    assert sizes(fresh) == [(b"%d" % n, size) for n, size in enumerate(wanted)]


def test_a_query_that_is_killed_amid_its_rows_is_the_drivers_own_error(
    shop: Database, executor: str
) -> None:
    query = "SELECT seq, REPEAT('x', 100) FROM seq_1_to_10000000"
    with asked(shop.url, query) as cursor:
        runs = lines(cursor, COLUMNS)
        assert next(runs)
        shop.execute(f"KILL QUERY {cursor.connection.thread_id()}")
        with pytest.raises(pymysql.OperationalError, match="interrupted"):
            for _ in runs:
                pass
        assert not unread(cursor)
        assert rows(cursor.connection, "SELECT 1") == [(b"1",)]


def test_a_connection_goes_on_behind_a_result(shop: Database, executor: str) -> None:
    shop.execute(TABLE, "INSERT INTO t SELECT seq, 'x' FROM seq_1_to_50000")
    with asked(shop.url, "SELECT n, note FROM t") as cursor:
        runs = list(lines(cursor, COLUMNS))
        assert len(runs) < 500  # nearly all of them came by the block
        assert sum(map(len, runs)) == 50_000
        assert rows(cursor.connection, "SELECT COUNT(*) FROM t") == [(b"50000",)]


def test_lines_that_are_compared_have_postgresqls_texts(shop: Database, executor: str) -> None:
    shop.execute(
        "CREATE TABLE t (n int(5) zerofill PRIMARY KEY, paid tinyint(1), at datetime(3), "
        "note text, price decimal(6,2) zerofill, score float, photo blob)",
        "INSERT INTO t VALUES (7, 1, '2024-01-01 12:00:00.250', 'tab\\tline\\n', 1.5, 0.1, 'A')",
        "INSERT INTO t (n, paid) VALUES (8, 0)",
    )
    names = ("n", "paid", "at", "note", "price", "score", "photo")
    kinds = ("int32", "boolean", "timestamptz", "string", "decimal", "float32", "bytes")
    wanted = Wanted(TableId(shop.name, "t"), names, 1, tuple(map(Type, kinds)))
    table = MariaDBTable(Login(shop.url, "test"), (shop.name, "t"), wanted)
    with closing(table):
        table.open()
        seven = rb"7	t	2024-01-01 12:00:00.25+00	tab\tline\n	1.50	0.1	\\x41"
        eight = rb"8	f	\N	\N	\N	\N	\N"
        assert table.lines(Piece()) == [seven, eight]
        assert table.lines(Piece((b"7",))) == [eight]
        assert next(iter(table.rows(Piece())))[1:3] == (b"1", b"2024-01-01 12:00:00.25")


@pytest.fixture(scope="module")
def encrypted(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a database on a server that is reached through TLS."""
    folder = tmp_path_factory.mktemp("maria")
    identity = authority.identity("mariadb", ("127.0.0.1",))
    with LocalMariaDB(data=folder / "home", settings={"log_bin": False}) as server:
        for path in (identity.cert, identity.key):
            kept = server.data / path.name
            shutil.copy(path, kept)
            shutil.chown(kept, server.data.stat().st_uid, server.data.stat().st_gid)
        server.create_database("shop")
    settings = {"ssl": True, "ssl_cert": identity.cert.name, "ssl_key": identity.key.name}
    with LocalMariaDB(data=folder / "home", settings=settings) as server:
        yield f"{server.url_of('shop')}?ssl-mode=VERIFY_IDENTITY&ssl-ca={authority.ca}"


def test_rows_come_through_tls(encrypted: str, executor: str) -> None:
    query = "SELECT seq, REPEAT('x', seq % 300) FROM seq_1_to_20000"
    with asked(encrypted, query) as cursor:
        found = [line for run in lines(cursor, COLUMNS) for line in run]
        [(_, cipher)] = rows(cursor.connection, "SHOW STATUS LIKE 'Ssl_cipher'")
        assert cipher
    assert found == [b"%d\t%s" % (n, b"x" * (n % 300)) for n in range(1, 20_001)]
