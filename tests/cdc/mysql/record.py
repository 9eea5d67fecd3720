"""Record what a real MySQL logs, and what SELECT gives beside it, for `test_recorded.py`.

    PYTHONPATH=.:tests .venv/bin/python tests/cdc/mysql/record.py

Each story below is run on an empty server of its own settings. Its binary log goes to
`recorded/<name>.binlog` as the server wrote it, and to `recorded/<name>.json` the server's version,
the statements and, for each table, its columns and rows as SELECT gave them, bytes in Latin-1.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pymysql.cursors import Cursor

from cdc.mariadb.catalog import Catalog
from cdc.mariadb.connection import Login, quoted
from cdc.mariadb.selecting import asked
from cdc.mysql.server import MySQL
from mysql_server import RealMySQL
from mysql_values import DOCUMENTS, VALUES
from schemas.table import TableId

FOLDER = Path(__file__).parent / "recorded"
DATABASE = "shop"
LONGEST = 1_000


def types() -> Iterator[str]:
    """Every type with its limits, a column each, a row for each value."""
    yield "SET sql_mode = 'ALLOW_INVALID_DATES'"
    columns = ", ".join(f"c{place} {kind}" for place, kind in enumerate(VALUES))
    yield f"CREATE TABLE every (id int PRIMARY KEY, {columns}) ROW_FORMAT=DYNAMIC"
    for row in range(1 + max(map(len, VALUES.values()))):
        given = {
            f"c{place}": values[row - 1]
            for place, values in enumerate(VALUES.values())
            if 0 < row <= len(values)
        }
        names, values = ", ".join(["id", *given]), ", ".join([str(row), *given.values()])
        yield f"INSERT INTO every ({names}) VALUES ({values})"


def documents() -> Iterator[str]:
    """JSON of every kind, size and depth, as it was written and after changes of its parts."""
    yield "CREATE TABLE doc (id int AUTO_INCREMENT PRIMARY KEY, j json, other json)"
    yield "SET SESSION binlog_transaction_compression = ON"  # some are large
    yield f"INSERT INTO doc (j) VALUES ({'), ('.join(DOCUMENTS)})"
    yield "SET SESSION binlog_transaction_compression = OFF"
    dice = random.Random(7)  # noqa: S311 - repeatable, no secret
    for _ in range(60):
        text = json.dumps(_any_document(dice, 4)).replace("\\", "\\\\").replace("'", "''")
        yield f"INSERT INTO doc (j) VALUES ('{text}')"
    yield "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'"
    start = """'{"a": [1, 2, {"k": "a long text that is left alone"}], "bb": 1.50, "": 0}'"""
    yield "CREATE TABLE part (id int PRIMARY KEY, n int, j json, k json)"
    yield f"INSERT INTO part VALUES (1, 0, {start}, NULL), (2, 0, {start}, {start})"
    yield "UPDATE part SET j = JSON_SET(j, '$.a[1]', 'two', '$.bb', 1e20), k = '[]' WHERE id = 1"
    yield "UPDATE part SET j = JSON_SET(j, '$.\"b c\"', CAST('2024-01-02' AS DATE))"
    yield "UPDATE part SET k = JSON_REMOVE(k, '$.a[0]', '$.bb'), n = n + 1 WHERE id = 2"
    yield "UPDATE part SET j = JSON_REPLACE(j, '$.a[2].k', JSON_ARRAY(1, 2)), k = NULL"
    yield "UPDATE part SET n = n + 1, j = JSON_ARRAY_INSERT(j, '$.a[1]', JSON_OBJECT('é', 1))"
    yield "UPDATE part SET j = JSON_ARRAY_APPEND(j, '$.a', 3), k = j WHERE id = 1"


def _any_document(dice: random.Random, depth: int) -> Any:
    kind = dice.randrange(8 if depth else 6)
    if kind == 6:
        return [_any_document(dice, depth - 1) for _ in range(dice.randrange(6))]
    if kind == 7:
        keys = ("".join(dice.choices('ab"\\é\n😀', k=dice.randrange(4))) for _ in range(5))
        return {key: _any_document(dice, depth - 1) for key in keys}
    scalars = (
        None,
        dice.random() < 0.5,
        dice.randrange(-(2**63), 2**64),
        dice.uniform(-1, 1) * 10.0 ** dice.randrange(-300, 300),
        "".join(chr(dice.randrange(1, 200)) for _ in range(dice.choice([3, 200]))),
        dice.randrange(-70_000, 70_000),
    )
    return scalars[kind]


def transactions() -> Iterator[str]:
    """What transactions look like: tagged, compressed, DDL, savepoints, generated columns."""
    yield "CREATE TABLE t (id int PRIMARY KEY, n int, twice int AS (n * 2), hid int INVISIBLE)"
    yield "INSERT INTO t (id, n, hid) VALUES (1, 1, 7), (2, 2, 8)"
    yield "SET GTID_NEXT = 'AUTOMATIC:blue'"
    yield "INSERT INTO t (id, n) VALUES (3, 3)"
    yield "SET GTID_NEXT = 'AUTOMATIC'"
    yield "SET SESSION binlog_transaction_compression = ON"
    yield "BEGIN"
    yield (
        "INSERT INTO t (id, n) WITH RECURSIVE s (n) AS "
        "(SELECT 10 UNION ALL SELECT n + 1 FROM s WHERE n < 300) SELECT n, n FROM s"
    )
    yield "SAVEPOINT a"
    yield "DELETE FROM t"
    yield "ROLLBACK TO a"
    yield "UPDATE t SET n = n + 1 WHERE id < 20"
    yield "COMMIT"
    yield "SET SESSION binlog_transaction_compression = OFF"
    yield "BEGIN"
    yield "INSERT INTO t (id) VALUES (900)"
    yield "ROLLBACK"
    yield "CREATE TABLE made (id int PRIMARY KEY) AS SELECT id FROM t WHERE id < 20"
    yield "CREATE TABLE gone (id int PRIMARY KEY)"
    yield "INSERT INTO gone VALUES (1)"
    yield "TRUNCATE TABLE gone"
    yield "FLUSH BINARY LOGS"
    yield "UPDATE t SET id = id + 1000 WHERE id IN (1, 3)"
    yield "CREATE TABLE pale (n int)"
    yield "SET SESSION sql_generate_invisible_primary_key = ON"
    yield "CREATE TABLE given (n int)"
    yield "INSERT INTO given VALUES (5), (6)"


def images() -> Iterator[str]:
    """Rows with some of their columns, and changes of documents that are not there."""
    for image in ("MINIMAL", "NOBLOB"):
        table = image.lower()
        yield (
            f"CREATE TABLE {table} (id int PRIMARY KEY, n int DEFAULT 5, note text, "
            "twice int AS (n * 2) STORED, other json, facts json)"
        )
        start = """'{"a": [1, 2], "b": "a long text that is left alone"}'"""
        given = ", ".join(f"({id_}, {id_}, 'note', {start})" for id_ in range(1, 5))
        yield f"INSERT INTO {table} (id, n, note, facts) VALUES {given}"
        yield f"SET SESSION binlog_row_image = '{image}'"
        yield f"UPDATE {table} SET n = NULL WHERE id = 1"
        yield f"UPDATE {table} SET note = 'ONE', facts = '[1]' WHERE id = 1"
        yield f"UPDATE {table} SET id = 20 WHERE id = 2"
        yield f"DELETE FROM {table} WHERE id = 3"
        yield f"INSERT INTO {table} (id) VALUES (5)"
        yield "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'"
        yield f"UPDATE {table} SET facts = JSON_SET(facts, '$.a[0]', 7), n = 8 WHERE id IN (4, 20)"
        yield f"UPDATE {table} SET facts = JSON_REMOVE(facts, '$.a'), id = 40 WHERE id = 4"
        yield "SET SESSION binlog_row_value_options = ''"
        yield "SET SESSION binlog_row_image = 'FULL'"


def prepared() -> Iterator[str]:
    """XA transactions: committed, rolled back, of one phase, side by side, and one left open."""
    yield "CREATE TABLE t (id int PRIMARY KEY, n int)"

    def one(xid: str, *changes: str) -> Iterator[str]:
        yield from (f"XA START {xid}", *changes, f"XA END {xid}")

    yield from one("'x'", "INSERT INTO t VALUES (1, 0), (2, 0)", "UPDATE t SET n = 5 WHERE id = 1")
    yield from ("XA PREPARE 'x'", "INSERT INTO t VALUES (3, 0)", "XA COMMIT 'x'")
    yield from one("'x'", "DELETE FROM t WHERE id = 2")
    yield from ("XA PREPARE 'x'", "XA ROLLBACK 'x'")
    yield from one("'x'", "SAVEPOINT a", "INSERT INTO t VALUES (4, 0)", "SAVEPOINT b")
    yield "XA COMMIT 'x' ONE PHASE"
    yield from one("'none'", "SELECT 1")
    yield from ("XA PREPARE 'none'", "XA COMMIT 'none'")
    for number in (10, 11):
        yield from one(f"'side','{number}',7", f"INSERT INTO t VALUES ({number}, 0)")
        yield f"XA PREPARE 'side','{number}',7"
    yield "FLUSH BINARY LOGS"
    yield from ("XA COMMIT 'side','11',7", "XA COMMIT 'side','10',7")
    yield "SET GTID_NEXT = 'AUTOMATIC:blue'"
    yield "SET SESSION binlog_transaction_compression = ON"
    many = ", ".join(f"({number}, 0)" for number in range(100, 200))
    yield from one("X'00ff27'", f"INSERT INTO t VALUES {many}", "SAVEPOINT a")
    yield "XA PREPARE X'00ff27'"
    yield "SET SESSION binlog_transaction_compression = OFF"
    yield from one("'open'", "INSERT INTO t VALUES (999, 0)")
    yield "XA PREPARE 'open'"
    yield "SET GTID_NEXT = 'AUTOMATIC'"
    yield "FLUSH BINARY LOGS"
    yield "XA COMMIT X'00ff27'"
    yield "UPDATE t SET n = n + 1 WHERE id < 150"


def nameless() -> Iterator[str]:
    """A transaction without a global id."""
    yield "CREATE TABLE t (id int PRIMARY KEY)"
    yield "INSERT INTO t VALUES (1)"


STORIES = {
    "types": (types, ()),
    "documents": (documents, ()),
    "transactions": (transactions, ()),
    "images": (images, ()),
    "prepared": (prepared, ()),
    "nameless": (nameless, ("--gtid-mode=OFF",)),
}


def record(name: str) -> None:
    """Run a story and keep what it left."""
    story, settings = STORIES[name]
    statements = list(story())
    with RealMySQL(*settings) as server:
        server.create_database(DATABASE)
        server.execute("RESET BINARY LOGS AND GTIDS")
        with closing(server.connect(DATABASE)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        told = {
            "server": server.execute("SELECT VERSION()")[0][0],
            "recorded": datetime.now(UTC).date().isoformat(),
            "statements": statements,
            "gtid_executed": server.execute("SELECT @@GLOBAL.gtid_executed")[0][0],
            **kept(server),
        }
        server.execute("FLUSH BINARY LOGS")  # the file in use has a mark, unlike what is sent
        logs = sorted((server.folder / "data").glob("binlog.0*"))[:-1]
        (FOLDER / f"{name}.binlog").write_bytes(b"".join(path.read_bytes() for path in logs))
    (FOLDER / f"{name}.json").write_text(json.dumps(told, ensure_ascii=False) + "\n")


def kept(server: RealMySQL) -> dict[str, Any]:
    """Return the tables with their columns and rows, and the server's collations."""
    connection = server.connect(DATABASE)
    with closing(connection):
        connection.use_unicode = False
        connection.decoders = {}
        catalog = Catalog(connection, Login("", ""), MySQL())
        tables = {}
        for (name,) in server.execute(
            f"SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{DATABASE}'"
        ):
            facts = catalog.find(TableId(DATABASE, name))
            assert facts is not None
            columns = [found.column for found in facts.columns]
            with Cursor(connection) as cursor:
                cursor.execute(f"SELECT {asked(columns)} FROM {quoted(name)} ORDER BY 1")
                rows = [
                    [None if cell is None else written(cell) for cell in row]
                    for row in cursor.fetchall()
                ]
            tables[name] = {"columns": [column.name for column in columns], "rows": rows}
        return {"charsets": dict(catalog.charsets()), "tables": tables}


def written(cell: bytes) -> str:
    """Return a cell as text, of a long one its digest."""
    if len(cell) <= LONGEST:
        return cell.decode("latin-1")
    return f"sha256 {hashlib.sha256(cell).hexdigest()}"


if __name__ == "__main__":
    for wanted in sys.argv[1:] or STORIES:
        record(wanted)
